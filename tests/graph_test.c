/* SPDX-License-Identifier: Apache-2.0 */
/* Building a graph: what does not fit is refused with a message that names it, memory that runs out leaks nothing, and
 * lowering keeps and drops what it should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "graph/graph_private.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define SHAPE(...) \
  (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]) { __VA_ARGS__ }

/* What every case below starts with. */
typedef struct start {
  unroll_graph *g, *other;
  unroll_tensor x, W, ids, lengths, scalar, foreign; /* x [7,4,3], W [3,5], ids i32 [7,4], lengths i32 [4] */
  int64_t T;                                         /* run-time size of 2 to 6 */
  unroll_tensor ragged;                              /* [T,4,3] */
} start;

static start begin(void) {
  start s = {.g = NULL};
  assert_int_equal(unroll_graph_create(NULL, &s.g, NULL), UNROLL_OK);
  assert_int_equal(unroll_graph_create(NULL, &s.other, NULL), UNROLL_OK);
  s.x = unroll_input(s.g, "x", UNROLL_F32, SHAPE(7, 4, 3));
  s.W = unroll_param(s.g, "W", UNROLL_F32, SHAPE(3, 5));
  s.ids = unroll_input(s.g, "ids", UNROLL_I32, SHAPE(7, 4));
  s.lengths = unroll_input(s.g, "lengths", UNROLL_I32, SHAPE(4));
  s.scalar = unroll_input(s.g, "scalar", UNROLL_F32, 0, NULL);
  s.T = unroll_graph_dim(s.g, "T", 2, 6);
  s.ragged = unroll_input(s.g, "ragged", UNROLL_F32, SHAPE(s.T, 4, 3));
  s.foreign = unroll_input(s.other, "foreign", UNROLL_F32, SHAPE(7, 4, 3));
  assert_int_equal(unroll_graph_status(s.g, NULL), UNROLL_OK);
  return s;
}

static void end(start *s) {
  unroll_graph_destroy(s->g);
  unroll_graph_destroy(s->other);
}

static unroll_tensor input(start *s, const char *name, int32_t rank, const int64_t *shape) {
  return unroll_input(s->g, name, UNROLL_F32, rank, shape);
}

/* A layer of 5 units over x; the case spoils one of its inputs. */
static unroll_layer_inputs layer_of(start *s, int64_t gates) {
  return (unroll_layer_inputs){.x = s->x,
                               .W_x = unroll_param(s->g, "W_x", UNROLL_F32, SHAPE(gates * 5, 3)),
                               .W_h = unroll_param(s->g, "W_h", UNROLL_F32, SHAPE(gates * 5, 5))};
}
static const unroll_layer_attr lstm = {
    .cell = UNROLL_CELL_LSTM, .direction = UNROLL_FORWARD, .activation = UNROLL_TANH};
static const unroll_layer_attr gru_after = {
    .cell = UNROLL_CELL_GRU_AFTER, .direction = UNROLL_REVERSE, .activation = UNROLL_TANH};

/* ---- one misuse each ---- */

