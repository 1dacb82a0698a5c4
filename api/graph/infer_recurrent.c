/* SPDX-License-Identifier: Apache-2.0 */
/* infer_recurrent.c: what comes out of linear scans, normed rows, gates and whole layers. plugin.h says what they mean. */
#include "graph/infer_private.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

static unroll_status scan_direction(inference *f, int32_t direction) {
  if (direction != UNROLL_FORWARD && direction != UNROLL_REVERSE)
    return fail(f->err, UNROLL_E_INVALID, "direction %d, expected UNROLL_FORWARD or UNROLL_REVERSE", direction);
  return UNROLL_OK;
}

unroll_status infer_linear_scan(inference *f, bool gradient) {
  TRY(scan_direction(f, f->attr->linear_scan.direction));
  TRY(infer_need_real(f, 0));
  TRY(infer_need_rank(f, 0, 2, UNROLL_MAX_RANK));
  const tensor_spec *a = in(f, 0), state = step_of(a);
  const uint32_t lengths = gradient ? 5 : 3;
  TRY(infer_need_spec(f, 1, a, false)); /* b or y */
  TRY(infer_need_spec(f, 2, &state, true));
  if (gradient) {
    TRY(infer_need_spec(f, 3, a, true));
    TRY(infer_need_spec(f, 4, &state, true));
  }
  if (in(f, lengths))
    TRY(infer_lengths_of(f, lengths, a, 1));
  f->out[0] = *a;
  f->out[1] = gradient ? *a : state;
  if (gradient)
    f->out[2] = state;
  return UNROLL_OK;
}

static unroll_status norm_attr(inference *f) {
  const unroll_layer_norm_attr *a = &f->attr->layer_norm;
  if (!(a->epsilon >= 0) || !isfinite(a->epsilon))
    return fail(f->err, UNROLL_E_RANGE, "epsilon is %g, expected a finite number from 0 on", a->epsilon);
  return UNROLL_OK;
}

/* first: of the inputs that sums start from, as wide as a row of like. */
static unroll_status norm_sums(inference *f, uint32_t first, const tensor_spec *row) {
  const unroll_layer_norm_attr *a = &f->attr->layer_norm;
  if (a->block < 0 || (a->block == 0 && (in(f, first) || in(f, first + 1))))
    return fail(f->err, UNROLL_E_INVALID, "blocks of %" PRId64 " indices%s", a->block,
                a->block < 0 ? "" : ", and sums that go on");
  TRY(infer_need_spec(f, first, row, true));
  return infer_need_spec(f, first + 1, row, true);
}

unroll_status infer_layer_norm(inference *f, bool gradient) {
  TRY(norm_attr(f));
  TRY(infer_need_real(f, 0));
  TRY(infer_need_rank(f, 0, 1, UNROLL_MAX_RANK));
  const tensor_spec *x = in(f, 0), row = spec1(x->dtype, x->shape[x->rank - 1]);
  if (x->dim[x->rank - 1] >= 0)
    return fail(f->err, UNROLL_E_UNSUPPORTED, "%s: a row of run-time size", describe(f, 0, 0));
  TRY(infer_need_spec(f, 1, &row, false));
  f->out[0] = *x;
  if (!gradient)
    return infer_need_spec(f, 2, in(f, 2) && in(f, 2)->rank == 1 ? &row : x, true);
  TRY(infer_need_spec(f, 2, x, false));
  TRY(norm_sums(f, 3, &row));
  f->out[1] = f->out[2] = row;
  return UNROLL_OK;
}

/* Of an lstm's gates with the norm of c: gain and shift behind the other inputs, and their gradients. */
static unroll_status norm_gates(inference *f, uint32_t n_in, uint32_t n_out, int64_t H) {
  const bool gradient = f->n_in > n_in + 2;
  const tensor_spec row = spec1(in(f, 1)->dtype, H);
  if (f->n_out != n_out + (gradient ? 2 : 0))
    return fail(f->err, UNROLL_E_INVALID, "%u outputs, expected %u", f->n_out, n_out + (gradient ? 2 : 0));
  TRY(norm_attr(f));
  TRY(infer_need_spec(f, n_in, &row, false));
  TRY(infer_need_spec(f, n_in + 1, &row, false));
  if (!gradient)
    return UNROLL_OK;
  f->out[n_out] = f->out[n_out + 1] = row;
  return norm_sums(f, n_in + 2, &row);
}

