/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/nn.h: layers, losses, clipping and the first values of parameters, on top of graph.h.
 *
 *     const unroll_rnn_options opt = {.struct_size = sizeof opt, .cell = UNROLL_CELL_LSTM, .layers = 2, .hidden = 128};
 *     unroll_tensor e = unroll_embedding_layer(ids, "embed", V, 64);             ids i32 [T,B] -> [T,B,64]
 *     unroll_tensor y = unroll_rnn(e, "rnn", &opt, NULL, NULL);                  -> [T,B,128]
 *     unroll_tensor loss = unroll_cross_entropy(unroll_linear(y, "head", V, 1), targets, UNROLL_LOSS_MEAN);
 *     ... unroll_gradient, unroll_optimize, unroll_compile, unroll_binding_create ...
 *     for every parameter: unroll_init_default(&info, opt.cell, seed, data, &err), unroll_binding_write
 *
 * A layer makes its parameters, of x's dtype, named after its prefix: "rnn.W_h.0.1", "head.W". With a prefix of "" or
 * NULL the names begin at "W_h". Where the graph has a parameter of that name already, that one is used: two layers of
 * one prefix share their weights. Linear and embedding layers may stand in the body of a scan too.
 *
 * The building calls add nodes to the graph of their first operand, and on misuse that graph keeps the first error, as
 * in graph.h. [obj] The functions unroll_init_* fill memory of the caller's and know no graph. [any]
 */