static void matmul_inner(start *s) { unroll_matmul(s->x, input(s, "V", SHAPE(4, 2))); }
static void matmul_transposed(start *s) { unroll_matmul_add(s->x, 0, s->W, 1, unroll_none()); }
static void matmul_row(start *s) { unroll_matmul_add(s->x, 0, s->W, 0, input(s, "b", SHAPE(4))); }
static void matmul_batches(start *s) { unroll_matmul(s->x, input(s, "P", SHAPE(6, 3, 2))); }
static void matmul_rank(start *s) { unroll_matmul(s->x, s->lengths); }
static void matmul_vector(start *s) { unroll_matmul(s->x, input(s, "v", SHAPE(3))); }
static void matmul_types(start *s) { unroll_matmul(s->x, unroll_cast(s->W, UNROLL_F64)); }
static void broadcast_extents(start *s) { unroll_add(s->x, input(s, "v", SHAPE(4, 2))); }
static void broadcast_run_time(start *s) { unroll_add(s->ragged, input(s, "v", SHAPE(6, 4, 3))); }
static void broadcast_moves_run_time(start *s) { unroll_add(s->ragged, input(s, "v", SHAPE(2, 1, 4, 3))); }
static void broadcast_too_large(start *s) {
  const int64_t n = INT64_C(1) << 35;
  unroll_add(input(s, "row", SHAPE(1, n)), input(s, "column", SHAPE(n, 1)));
}
static void binary_types(start *s) { unroll_add(s->x, s->ids); }
static void binary_absent(start *s) { unroll_add(s->x, unroll_none()); }
static void binary_unknown(start *s) { unroll_binary(s->x, s->x, UNROLL_BINARY_COUNT); }
static void unary_type(start *s) { unroll_tanh(s->ids); }
static void unary_unknown(start *s) { unroll_unary(s->x, -1); }
static void reduce_axes(start *s) { unroll_reduce(s->x, UNROLL_SUM, 1u << 3, 0); }
static void concat_extents(start *s) { unroll_concat((unroll_tensor[]){s->x, s->W}, 2, 0); }
static void concat_axis(start *s) { unroll_concat((unroll_tensor[]){s->x, s->x}, 2, 3); }
static void concat_run_time(start *s) { unroll_concat((unroll_tensor[]){s->ragged, s->ragged}, 2, 0); }
static void slice_too_far(start *s) { unroll_slice(s->x, 1, 2, 3); }
static void slice_empty(start *s) { unroll_slice(s->x, 1, 2, 0); }
static void slice_axis(start *s) { unroll_slice(s->x, -1, 0, 1); }
static void slice_run_time(start *s) { unroll_slice(s->ragged, 0, 0, 1); }
static void pad_negative(start *s) { unroll_pad(s->x, 0, -1, 0); }
static void transpose_twice(start *s) { unroll_transpose(s->x, (int32_t[]){0, 2, 2}); }
static void transpose_run_time(start *s) { unroll_transpose(s->ragged, (int32_t[]){1, 0, 2}); }
static void reshape_elements(start *s) { unroll_reshape(s->x, SHAPE(7, 11)); }
static void reshape_no_whole(start *s) { unroll_reshape(s->x, SHAPE(0, 5)); }
static void reshape_two_inferred(start *s) { unroll_reshape(s->x, SHAPE(0, 0)); }
static void reshape_loses_run_time(start *s) { unroll_reshape(s->ragged, SHAPE(72)); }
static void reshape_breaks_run_time(start *s) { unroll_reshape(s->ragged, SHAPE(0, 24)); }
static void reshape_makes_run_time(start *s) { unroll_reshape(input(s, "v", SHAPE(72)), SHAPE(s->T, 12)); }
static void reshape_huge(start *s) { unroll_reshape(s->x, SHAPE(3, INT64_MAX, 2)); }
static void reshape_least(start *s) { unroll_reshape(s->x, SHAPE(INT64_MIN, 2)); }
static void select_condition(start *s) { unroll_select(s->x, s->x, s->x); }
static void cast_unknown(start *s) { unroll_cast(s->x, UNROLL_DTYPE_COUNT); }
static void entropy_targets(start *s) { unroll_cross_entropy_rows(s->x, s->lengths); }
static void embedding_ids(start *s) { unroll_embedding(s->W, s->x); }
static void dropout_all(start *s) { unroll_dropout(s->x, 1.0); }
static void mask_lengths(start *s) { unroll_length_mask(s->x, unroll_input(s->g, "seven", UNROLL_I32, SHAPE(7))); }
static void reverse_type(start *s) { unroll_reverse(s->x, input(s, "v", SHAPE(4))); }
static void sample_rank(start *s) { unroll_categorical(s->x, 0); }
static void sample_mass(start *s) { unroll_categorical_top_p(s->W, 0, 1.5); }
static void random_kind(start *s) { unroll_random(s->g, 2, UNROLL_F32, SHAPE(7, 4)); }
static void random_type(start *s) { unroll_random(s->g, UNROLL_RANDOM_NORMAL, UNROLL_I32, SHAPE(7, 4)); }
static void random_rank(start *s) { unroll_random(s->g, UNROLL_RANDOM_UNIFORM, UNROLL_F32, SHAPE(7)); }
static void random_extent(start *s) { unroll_random(s->g, UNROLL_RANDOM_UNIFORM, UNROLL_F32, SHAPE(7, 0)); }
static void gather_ids(start *s) { unroll_gather(s->x, s->x); }
static void gather_rank(start *s) { unroll_gather(s->x, s->lengths); }
static void gather_front(start *s) { unroll_gather(s->x, unroll_input(s->g, "picks", UNROLL_I32, SHAPE(7, 5, 2))); }
static void top_k_none(start *s) { unroll_top_k(s->x, 0, NULL, NULL); }
static void top_k_many(start *s) { unroll_top_k(s->x, 4, NULL, NULL); }
static void linear_scan_shapes(start *s) {
  unroll_linear_scan(s->x, input(s, "b", SHAPE(7, 4, 2)), unroll_none(), unroll_none(), UNROLL_FORWARD, NULL);
}
static void linear_scan_state(start *s) {
  unroll_linear_scan(s->x, s->x, input(s, "h", SHAPE(4, 2)), unroll_none(), UNROLL_FORWARD, NULL);
}
static void linear_scan_lengths(start *s) {
  unroll_linear_scan(s->x, s->x, unroll_none(), unroll_input(s->g, "seven", UNROLL_I32, SHAPE(7)), UNROLL_FORWARD,
                     NULL);
}
static void linear_scan_direction(start *s) { unroll_linear_scan(s->x, s->x, unroll_none(), unroll_none(), 2, NULL); }
static void gates_size(start *s) {
  unroll_tensor out[3];
  graph_add_node(s->g, UNROLL_OP_LSTM_GATES, NULL,
                 (unroll_tensor[]){input(s, "pre", SHAPE(4, 15)), input(s, "c", SHAPE(4, 5))}, 2, NULL, out, 3);
}
static void embedding_rank(start *s) {
  unroll_embedding(s->W, unroll_input(s->g, "deep", UNROLL_I32, SHAPE(1, 1, 1, 1, 1, 1)));
}
static void input_rank(start *s) { input(s, "deep", SHAPE(1, 1, 1, 1, 1, 1, 1)); }
static void input_rank_negative(start *s) { input(s, "flat", -1, NULL); }
static void input_no_shape(start *s) { input(s, "flat", 2, NULL); }
static void input_extent(start *s) { input(s, "empty", SHAPE(4, 0)); }
static void input_undeclared_size(start *s) { input(s, "late", SHAPE(-2, 3)); }
static void input_least_size(start *s) { input(s, "late", SHAPE(INT64_MIN, 3)); }
static void input_run_time_axis(start *s) { input(s, "late", SHAPE(4, s->T)); }
static void input_too_large(start *s) { input(s, "vast", SHAPE(INT64_C(1) << 32, INT64_C(1) << 32)); }
static void input_type(start *s) { unroll_input(s->g, "x2", 99, SHAPE(4)); }
static void name_input(start *s) { input(s, "W", SHAPE(4)); }
static void name_output(start *s) { unroll_output(unroll_tanh(s->x), "x"); }
static void name_size(start *s) { unroll_graph_dim(s->g, "T", 1, 2); }
static void name_empty(start *s) { input(s, "", SHAPE(4)); }
static void size_limits(start *s) { unroll_graph_dim(s->g, "S", 3, 2); }
static void update_input(start *s) { unroll_update(s->x, unroll_tanh(s->x)); }
static void update_shape(start *s) { unroll_update(s->W, unroll_tanh(s->x)); }
static void update_twice(start *s) {
  unroll_update(s->W, unroll_tanh(s->W));
  unroll_update(s->W, unroll_sigmoid(s->W));
}
static void other_graph(start *s) { unroll_add(s->x, s->foreign); }
static void other_graph_update(start *s) { unroll_update(s->W, s->foreign); }
static void gradient_shape(start *s) { unroll_gradient(unroll_tanh(s->W), &s->W, 1, &s->foreign); }
static void gradient_by_integers(start *s) {
  unroll_gradient(unroll_reduce(s->x, UNROLL_SUM, 0, 0), &s->ids, 1, &s->foreign);
}
static void gradient_of_integers(start *s) {
  unroll_gradient(unroll_reduce(s->ids, UNROLL_SUM, 0, 0), &s->W, 1, &s->foreign);
}
static void gradient_other_graph(start *s) {
  unroll_tensor d;
  unroll_gradient(unroll_reduce(s->x, UNROLL_SUM, 0, 0), &s->foreign, 1, &d);
}
static void gradient_foreign_seed(start *s) {
  unroll_tensor d;
  unroll_vjp(&s->x, &s->foreign, 1, &s->x, 1, &d);
}
static void gradient_seed(start *s) {
  unroll_tensor d;
  unroll_vjp(&s->x, &s->W, 1, &s->x, 1, &d);
}

