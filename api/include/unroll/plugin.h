/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/plugin.h: the ABI between libunroll (the host) and a backend (a plugin).
 *
 * A backend is a shared object named unroll-ID.so that exports one data symbol and carries one ELF note; both are written by
 *
 *     UNROLL_PLUGIN_EXPORT("org.acme.npu") = {UNROLL_PLUGIN_HEADER, 0, "org.acme.npu", "1.0", "Acme", score, open_, close_};
 *
 * Rules, binding on both sides
 *   R1  A plugin includes this header and philox.h only and links nothing of libunroll: the codes of ops, dtypes and
 *       statuses and the attribute structs stand here too.
 *   R2  Every struct that crosses starts with struct_size = sizeof(struct) as its writer knew it; elements of arrays are
 *       walked by a stride that the writer gives, an attribute struct has its size beside it. A reader uses UNROLL_HAS()
 *       before it touches a field that v1.0 did not have. Sizes are compared with >=, never ==. Fields are appended, never
 *       inserted, moved or retyped. unroll_option is complete for ever.
 *   R3  Fixed-width integers only; no enum, bool or size_t fields; padding is explicit.
 *   R4  A NULL function pointer means "not provided". The required ones are marked; of unroll_host all are.
 *   R5  A call that can fail returns a status and fills a caller-owned unroll_error (which may be NULL). A plugin never
 *       calls abort or exit, never writes to stdio, lets no C++ exception out.
 *   R6  Who creates destroys, through the same table. destroy(NULL) does nothing. A parent outlives its children.
 *       Returned strings live as long as the object they were read from.
 *   R7  Thread tags: [any] any thread, at once; [obj] the caller serialises per object; [main] never at once with anything
 *       else in this plugin. A function that takes several objects is [obj] in its first.
 *   R8  Extensions are asked for by id, "unroll.NAME/REVISION"; a change that is not an appended field is a new revision. One
 *       that is still being tried out is "unroll.NAME.draft/N" and may change or go with any release; nobody else's plugin
 *       may depend on it. A third party's begins with its own domain, "org.acme.NAME/1". An id that is not known gives NULL.
 *   R9  Statuses that every failing function may return beside those it names: E_MEMORY (no host memory), E_INTERNAL. On
 *       failure what the function would have made is not made, and its out-parameters are untouched.
 */
#ifndef UNROLL_PLUGIN_H
#define UNROLL_PLUGIN_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define UNROLL_ABI_MAJOR 0u /* 0.x until two fast backends have lived on it; within 0.x the minor must be equal */
#define UNROLL_ABI_MINOR 2u
#define UNROLL_PLUGIN_MAGIC 0x4C4E5255u /* "URNL", little endian */
/* Bytes of a struct up to and with that field: what a stride, an attr_size or a struct_size must be at least for it. */
#define UNROLL_SIZE_TO(type, field) (offsetof(type, field) + sizeof(((type *)0)->field))
#define UNROLL_HAS(type, p, field) ((p)->struct_size >= UNROLL_SIZE_TO(type, field))

/* ---- statuses: 0 is success, negative is failure ---- */
typedef int32_t unroll_status;
#define UNROLL_STATUSES(X)                               \
  X(UNROLL_OK, 0, "ok")                                  \
  X(UNROLL_E_INVALID, -1, "invalid argument")            \
  X(UNROLL_E_SHAPE, -2, "shapes do not fit")             \
  X(UNROLL_E_DTYPE, -3, "element types do not fit")      \
  X(UNROLL_E_GRAPH, -4, "the graph is not well formed")  \
  X(UNROLL_E_STATE, -5, "not allowed in this state")     \
  X(UNROLL_E_RANGE, -6, "value out of range")            \
  X(UNROLL_E_MEMORY, -7, "out of host memory")           \
  X(UNROLL_E_DEVICE_MEMORY, -8, "out of device memory")  \
  X(UNROLL_E_DEVICE, -9, "the device reported an error") \
  X(UNROLL_E_DEVICE_LOST, -10, "the device is lost")     \
  X(UNROLL_E_UNSUPPORTED, -11, "not supported")          \
  X(UNROLL_E_NOT_FOUND, -12, "not found")                \
  X(UNROLL_E_IO, -13, "input or output failed")          \
  X(UNROLL_E_FORMAT, -14, "malformed file")              \
  X(UNROLL_E_PLUGIN, -15, "the plugin is unusable")      \
  X(UNROLL_E_ABI, -16, "built for another ABI")          \
  X(UNROLL_E_CANCELLED, -17, "cancelled")                \
  X(UNROLL_E_INTERNAL, -18, "internal error: please report")
enum {
#define UNROLL_STATUS_CODE(name, value, text) name = (value),
  UNROLL_STATUSES(UNROLL_STATUS_CODE)
#undef UNROLL_STATUS_CODE
};

typedef struct unroll_error {
  uint32_t struct_size;
  unroll_status code;
  int64_t native; /* cl_int, errno, ... or 0 */
  char message[240];
} unroll_error;

/* ---- element types ---- */
#define UNROLL_DTYPES(X)       \
  X(UNROLL_F64, 0, "f64", 8)   \
  X(UNROLL_F32, 1, "f32", 4)   \
  X(UNROLL_F16, 2, "f16", 2)   \
  X(UNROLL_BF16, 3, "bf16", 2) \
  X(UNROLL_I64, 4, "i64", 8)   \
  X(UNROLL_I32, 5, "i32", 4)   \
  X(UNROLL_I8, 6, "i8", 1)     \
  X(UNROLL_U8, 7, "u8", 1)     \
  X(UNROLL_BOOL, 8, "bool", 1) /* one byte, 0 or 1 */
enum {
#define UNROLL_DTYPE_CODE(name, value, text, bytes) name = (value),
  UNROLL_DTYPES(UNROLL_DTYPE_CODE)
#undef UNROLL_DTYPE_CODE
      UNROLL_DTYPE_COUNT = 9
};

#define UNROLL_MAX_RANK 6
#define UNROLL_NO_TENSOR 0xFFFFFFFFu /* an optional edge that is absent, or an output that nobody needs */
#define UNROLL_NO_SLOT 0xFFFFFFFFu
#define UNROLL_NO_BODY 0xFFFFFFFFu

