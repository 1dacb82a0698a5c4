/* SPDX-License-Identifier: Apache-2.0 */
/* gradcheck_ops.c: the ops by themselves, layers and losses. */
#include "gradcheck.h"
#include <stdio.h>

#define UNARY(name, kind, lo, hi) \
  static void name(grad_build *b) { grad_result(b, unroll_unary(grad_real(b, lo, hi, SHAPE(3, 4)), kind)); }
UNARY(unary_copy, UNROLL_COPY, -1, 1)
UNARY(unary_neg, UNROLL_NEG, -1, 1)
UNARY(unary_abs, UNROLL_ABS, -1, 1)
UNARY(unary_exp, UNROLL_EXP, -1, 1)
UNARY(unary_log, UNROLL_LOG, 0.2, 2)
UNARY(unary_expm1, UNROLL_EXPM1, -1, 1)
UNARY(unary_log1p, UNROLL_LOG1P, -0.6, 2)
UNARY(unary_sqrt, UNROLL_SQRT, 0.2, 2)
UNARY(unary_reciprocal, UNROLL_RECIPROCAL, 0.3, 2)
UNARY(unary_square, UNROLL_SQUARE, -1, 1)
UNARY(unary_tanh, UNROLL_TANH, -1, 1)
UNARY(unary_sigmoid, UNROLL_SIGMOID, -2, 2)
UNARY(unary_relu, UNROLL_RELU, -1, 1)

static void unary_sign(grad_build *b) { /* flat by itself */
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(3, 4));
  grad_result(b, unroll_mul(unroll_unary(x, UNROLL_SIGN), x));
  grad_result(b, unroll_unary(x, UNROLL_SIGN));
}

/* Of one shape, broadcast along the first axis, both ways, with a scalar; positive values serve div as well. */
static void binary(grad_build *b, int32_t kind) {
  const unroll_tensor x = grad_real(b, 0.4, 2, SHAPE(2, 3, 4)), same = grad_real(b, 0.4, 2, SHAPE(2, 3, 4)),
                      row = grad_real(b, 0.4, 2, SHAPE(3, 4)), column = grad_real(b, 0.4, 2, SHAPE(2, 3, 1)),
                      line = grad_real(b, 0.4, 2, SHAPE(1, 4)), one = grad_real(b, 0.4, 2, SCALAR);
  grad_result(b, unroll_binary(x, same, kind));
  grad_result(b, unroll_binary(x, row, kind));
  grad_result(b, unroll_binary(column, line, kind));
  grad_result(b, unroll_binary(one, x, kind));
  grad_result(b, unroll_binary(row, one, kind));
}
#define BINARY(name, kind) \
  static void name(grad_build *b) { binary(b, kind); }
BINARY(binary_add, UNROLL_ADD)
BINARY(binary_sub, UNROLL_SUB)
BINARY(binary_mul, UNROLL_MUL)
BINARY(binary_div, UNROLL_DIV)
BINARY(binary_max, UNROLL_MAX)
BINARY(binary_min, UNROLL_MIN)

static void binary_same_operand(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(3, 4));
  grad_result(b, unroll_mul(x, x));
  grad_result(b, unroll_sub(unroll_add(x, x), unroll_scale(x, 0.5)));
}

static void select(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(2, 3, 4)), y = grad_real(b, -1, 1, SHAPE(3, 1)),
                      z = grad_real(b, -1, 1, SHAPE(2, 3, 4));
  grad_result(b, unroll_select(unroll_binary(x, z, UNROLL_GT), x, y));
  grad_result(b, unroll_select(unroll_binary(x, y, UNROLL_LE), unroll_mul(x, z), z));
  grad_result(b, unroll_select(unroll_unary(unroll_binary(z, x, UNROLL_LT), UNROLL_LOGICAL_NOT), y, z));
  const unroll_tensor never = unroll_binary(x, z, UNROLL_EQ), always = unroll_binary(x, z, UNROLL_NE);
  grad_result(b, unroll_select(never, y, unroll_select(always, z, x)));
  grad_result(b, unroll_mul(unroll_cast(unroll_binary(x, z, UNROLL_GE), UNROLL_F64), x));
}

