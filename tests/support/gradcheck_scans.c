/* SPDX-License-Identifier: Apache-2.0 */
/* gradcheck_scans.c: recurrences with a body of the user's own. */
#include "gradcheck.h"
#include "graph/graph_private.h"
#include <unroll/seq2seq.h>

enum { T = 4, B = 3, I = 2, H = 3 };
static const int32_t lengths[B] = {4, 0, 2};

/* h' = tanh(h W_hᵀ + x W_x + b): the weights' gradients are products over all steps at once. */
static void elman(grad_build *b, int32_t direction, bool ragged, bool last_only) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(T, B, I)), h0 = grad_real(b, -1, 1, SHAPE(B, H)),
                      W_x = grad_real(b, -1, 1, SHAPE(I, H)), W_h = grad_real(b, -1, 1, SHAPE(H, H)),
                      bias = grad_real(b, -1, 1, SHAPE(H));
  unroll_scan *s = unroll_scan_begin(b->g, direction, ragged ? grad_integers(b, lengths, SHAPE(B)) : unroll_none());
  const unroll_tensor h = unroll_scan_carry(s, h0);
  const unroll_tensor in = unroll_matmul_add(unroll_scan_input(s, x), 0, W_x, 0, bias);
  const unroll_tensor next = unroll_tanh(unroll_matmul_add(h, 0, W_h, 1, in));
  unroll_scan_next(s, h, next);
  const unroll_tensor y = last_only ? unroll_none() : unroll_scan_output(s, next), last = unroll_scan_last(s, h);
  unroll_scan_end(s);
  if (!last_only)
    grad_result(b, y);
  grad_result(b, last);
}
static void forward(grad_build *b) { elman(b, UNROLL_FORWARD, false, false); }
static void reverse(grad_build *b) { elman(b, UNROLL_REVERSE, false, false); }
static void ragged(grad_build *b) { elman(b, UNROLL_FORWARD, true, false); }
static void ragged_reverse(grad_build *b) { elman(b, UNROLL_REVERSE, true, false); }
static void last_only(grad_build *b) { elman(b, UNROLL_FORWARD, true, true); }

/* All gates from one product, coupled: f forgets what i = 1 - f lets in; examples/coupled_lstm.c trains it. */
static void coupled_lstm(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(T, B, I)), W = grad_real(b, -1, 1, SHAPE(3 * H, I + H)),
                      bias = grad_real(b, -1, 1, SHAPE(3 * H)), h0 = grad_real(b, -1, 1, SHAPE(B, H)),
                      c0 = grad_real(b, -1, 1, SHAPE(B, H));
  unroll_scan *s = unroll_scan_begin(b->g, UNROLL_FORWARD, unroll_none());
  const unroll_tensor h = unroll_scan_carry(s, h0), c = unroll_scan_carry(s, c0);
  const unroll_tensor xh = unroll_concat((unroll_tensor[]){unroll_scan_input(s, x), h}, 2, 1);
  const unroll_tensor gates = unroll_matmul_add(xh, 0, W, 1, bias);
  const unroll_tensor f = unroll_sigmoid(unroll_slice(gates, 1, 0, H)), g = unroll_tanh(unroll_slice(gates, 1, H, H)),
                      o = unroll_sigmoid(unroll_slice(gates, 1, 2 * H, H));
  const unroll_tensor one = unroll_constant(unroll_scan_body(s), UNROLL_F64, SCALAR, 1.0);
  const unroll_tensor c_next = unroll_add(unroll_mul(f, c), unroll_mul(unroll_sub(one, f), g));
  const unroll_tensor h_next = unroll_mul(o, unroll_tanh(c_next));
  unroll_scan_next(s, c, c_next);
  unroll_scan_next(s, h, h_next);
  const unroll_tensor y = unroll_scan_output(s, h_next), last = unroll_scan_last(s, c);
  unroll_scan_end(s);
  grad_result(b, y);
  grad_result(b, last);
}