static void layer_rows(start *s) {
  unroll_layer_inputs in = layer_of(s, 3);
  unroll_layer(&in, &lstm, 0);
}
static void layer_input_size(start *s) {
  unroll_layer_inputs in = layer_of(s, 4);
  in.W_x = input(s, "V", SHAPE(20, 2));
  unroll_layer(&in, &lstm, 0);
}
static void layer_lengths(start *s) {
  unroll_layer_inputs in = layer_of(s, 4);
  in.lengths = unroll_input(s->g, "seven", UNROLL_I32, SHAPE(7));
  unroll_layer(&in, &lstm, 0);
}
static void layer_state(start *s) {
  unroll_layer_inputs in = layer_of(s, 4);
  in.c0 = input(s, "c", SHAPE(5, 4));
  unroll_layer(&in, &lstm, 0);
}
static void layer_bias(start *s) {
  unroll_layer_inputs in = layer_of(s, 4);
  in.b_n = input(s, "b_n", SHAPE(5));
  unroll_layer(&in, &lstm, 0);
}
static void layer_without_bias(start *s) {
  unroll_layer_inputs in = layer_of(s, 3);
  unroll_layer(&in, &gru_after, 0);
}
static void layer_cell_state(start *s) {
  unroll_layer_inputs in = layer_of(s, 3);
  in.b_n = input(s, "b_n", SHAPE(5));
  in.c0 = input(s, "c", SHAPE(4, 5));
  unroll_layer(&in, &gru_after, 0);
}
static void layer_direction(start *s) {
  unroll_layer_inputs in = layer_of(s, 4);
  unroll_layer(&in, &(unroll_layer_attr){.cell = UNROLL_CELL_LSTM, .direction = 2, .activation = UNROLL_TANH}, 0);
}
static void layer_cell(start *s) {
  unroll_layer_inputs in = layer_of(s, 4);
  unroll_layer(
      &in, &(unroll_layer_attr){.cell = UNROLL_CELL_COUNT, .direction = UNROLL_FORWARD, .activation = UNROLL_TANH}, 0);
}

/* A scan over x with a carry [4,3]. */
typedef struct loop {
  unroll_scan *scan;
  unroll_tensor x, h;
} loop;
static loop loop_over(start *s, unroll_tensor x) {
  loop l = {unroll_scan_begin(s->g, UNROLL_FORWARD, unroll_none()), unroll_none(), unroll_none()};
  l.x = unroll_scan_input(l.scan, x);
  l.h = unroll_scan_carry(l.scan, unroll_state(s->g, "h", UNROLL_F32, SHAPE(4, 3)));
  return l;
}
static unroll_tensor loop_close(loop *l) {
  const unroll_tensor next = unroll_add(l->h, l->x), y = unroll_scan_output(l->scan, next);
  unroll_scan_next(l->scan, l->h, next);
  unroll_scan_end(l->scan);
  return y;
}

static void step_after_end(start *s) {
  loop l = loop_over(s, s->x);
  loop_close(&l);
  unroll_tanh(l.x);
}
static void step_as_output(start *s) {
  loop l = loop_over(s, s->x);
  unroll_output(unroll_tanh(l.x), "y");
}
static void step_in_other_scan(start *s) {
  loop l = loop_over(s, s->x);
  unroll_scan *other = unroll_scan_begin(s->g, UNROLL_FORWARD, unroll_none());
  unroll_add(unroll_scan_input(other, s->x), l.x);
}
static void step_outside(start *s) {
  loop l = loop_over(s, s->x);
  unroll_scan_carry(l.scan, l.h);
}
static void result_before_end(start *s) {
  loop l = loop_over(s, s->x);
  unroll_tanh(unroll_scan_output(l.scan, l.x));
}
static void last_before_end(start *s) {
  loop l = loop_over(s, s->x);
  unroll_add(l.x, unroll_scan_last(l.scan, l.h));
}
static void scan_not_ended(start *s) { loop_over(s, s->x); }
static void scan_without_next(start *s) { unroll_scan_end(loop_over(s, s->x).scan); }
static void scan_without_steps(start *s) {
  unroll_scan *scan = unroll_scan_begin(s->g, UNROLL_FORWARD, unroll_none());
  const unroll_tensor W = unroll_scan_carry(scan, s->W);
  unroll_scan_next(scan, W, unroll_tanh(W));
  unroll_scan_end(scan);
}
static void scan_output_without_steps(start *s) {
  unroll_scan *scan = unroll_scan_begin(s->g, UNROLL_FORWARD, unroll_none());
  unroll_scan_output(scan, unroll_scan_carry(scan, s->W));
}
static void scan_no_steps(start *s) { unroll_scan_steps(unroll_scan_begin(s->g, UNROLL_FORWARD, unroll_none()), 0); }
static void scan_least_steps(start *s) {
  unroll_scan_steps(unroll_scan_begin(s->g, UNROLL_FORWARD, unroll_none()), INT64_MIN);
}
static void scan_two_lengths(start *s) { unroll_scan_input(loop_over(s, s->x).scan, s->ragged); }
static void scan_nested(start *s) {
  unroll_scan_begin(unroll_scan_body(loop_over(s, s->x).scan), UNROLL_FORWARD, unroll_none());
}
static void scan_direction(start *s) { unroll_scan_begin(s->g, 7, unroll_none()); }
static void scan_lengths(start *s) { unroll_scan_begin(s->g, UNROLL_FORWARD, s->ids); }
static void scan_lengths_batch(start *s) {
  const unroll_tensor seven = unroll_input(s->g, "seven", UNROLL_I32, SHAPE(7));
  unroll_scan_input(unroll_scan_begin(s->g, UNROLL_FORWARD, seven), s->x);
}
static void scan_rank(start *s) { unroll_scan_input(loop_over(s, s->x).scan, s->lengths); }
static void carry_without_batch(start *s) { unroll_scan_carry(loop_over(s, s->x).scan, s->scalar); }
static void carry_run_time_batch(start *s) { unroll_scan_carry(loop_over(s, s->x).scan, s->ragged); }
static void carry_batch(start *s) { unroll_scan_carry(loop_over(s, s->x).scan, s->W); }
static void carry_changes(start *s) {
  loop l = loop_over(s, s->x);
  unroll_scan_next(l.scan, l.h, unroll_matmul(l.h, s->W));
}
static void carry_twice(start *s) {
  loop l = loop_over(s, s->x);
  unroll_scan_next(l.scan, l.h, l.x);
  unroll_scan_next(l.scan, l.h, l.x);
}
static void carry_is_none(start *s) {
  loop l = loop_over(s, s->x);
  unroll_scan_next(l.scan, l.x, l.h);
}
static void body_input(start *s) {
  unroll_input(unroll_scan_body(loop_over(s, s->x).scan), "inner", UNROLL_F32, SHAPE(4));
}
static void body_size(start *s) { unroll_graph_dim(unroll_scan_body(loop_over(s, s->x).scan), "S", 1, 2); }
static void body_layer(start *s) {
  unroll_layer_inputs in = layer_of(s, 4);
  in.x = loop_over(s, s->x).x;
  unroll_layer(&in, &lstm, 0);
}
static void body_gradient(start *s) {
  loop l = loop_over(s, s->x);
  unroll_gradient(unroll_reduce(l.x, UNROLL_SUM, 0, 0), &l.h, 1, &s->foreign);
}
static void output_rank(start *s) {
  loop l = loop_over(s, s->x);
  unroll_scan_output(l.scan, unroll_reshape(l.h, SHAPE(4, 3, 1, 1, 1, 1)));
}