static void reduce(grad_build *b, int32_t kind) {
  const unroll_tensor x = grad_real(b, -1, 1.3, SHAPE(2, 3, 4));
  grad_result(b, unroll_reduce(x, kind, 1u << 1, 0));
  grad_result(b, unroll_reduce(x, kind, 1u << 0 | 1u << 2, 1));
  grad_result(b, unroll_reduce(x, kind, 0, 0));
}
#define REDUCE(name, kind) \
  static void name(grad_build *b) { reduce(b, kind); }
REDUCE(reduce_sum, UNROLL_SUM)
REDUCE(reduce_sum_squares, UNROLL_SUM_SQUARES)
REDUCE(reduce_max, UNROLL_REDUCE_MAX)
REDUCE(reduce_min, UNROLL_REDUCE_MIN)

static void softmax(grad_build *b) { grad_result(b, unroll_softmax(grad_real(b, -1, 1, SHAPE(2, 3, 5)))); }
static void log_softmax(grad_build *b) { grad_result(b, unroll_log_softmax(grad_real(b, -1, 1, SHAPE(2, 3, 5)))); }

static const int32_t targets[6] = {0, 4, -1, 2, 2, -7};
static void cross_entropy(grad_build *b) {
  const unroll_tensor ids = grad_integers(b, targets, SHAPE(2, 3)), x = grad_real(b, -1, 1, SHAPE(2, 3, 5));
  grad_result(b, unroll_cross_entropy_rows(x, ids));
  grad_result(b, unroll_cross_entropy(x, ids, UNROLL_LOSS_MEAN));
}
static void mse(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(2, 5)), y = grad_real(b, -1, 1, SHAPE(2, 5));
  grad_result(b, unroll_mse(x, y, UNROLL_LOSS_MEAN));
  grad_result(b, unroll_mse(x, y, UNROLL_LOSS_HALF_SUM));
}
static void clip(grad_build *b) {
  const unroll_tensor x[2] = {grad_real(b, -1, 1, SHAPE(2, 5)), grad_real(b, -1, 1, SHAPE(3))};
  grad_result(b, unroll_clip_global_norm(x, 2, 0.7, NULL));
}

static void embedding(grad_build *b) {
  static const int32_t ids[6] = {3, 0, 3, 2, 0, 3};
  const unroll_tensor table = grad_real(b, -1, 1, SHAPE(4, 5));
  grad_result(b, unroll_embedding(table, grad_integers(b, ids, SHAPE(2, 3))));
}
static const int32_t lengths[3] = {4, 0, 2};