/* Captured rows in every elementwise op; a peephole is a row times a state. */
static void captured_rows(grad_build *b) {
  const unroll_tensor x = grad_real(b, 0.2, 1, SHAPE(T, B, H)), c0 = grad_real(b, 0.2, 1, SHAPE(B, H));
  const unroll_tensor p = grad_real(b, 0.5, 1, SHAPE(H)), q = grad_real(b, -1, 1, SHAPE(H)),
                      r = grad_real(b, 0.5, 2, SHAPE(H)), low = grad_real(b, 0.1, 1, SHAPE(H)),
                      high = grad_real(b, 0.3, 1, SHAPE(H));
  unroll_scan *s = unroll_scan_begin(b->g, UNROLL_FORWARD, grad_integers(b, lengths, SHAPE(B)));
  const unroll_tensor c = unroll_scan_carry(s, c0), x_t = unroll_scan_input(s, x);
  const unroll_tensor gate = unroll_sigmoid(unroll_add(unroll_mul(p, c), unroll_sub(x_t, q)));
  const unroll_tensor bounded = unroll_binary(unroll_binary(x_t, low, UNROLL_MAX), high, UNROLL_MIN);
  const unroll_tensor next = unroll_add(unroll_mul(gate, c), unroll_div(bounded, r));
  unroll_scan_next(s, c, next);
  const unroll_tensor y = unroll_scan_output(s, unroll_div(r, unroll_add(unroll_unary(next, UNROLL_SQUARE), r)));
  unroll_scan_end(s);
  grad_result(b, y);
}

/* What cannot wait until after the loop: captured tensors with the batch, of rank 2 with an axis of 1, a number, the left
 * side of a product, broadcast on both sides, an operand twice. Their gradients are summed in carries. */
static void captured_others(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(T, B, H)), h0 = grad_real(b, -1, 1, SHAPE(B, H)),
                      full = grad_real(b, -1, 1, SHAPE(B, H)), line = grad_real(b, -1, 1, SHAPE(1, H)),
                      one = grad_real(b, 0.5, 1, SCALAR), left = grad_real(b, -1, 1, SHAPE(B, B)),
                      row = grad_real(b, -1, 1, SHAPE(H)), column = grad_data(b, -1, 1, SHAPE(T, B, 1)),
                      c = grad_real(b, -1, 1, SHAPE(B, H));
  unroll_scan *s = unroll_scan_begin(b->g, UNROLL_FORWARD, unroll_none());
  const unroll_tensor h = unroll_scan_carry(s, h0), x_t = unroll_scan_input(s, x);
  const unroll_tensor mixed = unroll_matmul_add(left, 0, unroll_add(x_t, line), 0, c);
  const unroll_tensor outer = unroll_mul(unroll_scan_input(s, column), row);
  const unroll_tensor next = unroll_tanh(
      unroll_add(unroll_add(unroll_mul(full, h), unroll_mul(one, mixed)), unroll_add(outer, unroll_mul(full, full))));
  unroll_scan_next(s, h, next);
  const unroll_tensor y = unroll_scan_output(s, next), last = unroll_scan_last(s, h);
  unroll_scan_end(s);
  grad_result(b, y);
  grad_result(b, last);
}

/* One weight at two places of the body, in both orders of its axes, and outside as well. */
static void tied_weight(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(T, B, H)), h0 = grad_real(b, -1, 1, SHAPE(B, H)),
                      W = grad_real(b, -1, 1, SHAPE(H, H));
  unroll_scan *s = unroll_scan_begin(b->g, UNROLL_REVERSE, unroll_none());
  const unroll_tensor h = unroll_scan_carry(s, h0);
  const unroll_tensor square = unroll_matmul(W, W); /* of captured tensors alone */
  const unroll_tensor next = unroll_tanh(unroll_matmul_add(
      h, 0, W, 1, unroll_matmul_add(unroll_scan_input(s, x), 0, W, 0, unroll_matmul(unroll_tanh(h), square))));
  unroll_scan_next(s, h, next);
  const unroll_tensor y = unroll_scan_output(s, next);
  unroll_scan_end(s);
  grad_result(b, unroll_matmul(y, W));
}