/*
 * ---- ops ----
 * "real" is f32 or f64; all real tensors of one node have the same dtype. [..] is any number of axes. Inputs in parentheses
 * are optional: their edge is UNROLL_NO_TENSOR when absent. Any output may be UNROLL_NO_TENSOR in a graph that is being
 * compiled: nobody reads it. σ is the logistic function, ⊙ the product of elements. Every tensor is dense and row-major; only
 * axis 0 may have a run-time size. NaN and infinity pass through as IEEE 754 has them.
 *
 * op_version is 1, and rises where a node means what those who know only the version before would compute otherwise, since an
 * attribute or an input was appended that they don't read. Such a node is left unclaimed by them, as every node of a version
 * that is not known; a node that has no such input, or that the attribute changes nothing of, keeps the lower version.
 *
 * MATMUL      a, b, (c) -> y = op(a)·op(b) + c                                                   attr unroll_matmul_attr
 *             b of rank 2, [K,N] ([N,K] with trans_b): a [..,M,K], its leading axes count as rows, y [..,M,N]; with trans_a
 *             a is [K,M], of rank 2. b of rank 3: batched, a [P,M,K] ([P,K,M]), b [P,K,N] ([P,N,K]), y [P,M,N].
 *             c has y's shape, or is a row [N]; with blocks of k it has y's shape. y may be the sum of blocks: see
 *             the attribute.
 * UNARY       x -> y                                                                             attr unroll_unary_attr
 *             COPY, and for integers NEG, ABS, SIGN, SQUARE, take any number type; LOGICAL_NOT bool; the others real.
 * BINARY      a, b -> y, broadcast as NumPy does                                                 attr unroll_binary_attr
 *             Arithmetic takes f32, f64, i32, i64; comparisons give bool; *_GRAD(dy, y) real. MAX and MIN give NaN where either
 *             is NaN. Integers wrap around; their DIV truncates, and x/0 is 0.
 * REDUCE      x, (c) -> y, over the axes of a bit mask                                           attr unroll_reduce_attr
 *             A reduced axis becomes 1 with keep_dims, else it goes. SUM and SUM_SQUARES in a fixed order. c, of y's
 *             shape: what a sum of blocks starts from; the node is of version 2 then.
 * SOFTMAX     x [..,N] -> y, over the last axis, shifted by the largest value
 * LOG_SOFTMAX x [..,N] -> y, likewise
 * CROSS_ENTROPY       logits [..,V], targets i32 [..] -> loss [..] = -log softmax(logits)[target]
 *             A target below 0 is ignored: its loss is 0. One of V or more gives NaN.
 * CROSS_ENTROPY_GRAD  logits [..,V], targets [..], dloss [..] -> dlogits = (softmax - onehot)·dloss
 *             A row that is ignored gives 0, a target of V or more NaN.
 * EMBEDDING   table [V,E], ids i32 [..] -> y [..,E]. An id outside of 0..V-1 gives a row of NaN.
 * EMBEDDING_GRAD  ids [..], dy [..,E] -> dtable [V,E], rows summed in the order of ids; ids out of range are left out
 * SLICE       x -> y, y's extent along the axis, from start on. Along axis 0 the host makes a view  attr unroll_slice_attr
 * PAD         x -> y, zeros before and after along one axis                                      attr unroll_pad_attr
 * CONCAT      x0, x1, .. -> y along one axis                                                     attr unroll_axis_attr
 * TRANSPOSE   x -> y, axis i of y is axis perm[i] of x                                           attr unroll_transpose_attr
 * RESHAPE     x -> y. Always a view that the host makes: no backend is asked to run it.
 * REVERSE     x [T,B,..], lengths i32 [B] -> y: y[t,b] = x[len-1-t,b] for t < len, x[t,b] after
 * SELECT      condition bool, a, b -> y, broadcast; a and b of one dtype, any
 * CAST        x -> y of another dtype; real to integer truncates; to bool: x != 0
 * CONSTANT    -> y filled with one value                                                         attr unroll_constant_attr
 * DROPOUT     x -> y = x·mask/(1-p); its own gradient with the same attributes                   attr unroll_dropout_attr
 *             x [T,B,..] with time_axis 0, or one step [B,..] with time_axis -1. The element at (t, b, unit j over the rest) is
 *             kept if unroll_uniform(philox(seed, update, site, t0 + t, row0 + b, j)) >= p; see philox.h.
 * ARGMAX      x [..,N] -> i32 [..]: the first largest; NaN counts as largest
 * CATEGORICAL logits [B,V] -> i32 [B], sampled by inversion from softmax(logits)                 attr unroll_categorical_attr
 *             over the top_k largest (0: all; ties by lower index). Kept ids in index order, the uniform number at
 *             (site, t0 + t, row0 + b, 0).
 *             top_p: of those, the smallest set of the likeliest ids whose probabilities sum to at least top_p, ties by lower
 *             index (nucleus sampling; Holtzman et al. 2020). With w_j = exp(logit_j - largest), 0 for the ids that top_k left
 *             out, these are the first n of the kept ids in descending order of their logits, n the least for which the sum of
 *             their w is top_p times the sum of all w, or more. A row with NaN keeps all that top_k keeps. 0 < top_p < 1 comes
 *             with op_version 2 alone; with version 1 all are kept.
 * LENGTH_MASK x, (other), lengths i32 [B] -> y = t < lengths[b] ? x : (other or 0)               attr unroll_length_mask_attr
 *             x, of any dtype, is [T,B,..] with time_axis 0, or one step [B,..] with time_axis -1, where t is the template's
 *             (0 outside of one); invert swaps the two sides.
 * RANDOM      -> y real, of independent numbers                                                  attr unroll_random_attr
 *             y [T,B,..] with time_axis 0, or one step [B,..] with time_axis -1. The element at (t, b, unit j over the rest) is
 *             counted as DROPOUT counts it. RANDOM_UNIFORM: unroll_uniform(unroll_philox_word(..)), in [0,1), the same bits
 *             everywhere. RANDOM_NORMAL: unroll_normal(..) rounded to y's dtype, within 4 ulp in f32, 8 in f64.
 * GATHER      x [..,N], ids i32 [..,M] -> y [..,M]: y[..,m] = x[..,ids[..,m]]. The axes in front are equal; an id outside of
 *             0..N-1 gives NaN.
 * GATHER_GRAD ids [..,M], dy [..,M] -> dx [..,N], dx[..,n] = the sum of the dy[..,m] with ids[..,m] = n, in the order of m;
 *             ids out of range are left out
 * TOP_K       x [..,N] -> values [..,k], ids i32 [..,k]: the k largest in descending order, ties by lower index; NaN counts as
 *             largest                                                                            attr unroll_top_k_attr
 * LINEAR_SCAN a, b [T,B,..], (h0 [B,..]), (lengths i32 [B]) -> y [T,B,..], h_last [B,..]          attr unroll_linear_scan_attr
 *             y_t = h_t = a_t⊙h_{t-1} + b_t, and h_t = a_t⊙h_{t+1} + b_t with REVERSE; h is h0, or 0, before the first step.
 *             Past its length a sequence's y is 0, its h stands still, and what a and b hold is not looked at; a reverse scan
 *             begins at each sequence's own end. Steps may be put together out of order, since (a, b) of neighbours combine to
 *             (a2·a1, a2·b1 + b2) (Blelloch 1990; Martin & Cundy 2018).
 * LINEAR_SCAN_GRAD      a, y, (h0), (dy [T,B,..]), (dh_last [B,..]), (lengths) -> da, db [T,B,..], dh0 [B,..]
 *             The same scan the other way: g_t = dy_t + a_{t+1}⊙g_{t+1}, where dh_last stands for the second term at the last
 *             step; db_t = g_t, da_t = g_t⊙h_{t-1}, dh0 = a_1⊙g_1 (dh_last, where a length is 0). Past its length 0.
 *                                                                                                attr unroll_linear_scan_attr
 * LAYER_NORM  x [..,N], gain [N], (shift, [N] or of x's shape) -> y of x's shape                 attr unroll_layer_norm_attr
 *             y = gain⊙(x - mean)/sqrt(variance + epsilon) + shift, with mean and variance (the mean of (x - mean)²) of each
 *             row of N numbers                                                                   (Ba, Kiros & Hinton 2016)
 * LAYER_NORM_GRAD       x, gain, dy, (sum_gain [N]), (sum_shift [N]) -> dx, dgain [N], dshift [N]
 *             With x̂ = (x - mean)/sqrt(variance + epsilon) and d = dy⊙gain: dx = (d - mean(d) - x̂⊙mean(d⊙x̂))/sqrt(variance +
 *             epsilon), means over a row; dgain = Σ dy⊙x̂ and dshift = Σ dy over all rows, in a fixed order, or in blocks:
 *             see the attribute. The sums are what those of blocks start from.                   attr unroll_layer_norm_attr
 * OPTIMIZER   param, grad, lr [], step i32 [], (scale []), (s1), (s2) -> param', (s1'), (s2')    attr unroll_optimizer_attr
 *             g = grad·scale. step counts from 1. Formulas beside the attribute struct. Output i may be written over its input.
 *
 * The pointwise half of one step of a cell. B rows, H units; row blocks as named.
 * LSTM_GATES  pre [B,4H] (i f g o), c_prev [B,H], (gain [H], shift [H])
 *             -> h, c [B,H], gates [B,4H] = σ(i) σ(f) tanh(g) σ(o)                               attr unroll_layer_norm_attr
 *             c = f⊙c_prev + i⊙g, h = o⊙tanh(c)                            (Hochreiter & Schmidhuber 1997; Gers et al. 2000)
 *             With gain and shift, which come together and with op_version 2 alone, h = o⊙tanh(LAYER_NORM(c, gain, shift)).
 * LSTM_GATES_GRAD       gates, c_prev, (dh), (dc), (gain, shift), (sum_gain [H]), (sum_shift [H])
 *             -> dpre [B,4H], dc_prev [B,H], dgain, dshift [H]                                   attr unroll_layer_norm_attr
 *             The last two of the outputs with gain and shift alone, summed as those of LAYER_NORM_GRAD.
 * GRU_AFTER_GATES       xp [B,3H] (r z n), hp [B,3H], h_prev [B,H] -> h [B,H], gates [B,4H] = r z n and hp's n block
 *             r = σ(xr+hr), z = σ(xz+hz), n = tanh(xn + r⊙hn), h = (1-z)⊙n + z⊙h_prev            (Cho et al. 2014, cuDNN's form)
 * GRU_AFTER_GATES_GRAD  gates, h_prev, dh -> dxp [B,3H], dhp [B,3H], dh_prev [B,H]
 * GRU_RESET   pre [B,2H] (r z), h_prev -> rz [B,2H] = σ(pre), rh [B,H] = r⊙h_prev
 * GRU_RESET_GRAD        rz, h_prev, (drz), (drh) -> dpre [B,2H], dh_prev
 * GRU_UPDATE  pre [B,H], rz [B,2H], h_prev -> h = (1-z)⊙n + z⊙h_prev, n [B,H] = tanh(pre)
 * GRU_UPDATE_GRAD       rz, n, h_prev, dh -> dpre [B,H], drz [B,2H] (r block 0), dh_prev
 *
 * A standard cell over a whole sequence, one direction. G gates: rnn 1, lstm 4, gru and gru_after 3.
 * LAYER       x [T,B,I], W_x [GH,I], W_h [GH,H], b [GH], (b_n [H], gru_after), h0 [B,H], (c0 [B,H], lstm), (lengths i32 [B]),
 *             (h_mask [B,H]), (keep_h), (keep_c, lstm)
 *             -> y [T,B,H], h_last [B,H], c_last [B,H] (lstm), saved 0..3                        attr unroll_layer_attr
 *             Past its length a sequence's y is 0 and its state stands still; a reverse layer runs from each sequence's own
 *             end. saved, all [T,B,..], what the gradient reads, of every step in memory order:
 *               rnn        h_prev [H], h [H] (of the state, not masked; with keep_h the cell's own)
 *               lstm       h_prev [H], gates [4H] (i f g o), c_prev [H]
 *               gru        h_prev [H], rz [2H], rh [H], n [H]
 *               gru_after  h_prev [H], gates [4H] (r z n hn)
 *             The last three inputs, of version 2 where one of them is given, change what a step does:
 *               h_mask     m: W_h is multiplied with m⊙h_prev instead of h_prev, of a gru's n with m⊙(r⊙h_prev); nothing
 *                          else sees m (Gal & Ghahramani 2016). In the gradient what comes back through W_h is
 *                          multiplied with m, and dW_h is of m⊙h_prev. rh is saved without m.
 *               keep_h     k, bool or real, [T,B,H] or, the same for all steps, [B,H]: h = k⊙h_prev + (1-k)⊙h', h' what the
 *                          cell makes (Krueger et al. 2017: 0 and 1 at random, or their expectation)
 *               keep_c     likewise c = k⊙c_prev + (1-k)⊙c'; h' is of c'
 *             No gradient flows into them. What they hold past a sequence's length is not looked at.
 * LAYER_GRAD  x, W_x, W_h, b, (b_n), (lengths), saved 0..3, (dy), (dh_last), (dc_last), (sum_x, sum_h, sum_b, sum_n),
 *             (h_mask), (keep_h), (keep_c)
 *             -> dx, dW_x, dW_h, db, db_n, dh0, dc0                                              attr unroll_layer_attr
 *             Absent saved values beyond the cell's own count are UNROLL_NO_TENSOR. The sums are what dW_x, dW_h, db
 *             and db_n start from, each of its shape; where one is given, the node is of version 2. With masks, those
 *             of its LAYER, it is of version 3.
 *             Where the same device claims both with UNROLL_CLAIM_RESERVE, saved 0 of the two is one opaque tensor of its own
 *             instead, u8 [reserve_bytes], and saved 1..3 are absent.
 * SCAN        carries.., per-step inputs [T,..].., captures.. -> last carries.., per-step outputs [T,..]..
 *             attr unroll_scan_attr, body: graph->bodies[node->body], whose inputs are one step's carries, per-step inputs,
 *             captures, and whose outputs are the next carries and the per-step outputs. REVERSE runs t from T-1 to 0.
 */