static const struct misuse {
  const char *name;
  void (*build)(start *);
  unroll_status code;
  const char *words[5]; /* of the message */
} misuses[] = {
#define CASE(build) #build, build
    {CASE(matmul_inner), UNROLL_E_SHAPE, {"matmul_0", "x f32 [7,4,3]", "V f32 [4,2]", "3 and 4"}},
    {CASE(matmul_transposed), UNROLL_E_SHAPE, {"matmul_0", "x f32 [7,4,3]", "W f32 [3,5] transposed", "3 and 5"}},
    {CASE(matmul_row), UNROLL_E_SHAPE, {"matmul_0", "b f32 [4]", "x f32 [7,4,3]", "W f32 [3,5]", "row of 5"}},
    {CASE(matmul_batches), UNROLL_E_SHAPE, {"matmul_0", "x f32 [7,4,3]", "P f32 [6,3,2]"}},
    {CASE(matmul_rank), UNROLL_E_DTYPE, {"matmul_0", "lengths i32 [4]", "expected f32 or f64"}},
    {CASE(matmul_vector), UNROLL_E_SHAPE, {"matmul_0", "v f32 [3]", "rank 1", "2 to 3"}},
    {CASE(matmul_types), UNROLL_E_DTYPE, {"matmul_1", "x f32 [7,4,3]", "cast_0 f64 [3,5]"}},
    {CASE(broadcast_extents), UNROLL_E_SHAPE, {"binary_0", "x f32 [7,4,3]", "v f32 [4,2]"}},
    {CASE(broadcast_run_time), UNROLL_E_SHAPE, {"binary_0", "ragged f32 [T,4,3]", "v f32 [6,4,3]"}},
    {CASE(broadcast_moves_run_time), UNROLL_E_UNSUPPORTED, {"binary_0", "axis 1", "run-time size"}},
    {CASE(broadcast_too_large), UNROLL_E_SHAPE, {"binary_0", "64 bits"}},
    {CASE(binary_types), UNROLL_E_DTYPE, {"binary_0", "x f32 [7,4,3]", "ids i32 [7,4]"}},
    {CASE(binary_absent), UNROLL_E_INVALID, {"binary_0", "operand is missing"}},
    {CASE(binary_unknown), UNROLL_E_INVALID, {"binary_0", "no such function"}},
    {CASE(unary_type), UNROLL_E_DTYPE, {"unary_0", "ids i32 [7,4]"}},
    {CASE(unary_unknown), UNROLL_E_INVALID, {"unary_0", "no such function"}},
    {CASE(reduce_axes), UNROLL_E_SHAPE, {"reduce_0", "0x8", "x f32 [7,4,3]", "rank 3"}},
    {CASE(concat_extents), UNROLL_E_SHAPE, {"concat_0", "x f32 [7,4,3]", "W f32 [3,5]", "axis 0"}},
    {CASE(concat_axis), UNROLL_E_SHAPE, {"concat_0", "axis 3", "x f32 [7,4,3]", "0 to 2"}},
    {CASE(concat_run_time), UNROLL_E_UNSUPPORTED, {"concat_0", "axis 0", "ragged f32 [T,4,3]"}},
    {CASE(slice_too_far), UNROLL_E_SHAPE, {"slice_0", "3 from 2 on", "axis 1", "x f32 [7,4,3]"}},
    {CASE(slice_empty), UNROLL_E_SHAPE, {"slice_0", "0 from 2 on", "x f32 [7,4,3]"}},
    {CASE(slice_axis), UNROLL_E_SHAPE, {"slice_0", "axis -1", "x f32 [7,4,3]"}},
    {CASE(slice_run_time), UNROLL_E_UNSUPPORTED, {"slice_0", "axis 0", "ragged f32 [T,4,3]"}},
    {CASE(pad_negative), UNROLL_E_RANGE, {"pad_0", "-1 before"}},
    {CASE(transpose_twice), UNROLL_E_INVALID, {"transpose_0", "perm[2] = 2", "x f32 [7,4,3]"}},
    {CASE(transpose_run_time), UNROLL_E_UNSUPPORTED, {"transpose_0", "axis 1", "run-time size"}},
    {CASE(reshape_elements), UNROLL_E_SHAPE, {"reshape_0", "x f32 [7,4,3]", "77 elements"}},
    {CASE(reshape_no_whole), UNROLL_E_SHAPE, {"reshape_0", "x f32 [7,4,3]", "80 elements"}},
    {CASE(reshape_two_inferred), UNROLL_E_SHAPE, {"reshape", "axis 1 has extent 0"}},
    {CASE(reshape_loses_run_time), UNROLL_E_SHAPE, {"reshape_0", "ragged f32 [T,4,3]", "run-time size"}},
    {CASE(reshape_breaks_run_time), UNROLL_E_SHAPE, {"reshape_0", "ragged f32 [T,4,3]", "T"}},
    {CASE(reshape_makes_run_time), UNROLL_E_SHAPE, {"reshape_0", "v f32 [72]", "run-time size"}},
    {CASE(reshape_huge), UNROLL_E_SHAPE, {"reshape", "64 bits"}},
    {CASE(reshape_least), UNROLL_E_SHAPE, {"reshape", "-9223372036854775808"}},
    {CASE(select_condition), UNROLL_E_DTYPE, {"select_0", "x f32 [7,4,3]", "bool"}},
    {CASE(cast_unknown), UNROLL_E_DTYPE, {"cast", "9 is no element type"}},
    {CASE(entropy_targets), UNROLL_E_SHAPE, {"cross_entropy_0", "lengths i32 [4]", "i32 [7,4]"}},
    {CASE(embedding_ids), UNROLL_E_DTYPE, {"embedding_0", "x f32 [7,4,3]", "i32"}},
    {CASE(embedding_rank), UNROLL_E_SHAPE, {"embedding_0", "deep i32 [1,1,1,1,1,1]", "0 to 5"}},
    {CASE(dropout_all), UNROLL_E_RANGE, {"dropout_0", "p is 1"}},
    {CASE(mask_lengths), UNROLL_E_SHAPE, {"length_mask_0", "seven i32 [7]", "i32 [4]"}},
    {CASE(reverse_type), UNROLL_E_DTYPE, {"reverse_0", "v f32 [4]", "i32 [4]"}},
    {CASE(sample_rank), UNROLL_E_SHAPE, {"categorical_0", "x f32 [7,4,3]", "rank 3"}},
    {CASE(sample_mass), UNROLL_E_RANGE, {"categorical_0", "top_p is 1.5"}},
    {CASE(random_kind), UNROLL_E_INVALID, {"random_0", "2 is no distribution"}},
    {CASE(random_type), UNROLL_E_DTYPE, {"random_0", "i32"}},
    {CASE(random_rank), UNROLL_E_SHAPE, {"random_0", "rank 1", "at least 2"}},
    {CASE(random_extent), UNROLL_E_SHAPE, {"random", "axis 1", "extent 0"}},
    {CASE(gather_ids), UNROLL_E_DTYPE, {"gather_0", "x f32 [7,4,3]", "i32"}},
    {CASE(gather_rank), UNROLL_E_SHAPE, {"gather_0", "lengths i32 [4]", "rank 1", "expected 3"}},
    {CASE(gather_front), UNROLL_E_SHAPE, {"gather_0", "picks i32 [7,5,2]", "axis 1"}},
    {CASE(top_k_none), UNROLL_E_RANGE, {"top_k_0", "k is 0", "1 to 3"}},
    {CASE(top_k_many), UNROLL_E_RANGE, {"top_k_0", "k is 4", "x f32 [7,4,3]"}},
    {CASE(linear_scan_shapes), UNROLL_E_SHAPE, {"linear_scan_0", "b f32 [7,4,2]", "f32 [7,4,3]"}},
    {CASE(linear_scan_state), UNROLL_E_SHAPE, {"linear_scan_0", "h f32 [4,2]", "f32 [4,3]"}},
    {CASE(linear_scan_lengths), UNROLL_E_SHAPE, {"linear_scan_0", "seven i32 [7]", "i32 [4]"}},
    {CASE(linear_scan_direction), UNROLL_E_INVALID, {"linear_scan_0", "direction 2"}},
    {CASE(gates_size), UNROLL_E_SHAPE, {"lstm_gates_0", "pre f32 [4,15]", "f32 [4,20]"}},
    {CASE(input_rank), UNROLL_E_SHAPE, {"deep", "rank 7", "0 to 6"}},
    {CASE(input_rank_negative), UNROLL_E_SHAPE, {"flat", "rank -1"}},
    {CASE(input_no_shape), UNROLL_E_SHAPE, {"flat", "rank 2", "a shape"}},
    {CASE(input_extent), UNROLL_E_SHAPE, {"empty", "axis 1", "extent 0"}},
    {CASE(input_undeclared_size), UNROLL_E_SHAPE, {"late", "axis 0", "-2"}},
    {CASE(input_least_size), UNROLL_E_SHAPE, {"late", "axis 0", "-9223372036854775808"}},
    {CASE(input_run_time_axis), UNROLL_E_UNSUPPORTED, {"late", "axis 1", "T", "axis 0"}},
    {CASE(input_too_large), UNROLL_E_SHAPE, {"vast", "64 bits"}},
    {CASE(input_type), UNROLL_E_DTYPE, {"x2", "99"}},
    {CASE(name_input), UNROLL_E_INVALID, {"W", "taken"}},
    {CASE(name_output), UNROLL_E_INVALID, {"output x", "taken"}},
    {CASE(name_size), UNROLL_E_INVALID, {"run-time size T", "taken"}},
    {CASE(name_empty), UNROLL_E_INVALID, {"name"}},
    {CASE(size_limits), UNROLL_E_INVALID, {"run-time size S", "3 to 2"}},
    {CASE(update_input), UNROLL_E_GRAPH, {"x f32 [7,4,3]", "a parameter or a state"}},
    {CASE(update_shape), UNROLL_E_SHAPE, {"W f32 [3,5]", "unary_0 f32 [7,4,3]"}},
    {CASE(update_twice), UNROLL_E_GRAPH, {"W f32 [3,5]", "already"}},
    {CASE(other_graph), UNROLL_E_GRAPH, {"binary_0", "different graphs"}},
    {CASE(other_graph_update), UNROLL_E_GRAPH, {"W f32 [3,5]", "another graph"}},
    {CASE(gradient_shape), UNROLL_E_SHAPE, {"unary_0 f32 [3,5]", "rank 0"}},
    {CASE(gradient_by_integers), UNROLL_E_DTYPE, {"ids i32 [7,4]", "f32 or f64"}},
    {CASE(gradient_of_integers), UNROLL_E_DTYPE, {"reduce_0 i32 []", "f32 or f64"}},
    {CASE(gradient_other_graph), UNROLL_E_GRAPH, {"gradient", "different graphs"}},
    {CASE(gradient_foreign_seed), UNROLL_E_GRAPH, {"gradient", "different graphs"}},
    {CASE(gradient_seed), UNROLL_E_SHAPE, {"x f32 [7,4,3]", "W f32 [3,5]"}},
    {CASE(layer_rows), UNROLL_E_SHAPE, {"layer_3", "W_h f32 [15,5]", "20 rows", "lstm", "5 units"}},
    {CASE(layer_input_size), UNROLL_E_SHAPE, {"layer_3", "V f32 [20,2]", "[20,3]"}},
    {CASE(layer_lengths), UNROLL_E_SHAPE, {"layer_3", "seven i32 [7]", "i32 [4]"}},
    {CASE(layer_state), UNROLL_E_SHAPE, {"layer_2", "c f32 [5,4]", "f32 [4,5]"}},
    {CASE(layer_bias), UNROLL_E_INVALID, {"layer_3", "b_n f32 [5]", "only a gru_after"}},
    {CASE(layer_without_bias), UNROLL_E_INVALID, {"layer_2", "input 4 is missing"}},
    {CASE(layer_cell_state), UNROLL_E_INVALID, {"layer_2", "c f32 [4,5]", "only an lstm"}},
    {CASE(layer_direction), UNROLL_E_INVALID, {"layer_3", "direction 2"}},
    {CASE(layer_cell), UNROLL_E_INVALID, {"layer_2", "5 is no standard cell"}},
    {CASE(step_after_end), UNROLL_E_STATE, {"unary", "a scan that has ended", "unroll_scan_output"}},
    {CASE(step_as_output), UNROLL_E_STATE, {"output y", "unroll_scan_output"}},
    {CASE(step_in_other_scan), UNROLL_E_GRAPH, {"binary_0", "different graphs", "unroll_scan_output"}},
    {CASE(step_outside), UNROLL_E_GRAPH, {"carry", "unroll_scan_output"}},
    {CASE(result_before_end), UNROLL_E_STATE, {"unary_0", "x[t].all", "unroll_scan_end"}},
    {CASE(last_before_end), UNROLL_E_STATE, {"binary_0", "h.last", "unroll_scan_end"}},
    {CASE(scan_not_ended), UNROLL_E_GRAPH, {"unroll_scan_end"}},
    {CASE(scan_without_next), UNROLL_E_GRAPH, {"scan", "carry_0 f32 [4,3]", "unroll_scan_next"}},
    {CASE(scan_without_steps), UNROLL_E_STATE, {"scan", "unroll_scan_steps"}},
    {CASE(scan_output_without_steps), UNROLL_E_STATE, {"scan", "unroll_scan_steps"}},
    {CASE(scan_no_steps), UNROLL_E_SHAPE, {"scan", "0 steps"}},
    {CASE(scan_least_steps), UNROLL_E_SHAPE, {"scan", "-9223372036854775808 steps"}},
    {CASE(scan_two_lengths), UNROLL_E_SHAPE, {"ragged", "up to 6", "7"}},
    {CASE(scan_nested), UNROLL_E_UNSUPPORTED, {"scan", "another scan"}},
    {CASE(scan_direction), UNROLL_E_INVALID, {"scan", "direction 7"}},
    {CASE(scan_lengths), UNROLL_E_SHAPE, {"lengths", "ids i32 [7,4]", "i32 [B]"}},
    {CASE(scan_lengths_batch), UNROLL_E_SHAPE, {"x f32 [7,4,3]", "batch of 4", "expected 7"}},
    {CASE(scan_rank), UNROLL_E_SHAPE, {"lengths i32 [4]", "batch on axis 1"}},
    {CASE(carry_without_batch), UNROLL_E_SHAPE, {"scalar f32 []", "on axis 0"}},
    {CASE(carry_run_time_batch), UNROLL_E_SHAPE, {"ragged f32 [T,4,3]", "static size"}},
    {CASE(carry_batch), UNROLL_E_SHAPE, {"W f32 [3,5]", "batch of 3", "expected 4"}},
    {CASE(carry_changes), UNROLL_E_SHAPE, {"carry_0 f32 [4,3]", "matmul_0 f32 [4,5]"}},
    {CASE(carry_twice), UNROLL_E_INVALID, {"carry_0 f32 [4,3]", "already"}},
    {CASE(carry_is_none), UNROLL_E_INVALID, {"unroll_scan_carry"}},
    {CASE(body_input), UNROLL_E_STATE, {"inner", "around the scan"}},
    {CASE(body_size), UNROLL_E_STATE, {"run-time size S", "body"}},
    {CASE(body_layer), UNROLL_E_UNSUPPORTED, {"layer", "body of a scan"}},
    {CASE(body_gradient), UNROLL_E_UNSUPPORTED, {"gradient", "body"}},
    {CASE(output_rank), UNROLL_E_SHAPE, {"reshape_0 f32 [4,3,1,1,1,1]", "more than 6 axes"}},
#undef CASE
};