static void embedding_in_body(grad_build *b) {
  static const int32_t ids[T * B] = {1, 0, 3, 3, 3, 2, 1, 1, 0, 4, 2, 2};
  const unroll_tensor table = grad_real(b, -1, 1, SHAPE(5, H)), h0 = grad_real(b, -1, 1, SHAPE(B, H));
  unroll_scan *s = unroll_scan_begin(b->g, UNROLL_FORWARD, grad_integers(b, lengths, SHAPE(B)));
  const unroll_tensor h = unroll_scan_carry(s, h0);
  const unroll_tensor e = unroll_embedding(table, unroll_scan_input(s, grad_integers(b, ids, SHAPE(T, B))));
  const unroll_tensor next = unroll_tanh(unroll_add(unroll_scale(h, 0.5), e));
  unroll_scan_next(s, h, next);
  const unroll_tensor y = unroll_scan_output(s, next);
  unroll_scan_end(s);
  grad_result(b, y);
}

/* A decoder that feeds on its own choice: the ids are a carry, through which no gradient flows. */
static void greedy_decoder(grad_build *b) {
  static const int32_t start[B] = {0, 1, 2};
  const unroll_tensor table = grad_real(b, -1, 1, SHAPE(5, H)), h0 = grad_real(b, -1, 1, SHAPE(B, H)),
                      W = grad_real(b, -1, 1, SHAPE(5, H));
  unroll_scan *s = unroll_scan_begin(b->g, UNROLL_FORWARD, unroll_none());
  unroll_scan_steps(s, T);
  const unroll_tensor h = unroll_scan_carry(s, h0), id = unroll_scan_carry(s, grad_integers(b, start, SHAPE(B)));
  const unroll_tensor next = unroll_tanh(unroll_add(unroll_embedding(table, id), unroll_scale(h, 0.7)));
  const unroll_tensor logits = unroll_matmul_add(next, 0, W, 1, unroll_none());
  unroll_scan_next(s, h, next);
  unroll_scan_next(s, id, unroll_argmax(logits));
  const unroll_tensor y = unroll_scan_output(s, logits);
  unroll_scan_end(s);
  grad_result(b, y);
}

/* Attention over a captured memory, batched products and a softmax in the body; a linear layer with parameters. */
static void attention(grad_build *b) {
  enum { S = 3 };
  const unroll_tensor memory = grad_real(b, -1, 1, SHAPE(B, S, H)), h0 = grad_real(b, -1, 1, SHAPE(B, H)),
                      x = grad_real(b, -1, 1, SHAPE(T, B, H));
  unroll_scan *s = unroll_scan_begin(b->g, UNROLL_FORWARD, unroll_none());
  const unroll_tensor h = unroll_scan_carry(s, h0);
  const unroll_tensor query = unroll_reshape(unroll_linear(h, "query", H, 1), SHAPE(B, 1, H));
  const unroll_tensor weights = unroll_softmax(unroll_matmul_add(query, 0, memory, 1, unroll_none()));
  const unroll_tensor context = unroll_reshape(unroll_matmul(weights, memory), SHAPE(B, H));
  const unroll_tensor next = unroll_tanh(unroll_add(context, unroll_scan_input(s, x)));
  unroll_scan_next(s, h, next);
  const unroll_tensor y = unroll_scan_output(s, next),
                      w = unroll_scan_output(s, unroll_transpose(weights, (int32_t[]){0, 2, 1}));
  unroll_scan_end(s);
  grad_adopt(b, "query.W", -1, 1);
  grad_adopt(b, "query.b", -1, 1);
  grad_result(b, y);
  grad_result(b, w);
}

/* Layer norm of a row each step, and of the cell state in the gates: gains and shifts captured, and summed after the loop. */
static void layer_norm_in_steps(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(T, B, 4 * H)), h0 = grad_real(b, -1, 1, SHAPE(B, H)),
                      c0 = grad_real(b, -1, 1, SHAPE(B, H)), W = grad_real(b, -1, 1, SHAPE(4 * H, H)),
                      gain = grad_real(b, 0.4, 1.3, SHAPE(4 * H)), gain_c = grad_real(b, 0.4, 1.3, SHAPE(H)),
                      shift_c = grad_real(b, -1, 1, SHAPE(H));
  const op_attr attr = {.layer_norm = {.epsilon = 0.05}};
  unroll_scan *s = unroll_scan_begin(b->g, UNROLL_REVERSE, unroll_none());
  const unroll_tensor h = unroll_scan_carry(s, h0), c = unroll_scan_carry(s, c0);
  const unroll_tensor product = unroll_matmul_add(h, 0, W, 1, unroll_none());
  const unroll_tensor a = unroll_layer_norm(product, gain, unroll_scan_input(s, x), 0.05);
  unroll_tensor out[3];
  graph_add_node(unroll_scan_body(s), UNROLL_OP_LSTM_GATES, &attr, (unroll_tensor[]){a, c, gain_c, shift_c}, 4, NULL,
                 out, 3);
  unroll_scan_next(s, h, out[0]);
  unroll_scan_next(s, c, out[1]);
  const unroll_tensor y = unroll_scan_output(s, out[0]),
                      z = unroll_scan_output(s, unroll_layer_norm(out[0], gain_c, shift_c, 0.05));
  const unroll_tensor last = unroll_scan_last(s, c);
  unroll_scan_end(s);
  grad_result(b, y);
  grad_result(b, z);
  grad_result(b, last);
}