#define UNROLL_OPS(X)                                           \
  X(UNROLL_OP_MATMUL, 1, "matmul")                              \
  X(UNROLL_OP_UNARY, 2, "unary")                                \
  X(UNROLL_OP_BINARY, 3, "binary")                              \
  X(UNROLL_OP_REDUCE, 4, "reduce")                              \
  X(UNROLL_OP_SOFTMAX, 5, "softmax")                            \
  X(UNROLL_OP_LOG_SOFTMAX, 6, "log_softmax")                    \
  X(UNROLL_OP_CROSS_ENTROPY, 7, "cross_entropy")                \
  X(UNROLL_OP_CROSS_ENTROPY_GRAD, 8, "cross_entropy_grad")      \
  X(UNROLL_OP_EMBEDDING, 9, "embedding")                        \
  X(UNROLL_OP_EMBEDDING_GRAD, 10, "embedding_grad")             \
  X(UNROLL_OP_SLICE, 11, "slice")                               \
  X(UNROLL_OP_PAD, 12, "pad")                                   \
  X(UNROLL_OP_CONCAT, 13, "concat")                             \
  X(UNROLL_OP_TRANSPOSE, 14, "transpose")                       \
  X(UNROLL_OP_RESHAPE, 15, "reshape")                           \
  X(UNROLL_OP_REVERSE, 16, "reverse")                           \
  X(UNROLL_OP_SELECT, 17, "select")                             \
  X(UNROLL_OP_CAST, 18, "cast")                                 \
  X(UNROLL_OP_CONSTANT, 19, "constant")                         \
  X(UNROLL_OP_DROPOUT, 20, "dropout")                           \
  X(UNROLL_OP_ARGMAX, 21, "argmax")                             \
  X(UNROLL_OP_CATEGORICAL, 22, "categorical")                   \
  X(UNROLL_OP_LENGTH_MASK, 23, "length_mask")                   \
  X(UNROLL_OP_OPTIMIZER, 24, "optimizer")                       \
  X(UNROLL_OP_LSTM_GATES, 25, "lstm_gates")                     \
  X(UNROLL_OP_LSTM_GATES_GRAD, 26, "lstm_gates_grad")           \
  X(UNROLL_OP_GRU_AFTER_GATES, 27, "gru_after_gates")           \
  X(UNROLL_OP_GRU_AFTER_GATES_GRAD, 28, "gru_after_gates_grad") \
  X(UNROLL_OP_GRU_RESET, 29, "gru_reset")                       \
  X(UNROLL_OP_GRU_RESET_GRAD, 30, "gru_reset_grad")             \
  X(UNROLL_OP_GRU_UPDATE, 31, "gru_update")                     \
  X(UNROLL_OP_GRU_UPDATE_GRAD, 32, "gru_update_grad")           \
  X(UNROLL_OP_LAYER, 33, "layer")                               \
  X(UNROLL_OP_LAYER_GRAD, 34, "layer_grad")                     \
  X(UNROLL_OP_SCAN, 35, "scan")                                 \
  X(UNROLL_OP_RANDOM, 36, "random")                             \
  X(UNROLL_OP_GATHER, 37, "gather")                             \
  X(UNROLL_OP_GATHER_GRAD, 38, "gather_grad")                   \
  X(UNROLL_OP_TOP_K, 39, "top_k")                               \
  X(UNROLL_OP_LINEAR_SCAN, 40, "linear_scan")                   \
  X(UNROLL_OP_LINEAR_SCAN_GRAD, 41, "linear_scan_grad")         \
  X(UNROLL_OP_LAYER_NORM, 42, "layer_norm")                     \
  X(UNROLL_OP_LAYER_NORM_GRAD, 43, "layer_norm_grad")