static void misuse_is_named(void **state) {
  (void)state;
  int wrong = 0;
  for (size_t i = 0; i < COUNT(misuses); i++) {
    const struct misuse *m = &misuses[i];
    start s = begin();
    unroll_error err = UNROLL_ERROR_INIT;
    m->build(&s);
    bool good = unroll_graph_status(s.g, &err) == m->code;
    for (size_t k = 0; k < COUNT(m->words) && m->words[k]; k++)
      good = good && strstr(err.message, m->words[k]);
    if (!good)
      print_error("%s: %s '%s', expected %s\n", m->name, unroll_status_name(err.code), err.message,
                  unroll_status_name(m->code));
    wrong += !good;
    end(&s);
  }
  assert_int_equal(wrong, 0);
}

static void the_first_error_stays(void **state) {
  (void)state;
  start s = begin();
  unroll_error first = UNROLL_ERROR_INIT, later = UNROLL_ERROR_INIT;
  const uint32_t n = unroll_graph_count(s.g);
  slice_too_far(&s);
  assert_int_equal(unroll_graph_status(s.g, &first), UNROLL_E_SHAPE);
  /* Nothing but the last two is refused without the error before it. */
  assert_null(unroll_tanh(s.x).graph);
  assert_null(input(&s, "more", SHAPE(3)).graph);
  assert_null(unroll_scan_begin(s.g, UNROLL_FORWARD, unroll_none()));
  assert_null(unroll_output(s.x, "y").graph);
  unroll_update(s.W, s.W);
  unary_type(&s);
  other_graph(&s);
  assert_int_equal(unroll_graph_status(s.g, &later), UNROLL_E_SHAPE);
  assert_string_equal(later.message, first.message);
  assert_int_equal(unroll_graph_count(s.g), n);
  assert_int_equal(s.g->n_nodes, 0);
  end(&s);
}