/* Carries that swap, that stay, that get one value together; outputs: a carry, an input, one tensor twice, a capture. */
static void unusual_edges(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(T, B, H)), row = grad_real(b, -1, 1, SHAPE(B, H));
  unroll_scan *s = unroll_scan_begin(b->g, UNROLL_FORWARD, unroll_none());
  const unroll_tensor x_t = unroll_scan_input(s, x);
  const unroll_tensor a = unroll_scan_carry(s, grad_real(b, -1, 1, SHAPE(B, H))),
                      c = unroll_scan_carry(s, grad_real(b, -1, 1, SHAPE(B, H))),
                      still = unroll_scan_carry(s, grad_real(b, -1, 1, SHAPE(B, H))),
                      d = unroll_scan_carry(s, grad_real(b, -1, 1, SHAPE(B, H))),
                      e = unroll_scan_carry(s, grad_real(b, -1, 1, SHAPE(B, H)));
  const unroll_tensor both = unroll_tanh(unroll_add(unroll_mul(d, x_t), unroll_mul(e, still)));
  unroll_scan_next(s, a, c);
  unroll_scan_next(s, c, a);
  unroll_scan_next(s, still, still);
  unroll_scan_next(s, d, both);
  unroll_scan_next(s, e, both);
  const unroll_tensor y[6] = {unroll_scan_output(s, a),    unroll_scan_output(s, x_t), unroll_scan_output(s, both),
                              unroll_scan_output(s, both), unroll_scan_output(s, row), unroll_scan_output(s, still)};
  const unroll_tensor last[2] = {unroll_scan_last(s, c), unroll_scan_last(s, e)};
  unroll_scan_end(s);
  for (int i = 0; i < 6; i++)
    grad_result(b, y[i]);
  grad_result(b, unroll_mul(last[0], last[1]));
}

/* Numbers of each step's own, and values chosen by what a step has become. */
static void random_and_top_k_in_body(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(T, B, 4)), h0 = grad_real(b, -1, 1, SHAPE(B, 2));
  unroll_scan *s = unroll_scan_begin(b->g, UNROLL_FORWARD, unroll_none());
  const unroll_tensor x_t = unroll_scan_input(s, x), h = unroll_scan_carry(s, h0);
  const unroll_tensor noise = unroll_random(unroll_scan_body(s), UNROLL_RANDOM_NORMAL, UNROLL_F64, SHAPE(B, 4));
  unroll_tensor values, ids;
  unroll_top_k(unroll_mul(x_t, noise), 2, &values, &ids);
  const unroll_tensor next = unroll_tanh(unroll_add(unroll_mul(h, values), unroll_gather(x_t, ids)));
  unroll_scan_next(s, h, next);
  grad_result(b, unroll_scan_output(s, next));
  unroll_scan_end(s);
}