enum {
#define UNROLL_OP_CODE(name, value, text) name = (value),
  UNROLL_OPS(UNROLL_OP_CODE)
#undef UNROLL_OP_CODE
      UNROLL_OP_END = 44 /* one past the last code */
};

#define UNROLL_UNARIES(X)                    \
  X(UNROLL_COPY, 0, "copy")                  \
  X(UNROLL_NEG, 1, "neg")                    \
  X(UNROLL_ABS, 2, "abs")                    \
  X(UNROLL_SIGN, 3, "sign")                  \
  X(UNROLL_EXP, 4, "exp")                    \
  X(UNROLL_LOG, 5, "log")                    \
  X(UNROLL_SQRT, 6, "sqrt")                  \
  X(UNROLL_RECIPROCAL, 7, "reciprocal")      \
  X(UNROLL_SQUARE, 8, "square")              \
  X(UNROLL_TANH, 9, "tanh")                  \
  X(UNROLL_SIGMOID, 10, "sigmoid")           \
  X(UNROLL_RELU, 11, "relu")                 \
  X(UNROLL_LOGICAL_NOT, 12, "logical_not")   \
  X(UNROLL_EXPM1, 13, "expm1") /* e^x - 1 */ \
  X(UNROLL_LOG1P, 14, "log1p") /* log(1 + x) */
#define UNROLL_BINARIES(X)                                      \
  X(UNROLL_ADD, 0, "add")                                       \
  X(UNROLL_SUB, 1, "sub")                                       \
  X(UNROLL_MUL, 2, "mul")                                       \
  X(UNROLL_DIV, 3, "div")                                       \
  X(UNROLL_MAX, 4, "max")                                       \
  X(UNROLL_MIN, 5, "min")                                       \
  X(UNROLL_EQ, 6, "eq")                                         \
  X(UNROLL_NE, 7, "ne")                                         \
  X(UNROLL_LT, 8, "lt")                                         \
  X(UNROLL_LE, 9, "le")                                         \
  X(UNROLL_GT, 10, "gt")                                        \
  X(UNROLL_GE, 11, "ge")                                        \
  X(UNROLL_TANH_GRAD, 12, "tanh_grad")       /* dy·(1-y²) */  \
  X(UNROLL_SIGMOID_GRAD, 13, "sigmoid_grad") /* dy·y·(1-y) */ \
  X(UNROLL_RELU_GRAD, 14, "relu_grad")       /* y > 0 ? dy : 0 */
#define UNROLL_REDUCTIONS(X)              \
  X(UNROLL_SUM, 0, "sum")                 \
  X(UNROLL_SUM_SQUARES, 1, "sum_squares") \
  X(UNROLL_REDUCE_MAX, 2, "max")          \
  X(UNROLL_REDUCE_MIN, 3, "min")
#define UNROLL_OPTIMIZERS(X)      \
  X(UNROLL_SGD, 0, "sgd")         \
  X(UNROLL_RMSPROP, 1, "rmsprop") \
  X(UNROLL_ADAM, 2, "adam")       \
  X(UNROLL_ADAMW, 3, "adamw")
#define UNROLL_RANDOMS(X)                \
  X(UNROLL_RANDOM_UNIFORM, 0, "uniform") \
  X(UNROLL_RANDOM_NORMAL, 1, "normal")
#define UNROLL_CELLS(X)                                                       \
  X(UNROLL_CELL_RNN, 1, "rnn")                                                \
  X(UNROLL_CELL_LSTM, 2, "lstm")                                              \
  X(UNROLL_CELL_GRU, 3, "gru")             /* the reset before the product */ \
  X(UNROLL_CELL_GRU_AFTER, 4, "gru_after") /* the reset after it: PyTorch's and cuDNN's */