/* An id that comes twice has both; the ids of the largest stay what they are as long as nothing is as near as δ. */
static void gather(grad_build *b) {
  static const int32_t ids[6] = {3, 0, 3, 2, 1, 1};
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(2, 4));
  grad_result(b, unroll_gather(unroll_tanh(x), grad_integers(b, ids, SHAPE(2, 3))));
}
static void top_k(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(2, 3, 5));
  unroll_tensor values, ids;
  unroll_top_k(unroll_tanh(x), 3, &values, &ids);
  grad_result(b, values);
  grad_result(b, unroll_gather(unroll_unary(x, UNROLL_SQUARE), ids));
}
/* Of rows and of a single one; a shift that is a row, of x's shape, or none; one tensor that is gain and shift. */
static void layer_norm(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1.5, SHAPE(2, 3, 5)), gain = grad_real(b, 0.3, 1.2, SHAPE(5)),
                      shift = grad_real(b, -1, 1, SHAPE(5)), full = grad_real(b, -1, 1, SHAPE(2, 3, 5)),
                      one = grad_real(b, -1, 1.5, SHAPE(5));
  grad_result(b, unroll_layer_norm(unroll_tanh(x), gain, shift, 0.01));
  grad_result(b, unroll_layer_norm(x, unroll_tanh(gain), full, 0.1));
  grad_result(b, unroll_layer_norm(x, shift, unroll_none(), 0.1));
  grad_result(b, unroll_layer_norm(full, gain, gain, 0.1));
  grad_result(b, unroll_layer_norm(one, gain, shift, 0.01));
}
/* Through every step, through the last state, from the first one, of each sequence's own length; and without h0. */
static void linear_scan(grad_build *b, int32_t direction, bool is_ragged) {
  const unroll_tensor a = grad_real(b, -0.9, 1.2, SHAPE(4, 3, 2)), x = grad_real(b, -1, 1.3, SHAPE(4, 3, 2)),
                      h0 = grad_real(b, -1, 1, SHAPE(3, 2)),
                      n = is_ragged ? grad_integers(b, lengths, SHAPE(3)) : unroll_none();
  unroll_tensor last;
  grad_result(b, unroll_tanh(unroll_linear_scan(unroll_tanh(a), x, h0, n, direction, &last)));
  grad_result(b, last);
  grad_result(b, unroll_linear_scan(a, unroll_mul(a, x), unroll_none(), n, direction, NULL));
  unroll_linear_scan(x, a, h0, n, direction, &last);
  grad_result(b, last);
}
static void linear_scan_forward(grad_build *b) { linear_scan(b, UNROLL_FORWARD, false); }
static void linear_scan_reverse(grad_build *b) { linear_scan(b, UNROLL_REVERSE, false); }
static void linear_scan_ragged(grad_build *b) { linear_scan(b, UNROLL_FORWARD, true); }
static void linear_scan_ragged_reverse(grad_build *b) { linear_scan(b, UNROLL_REVERSE, true); }
static void random_numbers(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(3, 2, 4));
  grad_result(b, unroll_mul(x, unroll_random(b->g, UNROLL_RANDOM_NORMAL, UNROLL_F64, SHAPE(3, 2, 4))));
  grad_result(b, unroll_mul(x, unroll_random_step(b->g, UNROLL_RANDOM_UNIFORM, UNROLL_F64, SHAPE(2, 4))));
}
static void no_gradient_through_ids(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(3, 4)), table = grad_real(b, -1, 1, SHAPE(4, 2));
  grad_result(b, unroll_embedding(table, unroll_argmax(x)));
  grad_result(b, unroll_embedding(table, unroll_categorical(x, 2)));
  grad_result(b, unroll_mul(x, unroll_constant(b->g, UNROLL_F64, SHAPE(4), 0.75)));
}

static void slice_and_pad(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(4, 3, 5));
  grad_result(b, unroll_slice(x, 0, 1, 2));
  grad_result(b, unroll_slice(x, 1, 2, 1));
  grad_result(b, unroll_slice(x, 2, 0, 3));
  grad_result(b, unroll_tanh(unroll_pad(x, 0, 1, 0)));
  grad_result(b, unroll_pad(unroll_pad(x, 1, 2, 1), 2, 0, 2));
}
static void concat(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(2, 3, 4)), y = grad_real(b, -1, 1, SHAPE(2, 1, 4));
  grad_result(b, unroll_concat((unroll_tensor[]){x, y, x}, 3, 1));
  grad_result(b, unroll_concat((unroll_tensor[]){x, unroll_tanh(x)}, 2, 0));
  grad_result(b, unroll_concat((unroll_tensor[]){y, y}, 2, 2));
}
static void transpose_and_reshape(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(2, 3, 4));
  grad_result(b, unroll_transpose(x, (int32_t[]){2, 0, 1}));
  grad_result(b, unroll_transpose(unroll_reshape(x, SHAPE(4, 6)), (int32_t[]){1, 0}));
  grad_result(b, unroll_tanh(unroll_reshape(x, SHAPE(24))));
}
static void reverse_and_length_mask(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(4, 3, 2)), n = grad_integers(b, lengths, SHAPE(3));
  grad_result(b, unroll_reverse(x, n));
  grad_result(b, unroll_length_mask(unroll_tanh(x), n));
}
static void cast(grad_build *b) {
  grad_result(b, unroll_tanh(unroll_cast(grad_real(b, -1, 1, SHAPE(3, 4)), UNROLL_F64)));
}
static void dropout(grad_build *b) {
  grad_result(b, unroll_dropout(unroll_tanh(grad_real(b, -1, 1, SHAPE(4, 3, 5))), 0.4));
}