/* Two layers with input feeding, ragged on both sides, and dropout at all of its places. */
static void decoder_with_dropout(grad_build *b) {
  static const int32_t ids[T * B] = {1, 0, 3, 3, 4, 2, 1, 1, 0, 4, 2, 2}, source_lengths[B] = {2, 3, 0};
  unroll_tensor h[2];
  for (int l = 0; l < 2; l++)
    h[l] = grad_real(b, -1, 1, SHAPE(B, H));
  const unroll_decoder_options o = {.struct_size = sizeof o,
                                    .cell = UNROLL_CELL_GRU_AFTER,
                                    .layers = 2,
                                    .hidden = H,
                                    .vocabulary = 5,
                                    .embedding = I,
                                    .attention = UNROLL_ATTENTION_MULTIPLICATIVE,
                                    .context = UNROLL_CONTEXT_FEEDING,
                                    .dropout = 0.3,
                                    .source = grad_real(b, -1, 1, SHAPE(3, B, I)),
                                    .source_lengths = grad_integers(b, source_lengths, SHAPE(B)),
                                    .initial = {.h = h}};
  const unroll_decoder_feed f = {.struct_size = sizeof f,
                                 .inputs = grad_integers(b, ids, SHAPE(T, B)),
                                 .lengths = grad_integers(b, lengths, SHAPE(B))};
  const unroll_decoder_outputs out = unroll_decode("d", &o, &f);
  static const char *const names[] = {"d.embed.weight", "d.W_x.0.0",       "d.W_h.0.0", "d.b.0.0",
                                      "d.b_n.0.0",      "d.W_x.1.0",       "d.W_h.1.0", "d.W_f.0.0",
                                      "d.combine.W",    "d.attention.W_a", "d.out.W"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    grad_adopt(b, names[i], -1, 1);
  grad_result(b, out.logits);
  grad_result(b, out.weights);
  grad_result(b, out.h_last[1]);
}

/* Cells with what has weights or masks of its own, fed with the truth or with their own choices. */
static void decoder_with_options(grad_build *b, int32_t feed) {
  static const int32_t ids[T * B] = {1, 0, 3, 3, 4, 2, 1, 1, 0, 4, 2, 2}, source_lengths[B] = {2, 3, 0};
  unroll_tensor h = grad_real(b, -1, 1, SHAPE(B, 2)), c = grad_real(b, -1, 1, SHAPE(B, H));
  const unroll_rnn_options cells = {.struct_size = sizeof cells,
                                    .cell = UNROLL_CELL_LSTM,
                                    .layers = 1,
                                    .hidden = H,
                                    .projection = 2,
                                    .peepholes = 1,
                                    .layer_norm = 1,
                                    .layer_norm_epsilon = 0.05,
                                    .skip = 0.5,
                                    .zoneout_h = 0.3,
                                    .zoneout_c = 0.4,
                                    .input_dropout = 0.2,
                                    .weight_dropout = 0.2,
                                    .state_dropout = 0.3};
  const unroll_decoder_options o = {.struct_size = sizeof o,
                                    .vocabulary = 5,
                                    .embedding = I,
                                    .attention = UNROLL_ATTENTION_MULTIPLICATIVE,
                                    .context = UNROLL_CONTEXT_BEFORE,
                                    .source = grad_real(b, -1, 1, SHAPE(3, B, I)),
                                    .source_lengths = grad_integers(b, source_lengths, SHAPE(B)),
                                    .initial = {.h = &h, .c = &c},
                                    .rnn = &cells};
  const unroll_decoder_feed f = {.struct_size = sizeof f,
                                 .kind = feed,
                                 .inputs = grad_integers(b, ids, SHAPE(T, B)),
                                 .lengths = grad_integers(b, lengths, SHAPE(B)),
                                 .epsilon = grad_data(b, 0.4, 0.6, SCALAR)};
  const unroll_decoder_outputs out = unroll_decode("d", &o, &f);
  static const char *const names[] = {"d.embed.weight", "d.W_x.0.0", "d.W_h.0.0",  "d.b.0.0",    "d.W_r.0.0",
                                      "d.p_i.0.0",      "d.p_o.0.0", "d.ln_x.0.0", "d.ln_h.0.0", "d.ln_c.0.0",
                                      "d.ln_s.0.0",     "d.W_c.0.0", "d.out.W"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    grad_adopt(b, names[i], -1, 1);
  grad_result(b, out.logits);
  grad_result(b, out.h_last[0]);
  grad_result(b, out.c_last[0]);
}
static void decoder_of_options_taught(grad_build *b) { decoder_with_options(b, UNROLL_FEED_TEACHER); }
static void decoder_of_options_scheduled(grad_build *b) { decoder_with_options(b, UNROLL_FEED_SCHEDULED); }

static void dropout_in_body(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(T, B, H)), h0 = grad_real(b, -1, 1, SHAPE(B, H)),
                      W = grad_real(b, -1, 1, SHAPE(H, H));
  unroll_scan *s = unroll_scan_begin(b->g, UNROLL_REVERSE, grad_integers(b, lengths, SHAPE(B)));
  const unroll_tensor h = unroll_scan_carry(s, h0);
  const unroll_tensor next =
      unroll_tanh(unroll_add(unroll_matmul(unroll_dropout(h, 0.3), W), unroll_dropout(unroll_scan_input(s, x), 0.5)));
  unroll_scan_next(s, h, next);
  const unroll_tensor y = unroll_scan_output(s, next);
  unroll_scan_end(s);
  grad_result(b, y);
}

/* The gradient with respect to x and h0 is not asked for: to the weight alone, to one carry of two alone. */
static void some_gradients_unwanted(grad_build *b) {
  const unroll_tensor x = grad_data(b, -1, 1, SHAPE(T, B, H)), W = grad_real(b, -1, 1, SHAPE(H, H));
  unroll_scan *s = unroll_scan_begin(b->g, UNROLL_FORWARD, unroll_none());
  const unroll_tensor h = unroll_scan_carry(s, grad_data(b, -1, 1, SHAPE(B, H))),
                      k = unroll_scan_carry(s, grad_real(b, -1, 1, SHAPE(B, H))),
                      unseen = unroll_scan_carry(s, grad_data(b, -1, 1, SHAPE(B, H)));
  const unroll_tensor x_t = unroll_scan_input(s, x);
  const unroll_tensor next = unroll_tanh(unroll_add(unroll_matmul(h, W), x_t));
  unroll_scan_next(s, h, next);
  unroll_scan_next(s, k, unroll_mul(k, unroll_sigmoid(x_t)));
  unroll_scan_next(s, unseen, unroll_add(unseen, next));
  const unroll_tensor y = unroll_scan_output(s, next), last = unroll_scan_last(s, k);
  unroll_scan_end(s);
  grad_result(b, y);
  grad_result(b, last);
}

/* The second scan starts from the first one's end, reads its outputs and captures its state. */
static void two_scans(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(T, B, H)), h0 = grad_real(b, -1, 1, SHAPE(B, H)),
                      W = grad_real(b, -1, 1, SHAPE(H, H));
  unroll_tensor y = x, last = h0;
  for (int i = 0; i < 2; i++) {
    const unroll_tensor captured = last;
    unroll_scan *s = unroll_scan_begin(b->g, i ? UNROLL_REVERSE : UNROLL_FORWARD, unroll_none());
    const unroll_tensor h = unroll_scan_carry(s, last);
    const unroll_tensor next =
        unroll_tanh(unroll_add(unroll_matmul(h, W), unroll_mul(captured, unroll_scan_input(s, y))));
    unroll_scan_next(s, h, next);
    y = unroll_scan_output(s, next);
    last = unroll_scan_last(s, h);
    unroll_scan_end(s);
  }
  grad_result(b, y);
  grad_result(b, last);
}