enum {
#define UNROLL_KIND(name, value, text) name = (value),
  UNROLL_UNARIES(UNROLL_KIND) UNROLL_UNARY_COUNT = 15,
  UNROLL_BINARIES(UNROLL_KIND) UNROLL_BINARY_COUNT = 15,
  UNROLL_REDUCTIONS(UNROLL_KIND) UNROLL_REDUCTION_COUNT = 4,
  UNROLL_OPTIMIZERS(UNROLL_KIND) UNROLL_OPTIMIZER_COUNT = 4,
  UNROLL_RANDOMS(UNROLL_KIND) UNROLL_RANDOM_COUNT = 2,
  UNROLL_CELL_NONE = 0,
  UNROLL_CELLS(UNROLL_KIND) UNROLL_CELL_COUNT = 5
#undef UNROLL_KIND
};
enum { UNROLL_FORWARD = 0, UNROLL_REVERSE = 1 };

/* ---- attributes of ops ---- */
/*
 * A sum over time is cut into blocks, so that it has the same bits wherever it is interrupted between two of them and
 * taken up with what is there so far: y = c (or 0), then for each block y += the block's own sum, rounded to y's
 * dtype each time. Blocks are counted from the first index; the last one may be smaller.
 */
enum { UNROLL_BLOCKS_FROM_LAST = 0, UNROLL_BLOCKS_FROM_FIRST = 1 };
typedef struct unroll_matmul_attr {
  int32_t trans_a, trans_b;
  int64_t k_block; /* above 0: the sum over k is one of blocks of so many; c is of y's shape or absent */
  /* Above 0: rows of y that a node of its own makes, from a multiple of m_block on and at least so many, have the bits
   * that they have here. */
  int64_t m_block;
  int32_t block_order, reserved; /* UNROLL_BLOCKS_* */
} unroll_matmul_attr;
typedef struct unroll_unary_attr {
  int32_t kind, reserved;
} unroll_unary_attr;
typedef struct unroll_binary_attr {
  int32_t kind, reserved;
} unroll_binary_attr;
typedef struct unroll_reduce_attr {
  int32_t kind;
  uint32_t axes; /* bit i: axis i is reduced */
  int32_t keep_dims, reserved;
  /* Above 0, of UNROLL_SUM over axis 0 among others: blocks of so many indices of axis 0, see unroll_matmul_attr. */
  int64_t block;
  int32_t block_order, reserved_2;
} unroll_reduce_attr;
typedef struct unroll_slice_attr {
  int32_t axis, reserved;
  int64_t start;
} unroll_slice_attr;
typedef struct unroll_pad_attr {
  int32_t axis, reserved;
  int64_t before, after;
} unroll_pad_attr;
typedef struct unroll_axis_attr {
  int32_t axis, reserved;
} unroll_axis_attr;
typedef struct unroll_transpose_attr {
  int32_t perm[UNROLL_MAX_RANK];
} unroll_transpose_attr;
typedef struct unroll_constant_attr {
  double value; /* converted to the dtype of y */
} unroll_constant_attr;
typedef struct unroll_dropout_attr {
  double p; /* probability of being dropped, 0 <= p < 1 */
  uint32_t site;
  int32_t time_axis; /* 0 or -1 */
  int64_t t0;        /* the first step is that one of the sequence */
} unroll_dropout_attr;
typedef struct unroll_categorical_attr {
  uint32_t site, reserved;
  int64_t top_k;
  double top_p; /* op_version 2: 0 < top_p < 1; else of no meaning */
} unroll_categorical_attr;
typedef struct unroll_random_attr {
  int32_t kind;      /* UNROLL_RANDOM_* */
  int32_t time_axis; /* 0 or -1 */
  uint32_t site, reserved;
} unroll_random_attr;
typedef struct unroll_top_k_attr {
  int64_t k; /* 1..N */
} unroll_top_k_attr;
typedef struct unroll_linear_scan_attr {
  int32_t direction, reserved;
} unroll_linear_scan_attr;
typedef struct unroll_layer_norm_attr {
  double epsilon; /* 0 or more */
  /* Of a gradient, above 0: dgain and dshift are sums of blocks of so many indices of axis 0, see unroll_matmul_attr. */
  int64_t block;
  int32_t block_order, reserved;
} unroll_layer_norm_attr;
typedef struct unroll_length_mask_attr {
  int32_t time_axis, invert;
} unroll_length_mask_attr;
/*
 * g = grad·scale; SGD, RMSPROP and ADAM add weight_decay·param to g (L2), ADAMW first does param -= lr·weight_decay·param.
 *   SGD      s1 = momentum·s1 + g; param -= lr·s1                    (without s1, when momentum is 0: param -= lr·g)
 *            s1 is 0 before the first step, so it starts as g: PyTorch's form without dampening
 *   RMSPROP  s1 = beta2·s1 + (1-beta2)·g²; param -= lr·g/(sqrt(s1) + epsilon)                      (Hinton 2012, as PyTorch)
 *   ADAM(W)  s1 = beta1·s1 + (1-beta1)·g; s2 = beta2·s2 + (1-beta2)·g²;
 *            param -= lr·(s1/(1-beta1^step)) / (sqrt(s2/(1-beta2^step)) + epsilon)                 (Kingma & Ba 2015)
 */
typedef struct unroll_optimizer_attr {
  int32_t kind, reserved;
  double beta1; /* also SGD's momentum */
  double beta2; /* also RMSprop's smoothing constant */
  double epsilon, weight_decay;
} unroll_optimizer_attr;
typedef struct unroll_layer_attr {
  int32_t cell, direction;
  int32_t activation; /* rnn: UNROLL_TANH, UNROLL_RELU or UNROLL_SIGMOID */
  int32_t reserved;
  /*
   * Above 0: the gradients of weights and biases are sums of blocks of so many steps (see unroll_matmul_attr), in the
   * order in which the gradient comes by: a forward layer's from the last. 0: of any order.
   */
  int32_t block;
  /* Not 0: a part of a sequence, cut at multiples of block; who has no such sums leaves it to others. */
  int32_t segment;
} unroll_layer_attr;
typedef struct unroll_scan_attr {
  uint32_t n_carries, n_inputs, n_captures, n_outputs;
  int32_t direction, cell; /* cell: which standard cell was lowered to this scan, or UNROLL_CELL_NONE */
  int64_t t0; /* of random ops in the body: which step of the sequence is the first; a template's runs say it */
} unroll_scan_attr;

/* ---- what the host gives the plugin ---- */
enum { UNROLL_LOG_ERROR = 0, UNROLL_LOG_WARN = 1, UNROLL_LOG_INFO = 2, UNROLL_LOG_DEBUG = 3 };
typedef struct unroll_host {
  uint32_t struct_size;
  uint16_t abi_major, abi_minor;
  void *ctx;
  void (*log)(void *ctx, int32_t level, const char *message);    /* [any] */
  void *(*alloc)(void *ctx, uint64_t bytes, uint64_t alignment); /* [any] NULL when there is no memory */
  void (*free)(void *ctx, void *p);                              /* [any] */
  const void *(*extension)(void *ctx, const char *id);           /* [any] "unroll.threads/1": const uint32_t *count */
} unroll_host;