/* H from a tensor [B,H]; its B and dtype are what the other inputs are held against. */
unroll_status infer_gates(inference *f, uint32_t op) {
  static const struct {
    uint8_t h_input, n_in, in[6], optional, n_out, out[3]; /* blocks of H in each input and output */
  } table[] = {
      [UNROLL_OP_LSTM_GATES] = {1, 2, {4, 1}, 0, 3, {1, 1, 4}},
      [UNROLL_OP_LSTM_GATES_GRAD] = {1, 4, {4, 1, 1, 1}, 0xC, 2, {4, 1}},
      [UNROLL_OP_GRU_AFTER_GATES] = {2, 3, {3, 3, 1}, 0, 2, {1, 4}},
      [UNROLL_OP_GRU_AFTER_GATES_GRAD] = {1, 3, {4, 1, 1}, 0, 3, {3, 3, 1}},
      [UNROLL_OP_GRU_RESET] = {1, 2, {2, 1}, 0, 2, {2, 1}},
      [UNROLL_OP_GRU_RESET_GRAD] = {1, 4, {2, 1, 2, 1}, 0xC, 2, {2, 1}},
      [UNROLL_OP_GRU_UPDATE] = {2, 3, {1, 2, 1}, 0, 2, {1, 1}},
      [UNROLL_OP_GRU_UPDATE_GRAD] = {2, 4, {2, 1, 1, 1}, 0, 3, {1, 2, 1}},
  };
  const uint32_t h_input = table[op].h_input;
  TRY(infer_need_real(f, h_input));
  TRY(infer_need_rank(f, h_input, 2, UNROLL_MAX_RANK));
  const tensor_spec *s = in(f, h_input);
  const int64_t H = s->shape[s->rank - 1];
  const bool normed = (op == UNROLL_OP_LSTM_GATES && f->n_in == 4) || (op == UNROLL_OP_LSTM_GATES_GRAD && f->n_in == 8);
  const uint32_t n_in = table[op].n_in, n_out = table[op].n_out;
  if (normed)
    TRY(norm_gates(f, n_in, n_out, H));
  else if (f->n_in != n_in || f->n_out != n_out)
    return fail(f->err, UNROLL_E_INVALID, "%u inputs and %u outputs, expected %u and %u", f->n_in, f->n_out, n_in,
                n_out);
  for (uint32_t i = 0; i < n_in; i++) {
    const tensor_spec want = with_last(s, H * table[op].in[i]);
    TRY(infer_need_spec(f, i, &want, table[op].optional >> i & 1u));
  }
  for (uint32_t i = 0; i < n_out; i++)
    f->out[i] = with_last(s, H * table[op].out[i]);
  return UNROLL_OK;
}

static const char *cell_name(int32_t cell) {
  switch (cell) {
#define CASE(code, value, text) \
  case code: return text;
    UNROLL_CELLS(CASE)
#undef CASE
  default: return "?";
  }
}

/* What layer and layer_grad have in common: weights against x. wx is the index of W_x, b_n of the inner bias. */
static unroll_status layer_weights(inference *f, int64_t *H, const tensor_spec **x) {
  const unroll_layer_attr *l = &f->attr->layer;
  if (l->cell <= UNROLL_CELL_NONE || l->cell >= UNROLL_CELL_COUNT)
    return fail(f->err, UNROLL_E_INVALID, "%d is no standard cell", l->cell);
  TRY(scan_direction(f, l->direction));
  if (l->cell == UNROLL_CELL_RNN && l->activation != UNROLL_TANH && l->activation != UNROLL_RELU &&
      l->activation != UNROLL_SIGMOID)
    return fail(f->err, UNROLL_E_INVALID,
                "activation %d of an rnn, expected UNROLL_TANH, UNROLL_RELU or UNROLL_SIGMOID", l->activation);
  TRY(infer_need_real(f, 0));
  TRY(infer_need_rank(f, 0, 3, 3));
  TRY(infer_need_real(f, 2));
  TRY(infer_need_rank(f, 2, 2, 2));
  *x = in(f, 0);
  *H = in(f, 2)->shape[1];
  const int64_t G = layer_gates(l->cell), I = (*x)->shape[2];
  if (in(f, 2)->shape[0] != G * *H)
    return fail(f->err, UNROLL_E_SHAPE,
                "W_h is %s, expected %" PRId64 " rows: %" PRId64 " gates of a %s times %" PRId64 " units",
                describe(f, 2, 0), G * *H, G, cell_name(l->cell), *H);
  const tensor_spec wx = graph_make_spec((*x)->dtype, 2, (int64_t[]){G * *H, I}), b = spec1((*x)->dtype, G * *H),
                    bn = spec1((*x)->dtype, *H);
  TRY(infer_need_spec(f, 1, &wx, false));
  TRY(infer_need_spec(f, 3, &b, false));
  if (l->cell != UNROLL_CELL_GRU_AFTER && in(f, 4))
    return fail(f->err, UNROLL_E_INVALID, "input 4, the inner bias, is %s; only a gru_after has one",
                describe(f, 4, 0));
  return infer_need_spec(f, 4, &bn, l->cell != UNROLL_CELL_GRU_AFTER);
}