static void matmul(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(3, 4)), y = grad_real(b, -1, 1, SHAPE(4, 5)),
                      xt = grad_real(b, -1, 1, SHAPE(4, 3)), yt = grad_real(b, -1, 1, SHAPE(5, 4)),
                      row = grad_real(b, -1, 1, SHAPE(5)), full = grad_real(b, -1, 1, SHAPE(3, 5));
  grad_result(b, unroll_matmul(x, y));
  grad_result(b, unroll_matmul_add(x, 0, yt, 1, row));
  grad_result(b, unroll_matmul_add(xt, 1, y, 0, full));
  grad_result(b, unroll_matmul_add(xt, 1, yt, 1, unroll_none()));
  grad_result(b, unroll_matmul_add(x, 0, x, 1, unroll_none()));
}
static void matmul_of_sequences(grad_build *b) {
  const unroll_tensor x = grad_real(b, -1, 1, SHAPE(2, 3, 4)), W = grad_real(b, -1, 1, SHAPE(5, 4));
  grad_result(b, unroll_matmul_add(x, 0, W, 1, grad_real(b, -1, 1, SHAPE(5))));
  grad_result(b, unroll_matmul_add(x, 0, W, 1, grad_real(b, -1, 1, SHAPE(2, 3, 5))));
}
static void matmul_batched(grad_build *b) {
  for (int ta = 0; ta < 2; ta++)
    for (int tb = 0; tb < 2; tb++) {
      const unroll_tensor x = ta ? grad_real(b, -1, 1, SHAPE(2, 4, 3)) : grad_real(b, -1, 1, SHAPE(2, 3, 4)),
                          y = tb ? grad_real(b, -1, 1, SHAPE(2, 5, 4)) : grad_real(b, -1, 1, SHAPE(2, 4, 5));
      const unroll_tensor c = ta ? grad_real(b, -1, 1, SHAPE(5)) : grad_real(b, -1, 1, SHAPE(2, 3, 5));
      grad_result(b, unroll_matmul_add(x, ta, y, tb, tb ? c : unroll_none()));
      if (!tb)
        grad_result(b, unroll_tanh(c));
    }
}

enum { NO_MASKS, BOOLS, REALS };

/* A standard cell, with everything that it can have. */
static void layer_with(grad_build *b, int32_t cell, int32_t activation, int32_t direction, bool ragged, int masks) {
  enum { T = 4, B = 3, I = 2, H = 3 };
  const bool lstm = cell == UNROLL_CELL_LSTM;
  const int64_t G = cell == UNROLL_CELL_RNN ? 1 : cell == UNROLL_CELL_LSTM ? 4 : 3;
  unroll_layer_inputs in = {.x = grad_real(b, -1, 1, SHAPE(T, B, I)),
                            .W_x = grad_real(b, -1, 1.1, SHAPE(G * H, I)),
                            .W_h = grad_real(b, -1, 1.1, SHAPE(G * H, H)),
                            .b = grad_real(b, -1, 1.1, SHAPE(G * H)),
                            .b_n = cell == UNROLL_CELL_GRU_AFTER ? grad_real(b, -1, 1, SHAPE(H)) : unroll_none(),
                            .h0 = grad_real(b, -1, 1, SHAPE(B, H)),
                            .c0 = lstm ? grad_real(b, -1, 1, SHAPE(B, H)) : unroll_none(),
                            .lengths = ragged ? grad_integers(b, lengths, SHAPE(B)) : unroll_none()};
  if (masks) {
    const unroll_tensor third = unroll_constant(b->g, UNROLL_F64, 0, NULL, 0.3);
    const unroll_tensor keep_h = grad_data(b, 0, 1, SHAPE(T, B, H));
    const unroll_tensor keep_c = lstm ? grad_data(b, 0, 1, SHAPE(B, H)) : unroll_none();
    in.h_mask = grad_data(b, -0.5, 2, SHAPE(B, H));
    in.keep_h = masks == BOOLS ? unroll_binary(keep_h, third, UNROLL_LT) : keep_h;
    in.keep_c = lstm && masks == BOOLS ? unroll_binary(keep_c, third, UNROLL_LT) : keep_c;
  }
  const unroll_layer_attr attr = {.cell = cell, .direction = direction, .activation = activation};
  const unroll_layer_outputs out = unroll_layer(&in, &attr, 0);
  grad_result(b, out.y);
  grad_result(b, out.h_last);
  if (out.c_last.graph)
    grad_result(b, out.c_last);
}
static void layer(grad_build *b, int32_t cell, int32_t activation, int32_t direction, bool ragged) {
  layer_with(b, cell, activation, direction, ragged, NO_MASKS);
}
#define MASKED(name, cell, activation)                                                                       \
  static void name##_masked(grad_build *b) { layer_with(b, cell, activation, UNROLL_FORWARD, true, BOOLS); } \
  static void name##_masked_reverse(grad_build *b) { layer_with(b, cell, activation, UNROLL_REVERSE, false, REALS); }