typedef struct unroll_backend unroll_backend; /* opaque, the plugin's own */
typedef struct unroll_backend_device unroll_backend_device;
typedef struct unroll_backend_queue unroll_backend_queue;
typedef struct unroll_backend_buffer unroll_backend_buffer;
typedef struct unroll_backend_event unroll_backend_event;
typedef struct unroll_backend_exec unroll_backend_exec;
typedef struct unroll_backend_binding unroll_backend_binding;
typedef struct unroll_backend_ops unroll_backend_ops;
typedef struct unroll_option {
  const char *key, *value;
} unroll_option;

/* ---- descriptions ---- */
enum { UNROLL_KIND_CPU = 1, UNROLL_KIND_GPU = 2, UNROLL_KIND_INTEGRATED_GPU = 3, UNROLL_KIND_ACCELERATOR = 4 };
#define UNROLL_CAP_ASYNC 1u         /* run returns before the work is done */
#define UNROLL_CAP_DETERMINISTIC 2u /* the same bits run after run, and of segments as of the whole sequence */
typedef struct unroll_device_info {
  uint32_t struct_size;
  int32_t kind;
  const char *name, *vendor, *driver;
  const char *id;                            /* "0", or platform.device: "0.1"; the host puts "PLUGIN:" before it */
  uint64_t mem_total, max_buffer, alignment; /* bytes; alignment of a tensor inside a buffer */
  uint64_t caps;                             /* UNROLL_CAP_* */
  uint64_t dtypes;                           /* a bit per dtype */
} unroll_device_info;

enum {
  UNROLL_ROLE_TEMP = 0,   /* made and used within a run */
  UNROLL_ROLE_INPUT = 1,  /* written by the caller before a run */
  UNROLL_ROLE_PARAM = 2,  /* stays in its buffer between runs; may be updated by a run */
  UNROLL_ROLE_STATE = 3,  /* likewise, h and c above all */
  UNROLL_ROLE_OUTPUT = 4, /* read by the caller after a run */
  UNROLL_ROLE_CARRY = 5,  /* of a body: a carry as the step finds it */
  UNROLL_ROLE_STEP = 6,   /* of a body: one step of a per-step input */
  UNROLL_ROLE_CAPTURE = 7 /* of a body: the same for every step */
};

typedef struct unroll_tensor_view { /* elements of graph->tensors, tensor_stride bytes apart */
  int32_t dtype, rank, role;
  uint32_t slot;   /* which slot of the binding holds it; UNROLL_NO_SLOT before planning and inside a private group */
  int32_t alias;   /* this output is written over that tensor; -1 for none */
  uint32_t period; /* in a step template: t counts modulo this (carries); 0 for plain t */
  uint64_t offset; /* bytes into the slot */
  int64_t step;    /* in a step template: plus t·step bytes; t is the index in memory */
  int64_t shape[UNROLL_MAX_RANK], stride[UNROLL_MAX_RANK]; /* in elements; a run-time size stands at its maximum */
  int32_t dim[UNROLL_MAX_RANK]; /* index into the run-time sizes, -1 where static: the extent in a run is
                                   shape/dim_max[dim]·dims[dim]. Only axis 0 may have one. */
  const char *name;             /* for messages; never NULL */
} unroll_tensor_view;

typedef struct unroll_node_view { /* elements of graph->nodes, node_stride bytes apart */
  uint32_t op, op_version;
  uint32_t first_in, n_in, first_out, n_out; /* into graph->edges */
  int32_t layer, direction;                  /* where in the network, -1 where it is in no recurrence */
  uint32_t body, cell;                       /* a scan's body: index into graph->bodies */
  const void *attr;
  uint32_t attr_size, reserved;
  const char *name; /* for messages; never NULL */
} unroll_node_view;

typedef struct unroll_graph_view { /* flat, read-only, valid during the call; nodes stand in an order they can run in */
  uint32_t struct_size, node_stride, tensor_stride, n_nodes, n_tensors, n_edges;
  uint32_t is_template, n_bodies; /* a template is one time step, run for many t */
  uint32_t n_dims, n_slots;       /* run-time sizes: minimum, at least 1, and maximum of each; slots of a binding */
  uint32_t first_in, n_in;        /* into edges: the graph's inputs, */
  uint32_t first_out, n_out;      /* and its outputs, in order (of a body as SCAN has them) */
  const int64_t *dim_min, *dim_max;
  const void *nodes, *tensors;
  const uint32_t *edges;
  const struct unroll_graph_view *const *bodies;
} unroll_graph_view;

/*
 * A claim per node. Group 0: not claimed. UNROLL_GROUP_HOST: the node is claimed by itself, and the host joins neighbours
 * into groups as it likes; every tensor of such a group has a slot, planned by the host, and the nodes are run in the order
 * of the view. In a template that holds all nodes of its step nobody looks at what is TEMP and has been read by the node that
 * follows: who runs such neighbours as one need not write it. Any other number names a private group: convex, run as one,
 * and what is temporary inside has UNROLL_NO_SLOT: it is the plugin's business, in workspace that exec_info asks for.
 */
#define UNROLL_GROUP_HOST 0xFFFFFFFFu
#define UNROLL_CLAIM_FIXED_DIMS 1u /* wants minimum = maximum for every run-time size */
/*
 * Of a LAYER and its LAYER_GRAD: in place of the standard saved values they hand each other reserve_bytes bytes that nobody
 * else reads. The gradient is given no y, no last and no first states: what it needs of them the layer puts there. The host
 * grants it where one device asks for it, with the same size, for the layer and for every node that reads its saved values. The
 * graph is then offered again with the u8 tensor in place, and the claim is repeated; u8 need not be among the device's dtypes
 * for it. Where it can't be granted the layer is lowered, unless nobody reads what it saves.
 */
#define UNROLL_CLAIM_RESERVE 2u
typedef struct unroll_claim { /* claim_stride bytes apart */
  uint32_t group, flags;
  uint64_t reserve_bytes; /* of UNROLL_CLAIM_RESERVE */
} unroll_claim;

typedef struct unroll_exec_info {
  uint32_t struct_size, reserved;
  uint64_t workspace_bytes, workspace_alignment; /* scratch of a binding, undefined between runs */
  uint64_t persistent_bytes;                     /* what a binding keeps: packed weights and the like */
} unroll_exec_info;

typedef struct unroll_slot {
  uint32_t struct_size, reserved;
  unroll_backend_buffer *buffer; /* NULL for a slot that this group does not use */
  uint64_t offset, bytes;
} unroll_slot;