/* h_mask, keep_h and keep_c, inputs first and on. */
static unroll_status layer_masks(inference *f, uint32_t first, const tensor_spec *state, const tensor_spec *y) {
  static const char *const names[] = {"keep_h", "keep_c"};
  TRY(infer_need_spec(f, first, state, true));
  for (uint32_t i = 0; i < 2; i++) {
    const tensor_spec *k = in(f, first + 1 + i);
    if (!k)
      continue;
    if (i == 1 && f->attr->layer.cell != UNROLL_CELL_LSTM)
      return fail(f->err, UNROLL_E_INVALID, "input %u, keep_c, is %s; only an lstm has one", first + 1 + i,
                  describe(f, first + 1 + i, 0));
    if (k->dtype != UNROLL_BOOL && k->dtype != state->dtype)
      return fail(f->err, UNROLL_E_DTYPE, "input %u, %s, is %s, expected bool or %s", first + 1 + i, names[i],
                  describe(f, first + 1 + i, 0), unroll_dtype_name(state->dtype));
    const tensor_spec of_steps = with_dtype(y, k->dtype), once = with_dtype(state, k->dtype);
    TRY(infer_need_spec(f, first + 1 + i, k->rank == state->rank ? &once : &of_steps, false));
  }
  return UNROLL_OK;
}

unroll_status infer_layer(inference *f) {
  int64_t H;
  const tensor_spec *x;
  TRY(layer_weights(f, &H, &x));
  const int32_t cell = f->attr->layer.cell;
  const tensor_spec state = graph_make_spec(x->dtype, 2, (int64_t[]){x->shape[1], H});
  TRY(infer_need_spec(f, 5, &state, false));
  if (cell != UNROLL_CELL_LSTM && in(f, 6))
    return fail(f->err, UNROLL_E_INVALID, "input 6, c0, is %s; only an lstm has one", describe(f, 6, 0));
  TRY(infer_need_spec(f, 6, &state, cell != UNROLL_CELL_LSTM));
  if (in(f, 7))
    TRY(infer_lengths_of(f, 7, x, 1));
  f->out[0] = prepend_axis_of(&state, x);
  f->out[1] = f->out[2] = state;
  TRY(layer_masks(f, 8, &state, &f->out[0]));
  for (uint32_t i = 0; i < 4; i++)
    f->out[3 + i] = with_last(&f->out[0], H * (layer_saved_blocks(cell, i) ? layer_saved_blocks(cell, i) : 1));
  return UNROLL_OK;
}

unroll_status infer_layer_grad(inference *f) {
  int64_t H;
  const tensor_spec *x;
  TRY(layer_weights(f, &H, &x));
  const int32_t cell = f->attr->layer.cell;
  const tensor_spec state = graph_make_spec(x->dtype, 2, (int64_t[]){x->shape[1], H}), y = prepend_axis_of(&state, x);
  if (in(f, 5))
    TRY(infer_lengths_of(f, 5, x, 1));
  const bool reserve = in(f, 6) && in(f, 6)->dtype == UNROLL_U8; /* opaque, in place of all saved values */
  for (uint32_t i = 0; !reserve && i < 4; i++) {
    const int64_t blocks = layer_saved_blocks(cell, i);
    const tensor_spec want = with_last(&y, H * (blocks ? blocks : 1));
    TRY(infer_need_spec(f, 6 + i, &want, blocks == 0));
  }
  for (uint32_t i = 7; reserve && i < 10; i++)
    if (in(f, i))
      return fail(f->err, UNROLL_E_INVALID, "input %u is %s, beside a reserve", i, describe(f, i, 0));
  TRY(infer_need_spec(f, 10, &y, true));
  TRY(infer_need_spec(f, 11, &state, true));
  TRY(infer_need_spec(f, 12, &state, true));
  const tensor_spec inner = spec1(x->dtype, H);
  for (uint32_t i = 0; i < 3; i++)
    TRY(infer_need_spec(f, 13 + i, in(f, 1 + i), true));
  TRY(infer_need_spec(f, 16, &inner, true));
  TRY(layer_masks(f, 17, &state, &y));
  f->out[0] = *x;
  for (uint32_t i = 1; i <= 3; i++)
    f->out[i] = *in(f, i);
  f->out[4] = spec1(x->dtype, H);
  f->out[5] = f->out[6] = state;
  return UNROLL_OK;
}