/* ---- what fits ---- */

static void assert_shape(unroll_tensor x, int32_t rank, const int64_t *shape) {
  const unroll_tensor_info info = unroll_tensor_describe(x);
  assert_int_equal(info.rank, rank);
  for (int i = 0; i < rank; i++)
    assert_int_equal(info.shape[i], shape[i]);
}

static void shapes_are_inferred(void **state) {
  (void)state;
  start s = begin();
  char text[GRAPH_DESCRIBE];
  assert_shape(unroll_matmul(s.x, s.W), SHAPE(7, 4, 5));
  assert_shape(unroll_add(s.x, input(&s, "v", SHAPE(4, 1))), SHAPE(7, 4, 3));
  assert_shape(unroll_reshape(s.x, SHAPE(0, 3)), SHAPE(28, 3));
  assert_shape(unroll_reshape(s.x, SHAPE(7, 0)), SHAPE(7, 12));
  assert_shape(unroll_reduce(s.x, UNROLL_SUM, 1u << 1, 0), SHAPE(7, 3));
  assert_shape(unroll_reduce(s.x, UNROLL_SUM, 1u << 1, 1), SHAPE(7, 1, 3));
  assert_shape(unroll_concat((unroll_tensor[]){s.x, s.x}, 2, 1), SHAPE(7, 8, 3));
  const unroll_tensor flat = unroll_reshape(s.ragged, SHAPE(0, 3)), back = unroll_reshape(flat, SHAPE(s.T, 0, 3));
  assert_shape(flat, SHAPE(24, 3)); /* T is at most 6 */
  assert_non_null(strstr(graph_describe(s.g, flat.id, text), "f32 [T*4,3]"));
  assert_non_null(strstr(graph_describe(s.g, back.id, text), "f32 [T,4,3]"));
  assert_int_equal(unroll_graph_status(s.g, NULL), UNROLL_OK);
  end(&s);
}