typedef struct unroll_run_args {
  uint32_t struct_size, n_dims;
  const int64_t *dims;         /* the run-time sizes of this run */
  const uint64_t *generations; /* of the slots: equal means equal bytes, 0 never cache; n_slots of them, or NULL */
  uint64_t seed, update;       /* of the random ops, */
  int64_t t0, row0;            /* whose positions and rows count from here */
  int64_t first, count;        /* a template's range of t, counted in memory */
  int32_t direction, reserved; /* of a template: FORWARD runs first, first+1, ..; REVERSE runs first, first-1, .. */
} unroll_run_args;

/*
 * ---- the vtable ----
 * All functions down to `run` are required. err may be NULL; see R5 and R9 for what every function may return.
 */
#define UNROLL_QUEUE_PROFILE 1u /* of queue_create: runs are timed for "unroll.profile/1" */
struct unroll_backend_ops {
  uint32_t struct_size, reserved;

  /* ---- devices ---- */
  /* How many there are now; 0 is an answer. Opens none. E_DEVICE. [any] */
  unroll_status (*device_count)(unroll_backend *, uint32_t *n, unroll_error *);
  /* Fills what *info has room for (struct_size is the caller's). Strings are not NULL and live as long as the backend;
   * alignment is a power of two, max_buffer above 0. Compiles no kernel, creates no context. E_NOT_FOUND: no such i. [any] */
  unroll_status (*device_info)(unroll_backend *, uint32_t i, unroll_device_info *info, unroll_error *);
  /* The options are the user's; an unknown key or value is E_INVALID or E_UNSUPPORTED, never ignored. E_NOT_FOUND, E_DEVICE.
   * A device may be open more than once. [any] */
  unroll_status (*device_open)(unroll_backend *, uint32_t i, const unroll_option *, uint32_t n_options,
                               unroll_backend_device **, unroll_error *);
  /* After all that was made on it. NULL: nothing. [obj] */
  void (*device_close)(unroll_backend_device *);

  /* ---- capability ---- */
  /* The whole graph in, a claim per node out, claim_stride bytes apart and zero on entry. Layers come first, then scans, and
   * what nobody took comes back as templates. A claim is a promise for every attribute, shape and size that the view allows.
   * A node that is not understood, for its op, version, attributes or element types, is left unclaimed; that is no failure,
   * but having no memory to look at it is. E_GRAPH, E_ABI: a view that can't be read. [any] */
  unroll_status (*claim)(unroll_backend_device *, const unroll_graph_view *, unroll_claim *, uint32_t claim_stride,
                         unroll_error *);

  /* ---- buffers: untyped bytes, undefined until written ---- */
  /* bytes may be 0. usage: 0 in this version. E_DEVICE_MEMORY: no room, or more than max_buffer. [any] */
  unroll_status (*buffer_create)(unroll_backend_device *, uint64_t bytes, uint64_t usage, unroll_backend_buffer **,
                                 unroll_error *);
  /* Work that uses it and is queued already is done first. NULL: nothing. [obj] */
  void (*buffer_destroy)(unroll_backend_buffer *);
  /* These four take their place in the queue. Without an event (NULL) write and read are complete when they return; with one
   * the host's memory must stand until the event. fill and copy touch no memory of the host: they need not wait for
   * anything. n may be 0. copy is within one device; the two ranges do not overlap. E_RANGE: outside of the buffer. E_DEVICE,
   * E_DEVICE_LOST; also the first deferred error of the queue. [obj] */
  unroll_status (*write)(unroll_backend_queue *, unroll_backend_buffer *, uint64_t offset, const void *, uint64_t n,
                         unroll_backend_event **, unroll_error *);
  unroll_status (*read)(unroll_backend_queue *, unroll_backend_buffer *, uint64_t offset, void *, uint64_t n,
                        unroll_backend_event **, unroll_error *);
  unroll_status (*fill)(unroll_backend_queue *, unroll_backend_buffer *, uint64_t offset, uint64_t n, uint8_t value,
                        unroll_backend_event **, unroll_error *);
  unroll_status (*copy)(unroll_backend_queue *, unroll_backend_buffer *to, uint64_t to_offset,
                        unroll_backend_buffer *from, uint64_t from_offset, uint64_t n, unroll_backend_event **,
                        unroll_error *);

  /* ---- queues: what is queued runs in that order ---- */
  /* flags: UNROLL_QUEUE_*; one that is not known is ignored. Several queues of a device may be used at once, each by one
   * thread at a time. E_DEVICE. [any] */
  unroll_status (*queue_create)(unroll_backend_device *, uint64_t flags, unroll_backend_queue **, unroll_error *);
  /* Waits for what is queued. NULL: nothing. [obj] */
  void (*queue_destroy)(unroll_backend_queue *);
  /* What is queued begins to run without a further call. [obj] */
  unroll_status (*queue_flush)(unroll_backend_queue *, unroll_error *);
  /* Waits until all is done and reports the first deferred error. E_DEVICE_LOST stays once it came. [obj] */
  unroll_status (*queue_sync)(unroll_backend_queue *, unroll_error *);

  /* ---- executables: one group compiled, immutable, run by any number of bindings ---- */
  /* The view is the group's own graph: only what was claimed together, in the order in which it was claimed. options: none in
   * this version, so one is E_INVALID or E_UNSUPPORTED. E_UNSUPPORTED, E_DEVICE, E_DEVICE_MEMORY: the host then tries another
   * device, or lowers a layer. [any] */
  unroll_status (*compile)(unroll_backend_device *, const unroll_graph_view *, const unroll_option *,
                           uint32_t n_options, unroll_backend_exec **, unroll_error *);
  /* Fills what *info has room for. workspace_alignment is a power of two, at most the device's alignment. [any] */
  unroll_status (*exec_info)(unroll_backend_exec *, unroll_exec_info *, unroll_error *);
  /* After its bindings. NULL: nothing. [obj] */
  void (*exec_destroy)(unroll_backend_exec *);

  /* ---- bindings: an executable tied to buffers; packed weights, kernel arguments, recorded commands live here ---- */
  /* The slots are read during the call; the buffers stay until the binding is destroyed. workspace: at least
   * workspace_bytes from workspace_offset on, NULL where none is asked for. E_INVALID, E_RANGE: a slot that is missing or too
   * small for the smallest sizes. E_DEVICE_MEMORY. [any] */
  unroll_status (*bind)(unroll_backend_exec *, const unroll_slot *slots, uint32_t n_slots, uint32_t slot_stride,
                        unroll_backend_buffer *workspace, uint64_t workspace_offset, unroll_backend_binding **,
                        unroll_error *);
  /* Work that is queued is done first. NULL: nothing. [obj] */
  void (*binding_destroy)(unroll_backend_binding *);
  /* Returns when the work is queued; an event is made only where one is asked for. Allocates nothing that it could have
   * allocated before. E_RANGE: a run-time size outside of its minimum and maximum, or
   * a time step that leaves its slot. E_DEVICE, E_DEVICE_LOST. [obj] */
  unroll_status (*run)(unroll_backend_binding *, unroll_backend_queue *, const unroll_run_args *,
                       unroll_backend_event **, unroll_error *);