MASKED(layer_tanh, UNROLL_CELL_RNN, UNROLL_TANH)
MASKED(layer_lstm, UNROLL_CELL_LSTM, UNROLL_TANH)
MASKED(layer_gru, UNROLL_CELL_GRU, UNROLL_TANH)
MASKED(layer_gru_after, UNROLL_CELL_GRU_AFTER, UNROLL_TANH)
#define LAYER(name, cell, activation)                                                            \
  static void name(grad_build *b) { layer(b, cell, activation, UNROLL_FORWARD, false); }         \
  static void name##_ragged(grad_build *b) { layer(b, cell, activation, UNROLL_FORWARD, true); } \
  static void name##_reverse(grad_build *b) { layer(b, cell, activation, UNROLL_REVERSE, true); }
LAYER(layer_tanh, UNROLL_CELL_RNN, UNROLL_TANH)
LAYER(layer_relu, UNROLL_CELL_RNN, UNROLL_RELU)
LAYER(layer_sigmoid, UNROLL_CELL_RNN, UNROLL_SIGMOID)
LAYER(layer_lstm, UNROLL_CELL_LSTM, UNROLL_TANH)
LAYER(layer_gru, UNROLL_CELL_GRU, UNROLL_TANH)
LAYER(layer_gru_after, UNROLL_CELL_GRU_AFTER, UNROLL_TANH)

/* Of some results and to some inputs alone. */
static void layer_cell_state_only(grad_build *b) {
  const unroll_layer_inputs in = {.x = grad_data(b, -1, 1, SHAPE(4, 2, 3)),
                                  .W_x = grad_data(b, -1, 1, SHAPE(8, 3)),
                                  .W_h = grad_real(b, -1, 1, SHAPE(8, 2)),
                                  .b = unroll_none()};
  const unroll_layer_attr attr = {.cell = UNROLL_CELL_LSTM, .activation = UNROLL_TANH};
  grad_result(b, unroll_layer(&in, &attr, 0).c_last);
}

static void stack_with_dropout(grad_build *b) {
  const unroll_rnn_options o = {.struct_size = sizeof o,
                                .cell = UNROLL_CELL_GRU,
                                .layers = 2,
                                .hidden = 2,
                                .bidirectional = 1,
                                .dropout = 0.3,
                                .lengths = grad_integers(b, lengths, SHAPE(3))};
  unroll_tensor h[4];
  unroll_rnn_state last = {.h = h};
  const unroll_tensor y = unroll_rnn(grad_real(b, -1, 1, SHAPE(4, 3, 2)), "net", &o, NULL, &last);
  grad_result(b, unroll_linear(y, "head", 3, 1));
  for (int i = 0; i < 4; i++)
    grad_result(b, h[i]);
  static const char *const names[] = {"net.W_x", "net.W_h", "net.b"};
  for (int i = 0; i < 12; i++) {
    char name[GRAD_NAME];
    snprintf(name, sizeof name, "%s.%d.%d", names[i % 3], i / 6, i / 3 % 2);
    grad_adopt(b, name, -1, 1.2);
  }
  grad_adopt(b, "head.W", -1, 1.2);
  grad_adopt(b, "head.b", -1, 1.2);
}