static void an_output_of_an_input_is_a_copy(void **state) {
  (void)state;
  start s = begin();
  const unroll_tensor y = unroll_output(s.x, "y"), z = unroll_output(y, "z"), t = unroll_tanh(s.x);
  assert_int_not_equal(y.id, s.x.id);
  assert_int_not_equal(z.id, y.id);
  assert_int_equal(unroll_output(t, "t").id, t.id);
  assert_int_equal(unroll_tensor_describe(s.x).role, UNROLL_ROLE_INPUT);
  assert_int_equal(unroll_tensor_describe(y).role, UNROLL_ROLE_OUTPUT);
  assert_string_equal(unroll_tensor_describe(z).name, "z");
  assert_int_equal(unroll_graph_find(s.g, "t").id, t.id);
  assert_null(unroll_graph_find(s.g, "nothing").graph);
  assert_int_equal(unroll_graph_status(s.g, NULL), UNROLL_OK);
  end(&s);
}

static void what_the_loss_does_not_reach_has_gradient_zero(void **state) {
  (void)state;
  start s = begin();
  unroll_tensor d[2];
  const unroll_tensor loss = unroll_reduce(unroll_tanh(s.x), UNROLL_SUM, 0, 0);
  unroll_gradient(loss, (unroll_tensor[]){s.W, s.x}, 2, d);
  assert_int_equal(unroll_graph_status(s.g, NULL), UNROLL_OK);
  assert_shape(d[0], SHAPE(3, 5));
  assert_shape(d[1], SHAPE(7, 4, 3));
  const node *n = &s.g->nodes[s.g->tensors[d[0].id].producer];
  assert_int_equal(n->op, UNROLL_OP_CONSTANT);
  assert_true(n->attr.constant.value == 0);
  assert_int_not_equal(s.g->nodes[s.g->tensors[d[1].id].producer].op, UNROLL_OP_CONSTANT);
  /* Through integers nothing flows. */
  const unroll_tensor rounded = unroll_cast(unroll_cast(s.x, UNROLL_I32), UNROLL_F32);
  unroll_gradient(unroll_reduce(rounded, UNROLL_SUM, 0, 0), &s.x, 1, d);
  assert_int_equal(s.g->nodes[s.g->tensors[d[0].id].producer].op, UNROLL_OP_CONSTANT);
  end(&s);
}

/* ---- lowering, and no memory ---- */

/* An LSTM with lengths, a loss, its gradient and an update of every weight. [T,4,3] -> [T,4,5] */
static void build_training(unroll_graph *g) {
  const int64_t T = unroll_graph_dim(g, "T", 1, 7);
  const unroll_layer_inputs in = {.x = unroll_input(g, "x", UNROLL_F32, SHAPE(T, 4, 3)),
                                  .W_x = unroll_param(g, "W_x", UNROLL_F32, SHAPE(20, 3)),
                                  .W_h = unroll_param(g, "W_h", UNROLL_F32, SHAPE(20, 5)),
                                  .b = unroll_param(g, "b", UNROLL_F32, SHAPE(20)),
                                  .h0 = unroll_state(g, "h", UNROLL_F32, SHAPE(4, 5)),
                                  .lengths = unroll_input(g, "lengths", UNROLL_I32, SHAPE(4))};
  const unroll_tensor lr = unroll_input(g, "lr", UNROLL_F32, 0, NULL),
                      step = unroll_input(g, "step", UNROLL_I32, 0, NULL);
  const unroll_layer_outputs out = unroll_layer(&in, &lstm, 3);
  const unroll_tensor loss = unroll_reduce(out.y, UNROLL_SUM_SQUARES, 0, 0), weights[] = {in.W_x, in.W_h, in.b};
  unroll_tensor gradients[COUNT(weights)];
  unroll_update(in.h0, out.h_last);
  unroll_tanh(out.y); /* nobody reads it */
  unroll_gradient(loss, weights, COUNT(weights), gradients);
  for (size_t i = 0; i < COUNT(weights); i++)
    unroll_optimize(weights[i], gradients[i], lr, step, unroll_none(),
                    &(unroll_optimizer_attr){.kind = UNROLL_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8});
  unroll_output(loss, "loss");
}