/* Most ops of a step, in a step. */
static void many_ops(grad_build *b) {
  static const int32_t targets[T * B] = {0, 1, -1, 2, 2, 0, 1, 0, -1, 2, 1, 0};
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(T, B, 2, H)), h0 = grad_real(b, -1, 1, SHAPE(B, H));
  unroll_scan *s = unroll_scan_begin(b->g, UNROLL_FORWARD, unroll_none());
  const unroll_tensor h = unroll_scan_carry(s, h0), x_t = unroll_scan_input(s, x);
  const unroll_tensor sum = unroll_reduce(x_t, UNROLL_SUM, 1u << 1, 0),
                      most = unroll_reduce(x_t, UNROLL_REDUCE_MAX, 1u << 1, 0),
                      square = unroll_reduce(x_t, UNROLL_SUM_SQUARES, 1u << 1, 0);
  const unroll_tensor chosen = unroll_select(unroll_binary(sum, h, UNROLL_GT), unroll_mul(most, h), square);
  const unroll_tensor turned = unroll_transpose(unroll_reshape(x_t, SHAPE(B, H, 2)), (int32_t[]){0, 2, 1});
  const unroll_tensor part = unroll_reshape(unroll_slice(turned, 1, 1, 1), SHAPE(B, H));
  const unroll_tensor wide = unroll_pad(unroll_slice(h, 1, 1, H - 1), 1, 0, 1);
  const unroll_tensor next =
      unroll_tanh(unroll_add(unroll_add(chosen, part), unroll_add(unroll_log_softmax(wide), wide)));
  unroll_scan_next(s, h, next);
  const unroll_tensor loss = unroll_scan_output(
      s, unroll_cross_entropy_rows(next, unroll_scan_input(s, grad_integers(b, targets, SHAPE(T, B)))));
  unroll_scan_end(s);
  grad_result(b, loss);
}