  /* ---- optional ---- */
  /* A buffer over the caller's memory, which stands until buffer_destroy. E_INVALID: NULL or not aligned enough. [any] */
  unroll_status (*buffer_from_host)(unroll_backend_device *, void *, uint64_t bytes, uint64_t usage,
                                    unroll_backend_buffer **, unroll_error *);
  /* A range of a buffer as memory of the host, until unmap with the same address; no run may use it meanwhile. [obj] */
  unroll_status (*map)(unroll_backend_queue *, unroll_backend_buffer *, uint64_t offset, uint64_t n, uint64_t usage,
                       void **, unroll_error *);
  unroll_status (*unmap)(unroll_backend_queue *, unroll_backend_buffer *, void *, unroll_error *);
  /* What is queued from now on begins after the event, which may be of another queue of the device. [obj] */
  unroll_status (*queue_wait)(unroll_backend_queue *, unroll_backend_event *, unroll_error *);
  /* Waits in the calling thread. The error of what it stands for, if any. [any] */
  unroll_status (*event_wait)(unroll_backend_event *, unroll_error *);
  /* Who provides this and event_wait makes an event wherever one is asked for, who does not never makes one. It may be
   * destroyed without having been waited for. NULL: nothing. [obj] */
  void (*event_destroy)(unroll_backend_event *);
  /* The table of an extension, living as long as the backend; NULL where it is not known. [any] */
  const void *(*extension)(unroll_backend *, const char *id);
};

/*
 * ---- extensions of a backend ----
 * "unroll.profile/1": how long each node took. Runs on a queue that was made with UNROLL_QUEUE_PROFILE are timed, others are
 * not slowed down.
 */
#define UNROLL_PROFILE_ID "unroll.profile/1"
#define UNROLL_NO_NODE 0xFFFFFFFFu
typedef struct unroll_profile_span {
  uint32_t struct_size;
  uint32_t node; /* of the view that was compiled; UNROLL_NO_NODE: packing and the like, or a transfer */
  unroll_backend_binding *binding; /* whose run it was; NULL: a write, read, fill or copy */
  const char *label;               /* the kernel's or transfer's name; lives as long as the queue */
  int64_t t, count;          /* time steps of a template that it covers, from t on in the run's direction; else 0, 1 */
  uint64_t begin_ns, end_ns; /* of CLOCK_MONOTONIC, as near as the device's clock can be brought to it */
  uint64_t bytes;            /* of a transfer; else 0 */
} unroll_profile_span;
typedef struct unroll_profile {
  uint32_t struct_size, reserved;
  /* Waits for the queue, hands over each span since the last call in order of their beginnings, and forgets them. each is
   * called in this thread. E_STATE: the queue was made without UNROLL_QUEUE_PROFILE. E_DEVICE. [obj] */
  unroll_status (*spans)(unroll_backend_queue *, void (*each)(void *ctx, const unroll_profile_span *), void *ctx,
                         unroll_error *);
} unroll_profile;

/*
 * "unroll.conform/1": what the backend leaves to others on purpose, for `unroll conform`. Patterns as of fnmatch(3), without
 * flags, of the names of cases ('unroll conform --list' prints them), such as "cast *". A case that matches must not be
 * claimed, one that doesn't must be claimed and be right; a pattern that matches no case is an error too. No pattern is needed
 * for element types that unroll_device_info.dtypes lacks, nor for a case of several nodes (layer, scan, net, ..) where each op
 * that went elsewhere has a case of its own that matches.
 */
#define UNROLL_CONFORM_ID "unroll.conform/1"
typedef struct unroll_conform {
  uint32_t struct_size, n_unsupported;
  const char *const *unsupported;
} unroll_conform;

/* ---- what the shared object exports ---- */
#define UNROLL_PLUGIN_UNLOADABLE 1u /* dlclose is safe after the last close */
typedef struct unroll_plugin {
  uint32_t magic, struct_size;
  uint16_t abi_major, abi_minor;
  uint32_t flags;
  const char *id; /* "opencl"; a third party's "org.acme.npu". The same as in the note */
  const char *version, *vendor;
  /* How good the backend is here: `--device auto` takes the highest, the reference has 1. 0: of no use here, and open is not
   * called. Cheap, touches no device. [any] */
  int32_t (*score)(const unroll_host *);
  /* The host's struct lives until close. Pairs with close, and may be repeated after it; a host opens a plugin once at a time.
   * Options as of device_open. The table lives until close. E_ABI, E_DEVICE, E_UNSUPPORTED. [main] */
  unroll_status (*open)(const unroll_host *, const unroll_option *, uint32_t n_options, unroll_backend **,
                        const unroll_backend_ops **, unroll_error *);
  /* After all devices were closed. NULL: nothing. Frees everything even where it reports an error. [main] */
  unroll_status (*close)(unroll_backend *, unroll_error *);
} unroll_plugin;
#define UNROLL_PLUGIN_HEADER UNROLL_PLUGIN_MAGIC, sizeof(unroll_plugin), UNROLL_ABI_MAJOR, UNROLL_ABI_MINOR

/* The symbol that the host looks up. A backend that is linked statically defines unroll_plugin_v1_ID instead. */
#define UNROLL_PLUGIN_SYMBOL "unroll_plugin_v1"

/*
 * The ELF note, owner "unroll", type 1: the loader reads it from the file, so that a foreign, too new or unfit plugin is
 * rejected before dlopen runs any of its code.
 */
#define UNROLL_NOTE_SECTION ".note.unroll"
#define UNROLL_NOTE_OWNER "unroll"
#define UNROLL_NOTE_TYPE 1u
typedef struct unroll_plugin_note {
  uint32_t owner_size, desc_size, type; /* as ELF has them */
  char owner[8];
  uint32_t magic; /* the description starts here */
  uint16_t abi_major, abi_minor;
  char id[32];
} unroll_plugin_note;
#define UNROLL_PLUGIN_NOTE(id_)                                                                                   \
  __attribute__((section(UNROLL_NOTE_SECTION), used, aligned(4))) static const unroll_plugin_note unroll_note = { \
      sizeof(UNROLL_NOTE_OWNER), sizeof(uint32_t) + 2 * sizeof(uint16_t) + 32,                                    \
      UNROLL_NOTE_TYPE,          UNROLL_NOTE_OWNER,                                                               \
      UNROLL_PLUGIN_MAGIC,       UNROLL_ABI_MAJOR,                                                                \
      UNROLL_ABI_MINOR,          id_}
/* UNROLL_PLUGIN_EXPORT("org.acme.npu") = { UNROLL_PLUGIN_HEADER, 0, "org.acme.npu", "1.0", "Acme", score, open_, close_ }; */
#define UNROLL_PLUGIN_EXPORT(id_)                                                     \
  UNROLL_PLUGIN_NOTE(id_);                                                            \
  extern __attribute__((visibility("default"))) const unroll_plugin unroll_plugin_v1; \
  const unroll_plugin unroll_plugin_v1

#ifdef __cplusplus
}
#endif
#endif