static uint32_t count_op(const unroll_graph *g, uint32_t op) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < g->n_nodes; i++)
    n += g->nodes[i].op == op;
  return n;
}

static void lowering_keeps_what_is_named_and_drops_the_dead(void **state) {
  (void)state;
  unroll_graph *g, *low;
  assert_int_equal(unroll_graph_create(NULL, &g, NULL), UNROLL_OK);
  build_training(g);
  assert_int_equal(unroll_graph_status(g, NULL), UNROLL_OK);
  assert_int_equal(count_op(g, UNROLL_OP_LAYER), 1);
  assert_int_equal(count_op(g, UNROLL_OP_LAYER_GRAD), 1);
  assert_int_equal(count_op(g, UNROLL_OP_SCAN), 0);
  layer_fate *keep = calloc(g->n_nodes, sizeof *keep);
  assert_non_null(keep);
  for (int kept = 0; kept <= 2; kept++) { /* none; the layer; its gradient too */
    for (uint32_t i = 0; i < g->n_nodes; i++)
      keep[i].keep =
          (kept >= 1 && g->nodes[i].op == UNROLL_OP_LAYER) || (kept == 2 && g->nodes[i].op == UNROLL_OP_LAYER_GRAD);
    unroll_error err = UNROLL_ERROR_INIT;
    assert_int_equal(graph_lower(g, kept ? keep : NULL, &low, &err), UNROLL_OK);
    assert_int_equal(count_op(low, UNROLL_OP_LAYER), kept >= 1);
    assert_int_equal(count_op(low, UNROLL_OP_LAYER_GRAD), kept == 2);
    assert_int_equal(count_op(low, UNROLL_OP_SCAN), 2 - kept);
    assert_int_equal(count_op(low, UNROLL_OP_OPTIMIZER), 3);
    for (uint32_t i = 0; i < low->n_nodes; i++)
      assert_false(low->nodes[i].op == UNROLL_OP_UNARY && low->nodes[i].attr.unary.kind == UNROLL_TANH);
    /* Outside tensors keep name, role and size, and, all but outputs, their order; what is updated still is. */
    assert_int_equal(unroll_graph_count(low), unroll_graph_count(g));
    uint32_t last = 0;
    for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
      const unroll_tensor a = unroll_graph_tensor(g, i), b = unroll_graph_find(low, unroll_tensor_describe(a).name);
      assert_ptr_equal(b.graph, low);
      if (unroll_tensor_describe(a).role != UNROLL_ROLE_OUTPUT) {
        assert_true(b.id >= last);
        last = b.id;
      }
      assert_int_equal(unroll_tensor_describe(a).role, unroll_tensor_describe(b).role);
      assert_true(graph_same_shape(graph_spec(a), graph_spec(b)));
      assert_int_equal(g->tensors[a.id].update == GRAPH_NONE, low->tensors[b.id].update == GRAPH_NONE);
    }
    unroll_graph_destroy(low);
  }
  free(keep);
  unroll_graph_destroy(g);
}

/* Gives out at most `left` blocks. */
typedef struct counter {
  int left, live;
} counter;

static void *counter_alloc(void *ctx, uint64_t bytes, uint64_t alignment) {
  counter *c = ctx;
  if (c->left == 0)
    return NULL;
  c->left--;
  c->live++;
  return aligned_alloc(alignment, bytes);
}
static void counter_free(void *ctx, void *p) {
  ((counter *)ctx)->live--;
  free(p);
}

static unroll_status build_and_lower(counter *c, unroll_error *err) {
  const unroll_allocator a = {c, counter_alloc, counter_free};
  unroll_graph *g = NULL, *low = NULL;
  unroll_status st = unroll_graph_create(&a, &g, err);
  if (st == UNROLL_OK) {
    build_training(g);
    st = unroll_graph_status(g, err);
  }
  if (st == UNROLL_OK)
    st = graph_lower(g, NULL, &low, err);
  assert_int_equal(low != NULL, st == UNROLL_OK);
  unroll_graph_destroy(low);
  unroll_graph_destroy(g);
  return st;
}

static void memory_may_end_anywhere(void **state) {
  (void)state;
  unroll_status st = UNROLL_E_MEMORY;
  int n = 0;
  for (; st != UNROLL_OK && n < 100000; n++) {
    counter c = {n, 0};
    unroll_error err = UNROLL_ERROR_INIT;
    st = build_and_lower(&c, &err);
    if (st != UNROLL_OK && (st != UNROLL_E_MEMORY || !strstr(err.message, "out of memory")))
      print_error("with %d blocks: %s '%s'\n", n, unroll_status_name(st), err.message);
    assert_true(st == UNROLL_OK || (st == UNROLL_E_MEMORY && strstr(err.message, "out of memory")));
    assert_int_equal(c.live, 0);
  }
  assert_int_equal(st, UNROLL_OK);
  assert_in_range(n, 200, 99999);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(misuse_is_named),
      cmocka_unit_test(the_first_error_stays),
      cmocka_unit_test(shapes_are_inferred),
      cmocka_unit_test(an_output_of_an_input_is_a_copy),
      cmocka_unit_test(what_the_loss_does_not_reach_has_gradient_zero),
      cmocka_unit_test(lowering_keeps_what_is_named_and_drops_the_dead),
      cmocka_unit_test(memory_may_end_anywhere),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