/* A length that the run tells; the results are summed here, since their weights must have that length too. */
static void run_time_steps(grad_build *b) {
  b->run_time = 3;
  const int64_t steps = unroll_graph_dim(b->g, "T", 1, 6);
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(steps, B, H)), w = grad_data(b, -1, 1, SHAPE(steps, B, H)),
                      h0 = grad_real(b, -1, 1, SHAPE(B, H)), W = grad_real(b, -1, 1, SHAPE(H, H)),
                      full = grad_real(b, -1, 1, SHAPE(B, H)), row = grad_real(b, -1, 1, SHAPE(H));
  unroll_scan *s = unroll_scan_begin(b->g, UNROLL_REVERSE, unroll_none());
  const unroll_tensor h = unroll_scan_carry(s, h0);
  const unroll_tensor next =
      unroll_tanh(unroll_add(unroll_matmul_add(h, 0, W, 1, row), unroll_mul(full, unroll_scan_input(s, x))));
  unroll_scan_next(s, h, next);
  const unroll_tensor y = unroll_scan_output(s, unroll_mul(next, row)), last = unroll_scan_last(s, h);
  unroll_scan_end(s);
  grad_result(b, unroll_reduce(unroll_mul(y, w), UNROLL_SUM, 0, 0));
  grad_result(b, last);
}

#define CASE(name) \
  { #name, name }
/* What is added to every step's state, of both directions; past a sequence's end it has no effect. */
static void tapped(grad_build *b, unroll_rnn_options o, bool c) {
  const int64_t P = o.projection ? o.projection : H;
  unroll_tensor h_taps[2], c_taps[2], h_last[2], c_last[2];
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(T, B, I));
  for (int d = 0; d < (o.bidirectional ? 2 : 1); d++) {
    h_taps[d] = grad_real(b, -1, 1, SHAPE(T, B, P));
    c_taps[d] = c ? grad_real(b, -1, 1, SHAPE(T, B, H)) : unroll_none();
  }
  const unroll_rnn_state taps = {h_taps, c ? c_taps : NULL};
  unroll_rnn_state last = {h_last, c ? c_last : NULL};
  o.struct_size = sizeof o;
  o.layers = 1;
  o.hidden = H;
  o.lengths = grad_integers(b, lengths, SHAPE(B));
  o.taps = &taps;
  grad_result(b, unroll_rnn(x, "", &o, NULL, &last));
  for (int d = 0; d < (o.bidirectional ? 2 : 1); d++) {
    grad_result(b, h_last[d]);
    if (c)
      grad_result(b, c_last[d]);
  }
  for (uint32_t i = 0; i < unroll_graph_count(b->g); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(b->g, i));
    if (info.role == UNROLL_ROLE_PARAM)
      grad_adopt(b, info.name, -1, 1);
  }
}
static void taps_lstm(grad_build *b) {
  tapped(b, (unroll_rnn_options){.cell = UNROLL_CELL_LSTM, .bidirectional = 1}, true);
}
static void taps_projected_zoneout(grad_build *b) {
  tapped(b,
         (unroll_rnn_options){.cell = UNROLL_CELL_LSTM,
                              .bidirectional = 1,
                              .projection = 2,
                              .zoneout_h = 0.3,
                              .zoneout_c = 0.2,
                              .inference = 1},
         true);
}
static void taps_layer_norm(grad_build *b) {
  tapped(b, (unroll_rnn_options){.cell = UNROLL_CELL_LSTM, .layer_norm = 1}, true);
}
static void taps_gru(grad_build *b) {
  tapped(b, (unroll_rnn_options){.cell = UNROLL_CELL_GRU, .bidirectional = 1}, false);
}
static void taps_gru_after(grad_build *b) {
  tapped(b, (unroll_rnn_options){.cell = UNROLL_CELL_GRU_AFTER, .bidirectional = 1}, false);
}
static void taps_min_gru(grad_build *b) {
  tapped(b, (unroll_rnn_options){.cell = UNROLL_RNN_MIN_GRU, .bidirectional = 1}, false);
}