/* One table as embedding and as the head's weight: its gradient is the sum of both uses. */
static void tied_weights(grad_build *b) {
  static const int32_t ids[] = {1, 0, 3, 3, 2, 1};
  const unroll_tensor e = unroll_embedding_layer(grad_integers(b, ids, SHAPE(3, 2)), "embed", UNROLL_F64, 5, 4);
  grad_result(b, unroll_linear_tied(unroll_tanh(e), unroll_graph_find(b->g, "embed.weight"), "head", 1));
  grad_adopt(b, "embed.weight", -1, 1.2);
  grad_adopt(b, "head.b", -1, 1.2);
}

#define CASE(name) \
  { #name, name }
#define MASKED_CASES(name) CASE(name##_masked), CASE(name##_masked_reverse)
#define LAYER_CASES(name) CASE(name), CASE(name##_ragged), CASE(name##_reverse)
const grad_case grad_op_cases[] = {CASE(unary_copy),
                                   CASE(unary_neg),
                                   CASE(unary_abs),
                                   CASE(unary_sign),
                                   CASE(unary_exp),
                                   CASE(unary_log),
                                   CASE(unary_expm1),
                                   CASE(unary_log1p),
                                   CASE(unary_sqrt),
                                   CASE(unary_reciprocal),
                                   CASE(unary_square),
                                   CASE(unary_tanh),
                                   CASE(unary_sigmoid),
                                   CASE(unary_relu),
                                   CASE(binary_add),
                                   CASE(binary_sub),
                                   CASE(binary_mul),
                                   CASE(binary_div),
                                   CASE(binary_max),
                                   CASE(binary_min),
                                   CASE(binary_same_operand),
                                   CASE(select),
                                   CASE(reduce_sum),
                                   CASE(reduce_sum_squares),
                                   CASE(reduce_max),
                                   CASE(reduce_min),
                                   CASE(softmax),
                                   CASE(log_softmax),
                                   CASE(cross_entropy),
                                   CASE(mse),
                                   CASE(clip),
                                   CASE(embedding),
                                   CASE(gather),
                                   CASE(top_k),
                                   CASE(random_numbers),
                                   CASE(layer_norm),
                                   CASE(linear_scan_forward),
                                   CASE(linear_scan_reverse),
                                   CASE(linear_scan_ragged),
                                   CASE(linear_scan_ragged_reverse),
                                   CASE(no_gradient_through_ids),
                                   CASE(slice_and_pad),
                                   CASE(concat),
                                   CASE(transpose_and_reshape),
                                   CASE(reverse_and_length_mask),
                                   CASE(cast),
                                   CASE(dropout),
                                   CASE(matmul),
                                   CASE(matmul_of_sequences),
                                   CASE(matmul_batched),
                                   LAYER_CASES(layer_tanh),
                                   LAYER_CASES(layer_relu),
                                   LAYER_CASES(layer_sigmoid),
                                   LAYER_CASES(layer_lstm),
                                   LAYER_CASES(layer_gru),
                                   LAYER_CASES(layer_gru_after),
                                   MASKED_CASES(layer_tanh),
                                   MASKED_CASES(layer_lstm),
                                   MASKED_CASES(layer_gru),
                                   MASKED_CASES(layer_gru_after),
                                   CASE(layer_cell_state_only),
                                   CASE(stack_with_dropout),
                                   CASE(tied_weights),
                                   {NULL, NULL}};