#ifndef UNROLL_NN_H
#define UNROLL_NN_H
#include <unroll/checkpoint.h>
#ifdef __cplusplus
extern "C" {
#endif

/* ---- recurrent layers of a standard cell ---- */

typedef struct unroll_rnn_options {
  uint32_t struct_size;
  int32_t cell;          /* UNROLL_CELL_* */
  int32_t activation;    /* rnn: UNROLL_TANH (also where 0 stands), UNROLL_RELU or UNROLL_SIGMOID */
  int32_t layers;        /* at least 1 */
  int64_t hidden;        /* H, at least 1 */
  int32_t bidirectional; /* not 0: every layer runs both ways, D = 2 */
  int32_t reserved;
  double dropout;        /* 0 <= p < 1, of the outputs of every layer but the last, as PyTorch has it */
  unroll_tensor lengths; /* i32 [B], or none: every sequence has T steps */
  /*
   * NULL: all is kept for the gradient. Else the sequence is cut into segments by this policy, with the same bits
   * (checkpoint.h): of a stack in one direction each segment goes through all layers; a bidirectional one has a plan
   * for each layer and direction, of whose bytes each layer has its share. unroll_rnn_checkpoint_sizes says what the
   * plan is made for.
   */
  const unroll_checkpoint_policy *checkpoint;
} unroll_rnn_options;

/* States of all layers and directions, each [B,H]; that of layer l and direction d (1: reverse) stands at [l·D + d].
 * The arrays, of layers·D tensors, are the caller's. */
typedef struct unroll_rnn_state {
  unroll_tensor *h;
  unroll_tensor *c; /* lstm only */
} unroll_rnn_state;

/*
 * A stack of recurrent layers over a whole sequence; the cells' equations stand in plugin.h (LSTM_GATES, GRU_*, LAYER).
 *
 *   x        [T,B,I], real
 *   initial  NULL: zeros; likewise where h or c is NULL or one of their tensors is none. Only read.
 *   last     where not NULL, its arrays (each may be NULL) get the states after each sequence's own last step
 *   returns  y [T,B,D·H] of the last layer, forward first; 0 past a sequence's end
 *
 * Parameters of layer l and direction d (1: reverse), with G = 1 (rnn), 4 (lstm: i f g o) or 3 (gru, gru_after: r z n):
 *   PREFIX.W_x.l.d [GH,I], from layer 1 on [GH,D·H]   PREFIX.W_h.l.d [GH,H]   PREFIX.b.l.d [GH]
 *   PREFIX.b_n.l.d [H], gru_after only
 */
UNROLL_API unroll_tensor unroll_rnn(unroll_tensor x, const char *prefix, const unroll_rnn_options *options,
                                    const unroll_rnn_state *initial, unroll_rnn_state *last);

/*
 * What the plan of such a stack is made for, over x [T,B,I] of dtype: of a bidirectional one, that of any layer in
 * direction d (1: reverse), whose share of a budget of bytes is one of 2·layers; of one in one direction, that of all
 * layers (d 0). A step of a segment takes the standard saved values (plugin.h, LAYER), the gradient of one layer's
 * gates, and what is between layers. UNROLL_E_INVALID, UNROLL_E_RANGE: options or sizes that no stack has.
 */
UNROLL_API unroll_status unroll_rnn_checkpoint_sizes(const unroll_rnn_options *options, int32_t dtype, int64_t T,
                                                     int64_t B, int32_t d, unroll_checkpoint_sizes *sizes,
                                                     unroll_error *err);

/* ---- others ---- */

/* y = x·Wᵀ + b. x [..,I] -> [..,out_features]. PREFIX.W [out_features,I]; PREFIX.b [out_features] unless bias is 0. */
UNROLL_API unroll_tensor unroll_linear(unroll_tensor x, const char *prefix, int64_t out_features, int bias);
/* ids i32 [..] -> [..,E]. PREFIX.weight [V,E] of dtype (f32 or f64). */
UNROLL_API unroll_tensor unroll_embedding_layer(unroll_tensor ids, const char *prefix, int32_t dtype, int64_t V,
                                                int64_t E);

/* ---- losses ---- */
enum {
  UNROLL_LOSS_MEAN = 0,     /* [] */
  UNROLL_LOSS_SUM = 1,      /* [] */
  UNROLL_LOSS_NONE = 2,     /* one value for each row or element */
  UNROLL_LOSS_HALF_SUM = 3, /* [], half of the sum; unroll_mse only */
};

/*
 * -log softmax(logits)[target] in nats. logits [..,V], targets i32 [..]; a negative target is ignored. MEAN is over the
 * targets that are not ignored, and 0 when there is none; SUM over all rows; NONE gives [..], 0 where ignored.
 */
UNROLL_API unroll_tensor unroll_cross_entropy(unroll_tensor logits, unroll_tensor targets, int32_t reduction);
/* (y - target)², of one shape. MEAN over all elements; HALF_SUM: ½·Σ(y - target)². */
UNROLL_API unroll_tensor unroll_mse(unroll_tensor y, unroll_tensor target, int32_t reduction);

/* ---- clipping ---- */
/*
 * The factor [] that brings the norm of all gradients together under max_norm (> 0): min(1, max_norm/(norm + 1e-6)),
 * with norm = sqrt(Σ g²) over every element of the n tensors (Pascanu, Mikolov, Bengio 2013; PyTorch's form). For
 * unroll_optimize's grad_scale. norm, where not NULL, gets the norm [].
 */
UNROLL_API unroll_tensor unroll_clip_global_norm(const unroll_tensor *grads, uint32_t n, double max_norm,
                                                 unroll_tensor *norm);

/* ---- first values ---- */
/*
 * Fill data, dense and row-major, info->shape elements of info->dtype (f32 or f64, else UNROLL_E_DTYPE). info is what
 * unroll_tensor_describe gave, or filled by hand. Random numbers are those of philox.h, computed in double and then
 * rounded: a function of seed, info->name and the element's index alone, so that neither the order of the calls nor
 * other parameters matter. Their key has the name's 64-bit hash (FNV-1a, its zero included) as update and
 * UNROLL_INIT_SITE as site; element i is at t = i >> 32, row 0, unit = i mod 2^32.
 *   UNROLL_E_INVALID  something is NULL
 *   UNROLL_E_SHAPE    an extent below 1; no matrix where one is expected; its rows are no multiple of blocks
 *   UNROLL_E_RANGE    a number that is not finite; lo > hi; std < 0
 *   UNROLL_E_MEMORY
 */
#define UNROLL_INIT_SITE 0x696E6974u /* "init"; sites of a graph count from 0 */
UNROLL_API unroll_status unroll_init_constant(const unroll_tensor_info *info, double value, void *data,
                                              unroll_error *err);
/* U(lo, hi), lo <= hi */
UNROLL_API unroll_status unroll_init_uniform(const unroll_tensor_info *info, uint64_t seed, double lo, double hi,
                                             void *data, unroll_error *err);
/* N(mean, std²). N(0, 1/H) for a recurrent matrix has std = 1/sqrt(H). */
UNROLL_API unroll_status unroll_init_normal(const unroll_tensor_info *info, uint64_t seed, double mean, double std,
                                            void *data, unroll_error *err);
/*
 * U(-a, a) with a = sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010). A matrix [blocks·fan_out, fan_in]: row blocks,
 * as those of gates, count as matrices of their own.
 */
UNROLL_API unroll_status unroll_init_glorot(const unroll_tensor_info *info, uint64_t seed, int64_t blocks, void *data,
                                            unroll_error *err);
/*
 * λ·Q with Q random orthogonal, uniformly so (Saxe et al. 2014; the QR decomposition of a normal matrix by
 * Householder's reflections, in double, R's diagonal made positive: Mezzadri 2007). A matrix [blocks·R, C]; every block
 * [R,C] is a Q of its own, with orthonormal columns where R >= C, else orthonormal rows.
 */
UNROLL_API unroll_status unroll_init_orthogonal(const unroll_tensor_info *info, uint64_t seed, int64_t blocks,
                                                double lambda, void *data, unroll_error *err);
/* The bias [4H] of an LSTM (i f g o): 1 for the forget gate, else 0 (Jozefowicz, Zaremba, Sutskever 2015). */
UNROLL_API unroll_status unroll_init_lstm_bias(const unroll_tensor_info *info, void *data, unroll_error *err);
/*
 * What suits a parameter of the layers above, told by the end of its name (l and d are numbers) and the cell:
 *
 *   W_x.l.d      glorot, a block a gate
 *   W_h.l.d      orthogonal, a block a gate, λ = 1
 *   b.l.d        lstm: 1 for the forget gate; the others 0
 *   b_n.l.d      0
 *   weight       N(0, 1): embeddings; with W_x glorot, the layer above starts with sums of about that size too
 *   W            glorot
 *   other names  a matrix: glorot; anything else: 0
 *
 * cell: UNROLL_CELL_*, of the recurrent layers; UNROLL_CELL_NONE where there is none. UNROLL_E_SHAPE: the first axis is
 * no multiple of the cell's gates.
 */
UNROLL_API unroll_status unroll_init_default(const unroll_tensor_info *info, int32_t cell, uint64_t seed, void *data,
                                             unroll_error *err);

#ifdef __cplusplus
}
#endif
#endif