/* A loss of the gates of every step, of y beside them or of nothing else. */
static void gated(grad_build *b, unroll_rnn_options o, bool alone) {
  unroll_tensor gates[2];
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(T, B, I));
  o.struct_size = sizeof o;
  o.layers = 1;
  o.hidden = H;
  o.lengths = grad_integers(b, lengths, SHAPE(B));
  o.gates = gates;
  const unroll_tensor y = unroll_rnn(x, "", &o, NULL, NULL);
  if (!alone)
    grad_result(b, y);
  for (int d = 0; d < (o.bidirectional ? 2 : 1); d++)
    grad_result(b, gates[d]);
  for (uint32_t i = 0; i < unroll_graph_count(b->g); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(b->g, i));
    if (info.role == UNROLL_ROLE_PARAM)
      grad_adopt(b, info.name, -1, 1);
  }
}
static void loss_of_gates_lstm(grad_build *b) {
  gated(b, (unroll_rnn_options){.cell = UNROLL_CELL_LSTM, .bidirectional = 1}, false);
}
static void loss_of_gates_lstm_alone(grad_build *b) { gated(b, (unroll_rnn_options){.cell = UNROLL_CELL_LSTM}, true); }
static void loss_of_gates_layer_norm(grad_build *b) {
  gated(b, (unroll_rnn_options){.cell = UNROLL_CELL_LSTM, .layer_norm = 1}, false);
}
static void loss_of_gates_gru(grad_build *b) { gated(b, (unroll_rnn_options){.cell = UNROLL_CELL_GRU}, false); }
static void loss_of_gates_gru_alone(grad_build *b) { gated(b, (unroll_rnn_options){.cell = UNROLL_CELL_GRU}, true); }
static void loss_of_gates_gru_after(grad_build *b) {
  gated(b, (unroll_rnn_options){.cell = UNROLL_CELL_GRU_AFTER}, false);
}
static void loss_of_gates_gru_after_alone(grad_build *b) {
  gated(b, (unroll_rnn_options){.cell = UNROLL_CELL_GRU_AFTER, .bidirectional = 1}, true);
}

const grad_case grad_scan_cases[] = {CASE(forward),
                                     CASE(loss_of_gates_lstm),
                                     CASE(loss_of_gates_lstm_alone),
                                     CASE(loss_of_gates_layer_norm),
                                     CASE(loss_of_gates_gru),
                                     CASE(loss_of_gates_gru_alone),
                                     CASE(loss_of_gates_gru_after),
                                     CASE(loss_of_gates_gru_after_alone),
                                     CASE(taps_lstm),
                                     CASE(taps_projected_zoneout),
                                     CASE(taps_layer_norm),
                                     CASE(taps_gru),
                                     CASE(taps_gru_after),
                                     CASE(taps_min_gru),
                                     CASE(reverse),
                                     CASE(ragged),
                                     CASE(ragged_reverse),
                                     CASE(last_only),
                                     CASE(coupled_lstm),
                                     CASE(captured_rows),
                                     CASE(captured_others),
                                     CASE(tied_weight),
                                     CASE(embedding_in_body),
                                     CASE(greedy_decoder),
                                     CASE(decoder_of_options_taught),
                                     CASE(decoder_of_options_scheduled),
                                     CASE(attention),
                                     CASE(layer_norm_in_steps),
                                     CASE(unusual_edges),
                                     CASE(random_and_top_k_in_body),
                                     CASE(dropout_in_body),
                                     CASE(decoder_with_dropout),
                                     CASE(some_gradients_unwanted),
                                     CASE(two_scans),
                                     CASE(many_ops),
                                     CASE(run_time_steps),
                                     {NULL, NULL}};
