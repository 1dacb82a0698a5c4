/* SPDX-License-Identifier: Apache-2.0 */
/* One node that a plugin claims, its data, and its right results in f64 by the formulas of <unroll/plugin.h>. */
#include "conform/abi_rig.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { UNWRITTEN = 0xFF, LAYER_STEPS = 6 };

/* ---- the view ---- */
static void add_tensor(struct abi_work *w, const char *name, int32_t role, int32_t rank, const int64_t *shape) {
  unroll_tensor_view *t = &w->tensors[w->n_tensors];
  *t = (unroll_tensor_view){
      .dtype = w->dtype, .rank = rank, .role = role, .slot = UNROLL_NO_SLOT, .alias = -1, .name = name};
  int64_t stride = 1;
  for (int32_t a = UNROLL_MAX_RANK; a-- > 0;) {
    t->shape[a] = a < rank ? shape[a] : 1;
    t->stride[a] = a < rank ? stride : 0;
    t->dim[a] = -1;
    stride *= t->shape[a];
  }
  w->bytes[w->n_tensors] = (uint64_t)stride * unroll_dtype_size(w->dtype);
  w->at[w->n_tensors] = w->total;
  w->total += w->bytes[w->n_tensors];
  if (role != UNROLL_ROLE_OUTPUT)
    w->n_in++;
  w->n_tensors++;
}

static void add_layer(struct abi_work *w) {
  const int64_t T = w->rows, B = w->inner, H = w->columns, G = w->kind == ABI_LSTM ? 4 : 1;
  add_tensor(w, "x", UNROLL_ROLE_INPUT, 3, (int64_t[]){T, B, H});
  add_tensor(w, "W_x", UNROLL_ROLE_PARAM, 2, (int64_t[]){G * H, H});
  add_tensor(w, "W_h", UNROLL_ROLE_PARAM, 2, (int64_t[]){G * H, H});
  add_tensor(w, "b", UNROLL_ROLE_PARAM, 1, (int64_t[]){G * H});
  add_tensor(w, "h0", UNROLL_ROLE_INPUT, 2, (int64_t[]){B, H});
  if (w->kind == ABI_LSTM)
    add_tensor(w, "c0", UNROLL_ROLE_INPUT, 2, (int64_t[]){B, H});
  add_tensor(w, "y", UNROLL_ROLE_OUTPUT, 3, (int64_t[]){T, B, H});
  add_tensor(w, "h_last", UNROLL_ROLE_OUTPUT, 2, (int64_t[]){B, H});
  if (w->kind == ABI_LSTM)
    add_tensor(w, "c_last", UNROLL_ROLE_OUTPUT, 2, (int64_t[]){B, H});
  w->attr.layer.cell = w->kind == ABI_LSTM ? UNROLL_CELL_LSTM : UNROLL_CELL_RNN;
  w->attr.layer.activation = UNROLL_TANH;
}

/* Which tensor each edge of the node is: inputs, then outputs, which are numbered on from the inputs. */
static void add_edges(struct abi_work *w) {
  static const uint32_t none = UNROLL_NO_TENSOR;
  const uint32_t rnn[] = {0, 1, 2, 3, none, 4, none, none, 5, 6, none, none, none, none, none};
  const uint32_t lstm[] = {0, 1, 2, 3, none, 4, 5, none, 6, 7, 8, none, none, none, none};
  const bool is_layer = w->kind == ABI_RNN || w->kind == ABI_LSTM;
  unroll_node_view *n = &w->node;
  n->n_in = is_layer ? 8 : w->n_in;
  n->n_out = is_layer ? 7 : 1;
  n->first_out = n->n_in;
  for (uint32_t i = 0; i < n->n_in + n->n_out; i++)
    w->edges[i] = w->kind == ABI_LSTM ? lstm[i] : is_layer ? rnn[i] : i;
  unroll_graph_view *v = &w->view;
  v->first_in = n->n_in + n->n_out;
  v->n_in = w->n_in;
  v->first_out = v->first_in + v->n_in;
  v->n_out = w->n_tensors - w->n_in;
  v->n_edges = v->first_out + v->n_out;
  for (uint32_t i = 0; i < w->n_tensors; i++)
    w->edges[v->first_in + i] = i;
}

void abi_work_make(struct abi_work *w, enum abi_kind kind, int32_t dtype, int64_t size, bool is_dynamic) {
  static const struct {
    const char *name;
    uint32_t op, attr_size;
  } kinds[ABI_KINDS] = {{"matmul", UNROLL_OP_MATMUL, sizeof(unroll_matmul_attr)},
                        {"binary add", UNROLL_OP_BINARY, sizeof(unroll_binary_attr)},
                        {"unary tanh", UNROLL_OP_UNARY, sizeof(unroll_unary_attr)},
                        {"rnn layer", UNROLL_OP_LAYER, sizeof(unroll_layer_attr)},
                        {"lstm layer", UNROLL_OP_LAYER, sizeof(unroll_layer_attr)}};
  const bool is_layer = kind == ABI_RNN || kind == ABI_LSTM;
  *w = (struct abi_work){.name = kinds[kind].name, .kind = kind, .dtype = dtype};
  w->rows = is_layer && size > LAYER_STEPS ? LAYER_STEPS : size;
  w->columns = size;
  w->inner = is_layer ? size / 4 + 1 : size;
  const int64_t y[] = {w->rows, w->columns}, a[] = {w->rows, w->inner}, b[] = {w->inner, w->columns};
  switch (kind) {
  case ABI_MATMUL:
    add_tensor(w, "a", UNROLL_ROLE_INPUT, 2, a);
    add_tensor(w, "b", UNROLL_ROLE_PARAM, 2, b);
    break;
  case ABI_ADD:
    add_tensor(w, "a", UNROLL_ROLE_INPUT, 2, y);
    add_tensor(w, "b", UNROLL_ROLE_INPUT, 2, y);
    w->attr.binary.kind = UNROLL_ADD;
    break;
  case ABI_TANH:
    add_tensor(w, "x", UNROLL_ROLE_INPUT, 2, y);
    w->attr.unary.kind = UNROLL_TANH;
    break;
  default: add_layer(w);
  }
  if (!is_layer)
    add_tensor(w, "y", UNROLL_ROLE_OUTPUT, 2, y);
  w->node = (unroll_node_view){.op = kinds[kind].op,
                               .op_version = 1,
                               .layer = is_layer ? 0 : -1,
                               .direction = is_layer ? UNROLL_FORWARD : -1,
                               .body = UNROLL_NO_BODY,
                               .cell = UNROLL_CELL_NONE,
                               .attr = &w->attr,
                               .attr_size = kinds[kind].attr_size,
                               .name = kinds[kind].name};
  w->view = (unroll_graph_view){.struct_size = sizeof w->view,
                                .node_stride = sizeof w->node,
                                .tensor_stride = sizeof *w->tensors,
                                .n_nodes = 1,
                                .n_tensors = w->n_tensors,
                                .dim_min = &w->dim_min,
                                .dim_max = &w->dim_max,
                                .nodes = &w->node,
                                .tensors = w->tensors,
                                .edges = w->edges};
  add_edges(w);
  if (!is_dynamic)
    return;
  w->view.n_dims = 1;
  w->dim_min = 1;
  w->dim_max = w->rows;
  /* The first input's rows, and the first output's; of an addition those of both inputs. */
  w->tensors[0].dim[0] = w->tensors[w->n_in].dim[0] = 0;
  if (kind == ABI_ADD)
    w->tensors[1].dim[0] = 0;
}

bool abi_work_claimed(const struct abi_lane *lane, struct abi_work *w) {
  unroll_claim claim = {0};
  unroll_error err;
  abi_error_init(&err);
  w->view.n_slots = 0;
  for (uint32_t i = 0; i < w->n_tensors; i++)
    w->tensors[i].slot = UNROLL_NO_SLOT;
  const unroll_status status = lane->ops->claim(lane->device, &w->view, &claim, sizeof claim, &err);
  if (!abi_ok(lane->message, "claim", status, &err) || !claim.group)
    return false;
  if (claim.flags & UNROLL_CLAIM_FIXED_DIMS)
    w->dim_min = w->dim_max;
  w->view.n_slots = w->n_tensors;
  for (uint32_t i = 0; i < w->n_tensors; i++)
    w->tensors[i].slot = i;
  return true;
}

enum conform_outcome abi_work_choose(const struct abi_lane *lane, struct abi_work *w, int64_t size, bool is_dynamic) {
  const uint64_t has = lane->info->dtypes;
  if (!(has >> UNROLL_F32 & 1) && !(has >> UNROLL_F64 & 1)) {
    abi_fail(lane->message, "the device has neither f32 nor f64");
    return CONFORM_NO_DTYPE;
  }
  const int32_t dtype = has >> UNROLL_F32 & 1 ? UNROLL_F32 : UNROLL_F64;
  for (int kind = 0; kind < ABI_KINDS; kind++) {
    abi_work_make(w, (enum abi_kind)kind, dtype, size, is_dynamic);
    if (abi_work_claimed(lane, w))
      return CONFORM_PASSED;
    if (lane->message[0])
      return CONFORM_FAILED;
  }
  return abi_skip(lane->message, "claims none of matmul, binary add, unary tanh, an rnn and an lstm layer, in %s",
                  unroll_dtype_name(dtype));
}

/* ---- data ---- */
static double number(uint64_t seed, uint32_t tensor, uint64_t i) { /* in [0,1) */
  const uint64_t key[] = {seed, tensor, i};
  return (double)(hash64(key, sizeof key, HASH64_SEED) >> 40) * 0x1p-24;
}

static double value_at(const struct abi_work *w, const uint8_t *data, uint32_t tensor, int64_t i) {
  const uint8_t *p = data + w->at[tensor];
  float f;
  double d;
  if (w->dtype == UNROLL_F64) {
    memcpy(&d, p + (size_t)i * sizeof d, sizeof d);
    return d;
  }
  memcpy(&f, p + (size_t)i * sizeof f, sizeof f);
  return (double)f;
}

static void set_value(const struct abi_work *w, uint8_t *data, uint32_t tensor, uint64_t i, double value) {
  uint8_t *p = data + w->at[tensor];
  const float f = (float)value;
  if (w->dtype == UNROLL_F64)
    memcpy(p + i * sizeof value, &value, sizeof value);
  else
    memcpy(p + i * sizeof f, &f, sizeof f);
}

uint8_t *abi_work_data(const struct abi_lane *lane, const struct abi_work *w, uint64_t seed) {
  uint8_t *data = mem_alloc(lane->session->allocator, w->total);
  if (!data) {
    abi_fail(lane->message, "the judge has no memory for %" PRIu64 " bytes", w->total);
    return NULL;
  }
  memset(data, UNWRITTEN, w->total);
  const bool is_layer = w->kind == ABI_RNN || w->kind == ABI_LSTM;
  for (uint32_t t = 0; t < w->n_in; t++) {
    /* Not symmetric, so that sums are of the order of their terms; a layer's stay where tanh is not flat. */
    const double low = is_layer ? -1.0 : -0.5, range = 2.0;
    const bool is_weight = is_layer && w->tensors[t].rank == 2 && w->tensors[t].role == UNROLL_ROLE_PARAM;
    const double scale = is_weight ? 1.0 / sqrt((double)w->columns) : 1.0;
    const uint64_t n = w->bytes[t] / unroll_dtype_size(w->dtype);
    for (uint64_t i = 0; i < n; i++)
      set_value(w, data, t, i, (low + range * number(seed, t, i)) * scale);
  }
  return data;
}

void abi_work_free(const struct abi_lane *lane, void *data) { mem_free(lane->session->allocator, data); }

/* ---- right results ---- */
static double logistic(double x) { return 1.0 / (1.0 + exp(-x)); }

static void expect_layer(const struct abi_work *w, const uint8_t *data, int64_t steps, double *y, double *h, double *c,
                         double *pre) {
  const bool is_lstm = w->kind == ABI_LSTM;
  const int64_t B = w->inner, H = w->columns, G = is_lstm ? 4 : 1;
  for (int64_t i = 0; i < B * H; i++) {
    h[i] = value_at(w, data, 4, i);
    c[i] = is_lstm ? value_at(w, data, 5, i) : 0.0;
  }
  for (int64_t t = 0; t < steps; t++)
    for (int64_t b = 0; b < B; b++) {
      for (int64_t j = 0; j < G * H; j++) {
        double sum = value_at(w, data, 3, j);
        for (int64_t i = 0; i < H; i++)
          sum += value_at(w, data, 0, (t * B + b) * H + i) * value_at(w, data, 1, j * H + i) +
                 h[b * H + i] * value_at(w, data, 2, j * H + i);
        pre[j] = sum;
      }
      for (int64_t j = 0; j < H; j++) {
        double *state = &h[b * H + j], *cell = &c[b * H + j];
        if (is_lstm) {
          *cell = logistic(pre[H + j]) * *cell + logistic(pre[j]) * tanh(pre[2 * H + j]);
          *state = logistic(pre[3 * H + j]) * tanh(*cell);
        } else
          *state = tanh(pre[j]);
        y[(t * B + b) * H + j] = *state;
      }
    }
}

static void expect_plain(const struct abi_work *w, const uint8_t *data, int64_t rows, double *y) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < w->columns; j++) {
      const int64_t at = i * w->columns + j;
      double sum = 0.0;
      if (w->kind == ABI_ADD)
        sum = value_at(w, data, 0, at) + value_at(w, data, 1, at);
      else if (w->kind == ABI_TANH)
        sum = tanh(value_at(w, data, 0, at));
      else
        for (int64_t k = 0; k < w->inner; k++)
          sum += value_at(w, data, 0, i * w->inner + k) * value_at(w, data, 1, k * w->columns + j);
      y[at] = sum;
    }
}

/* Relative to the largest result, or to 1 for a layer: see op_case_tolerance for the terms; a layer's steps add up. */
static double tolerance_of(const struct abi_work *w) {
  const double eps = w->dtype == UNROLL_F64 ? 0x1p-52 : 0x1p-23;
  switch (w->kind) {
  case ABI_MATMUL: return eps * (1.0 + 2.0 * sqrt((double)w->inner));
  case ABI_ADD: return eps;
  case ABI_TANH: return eps * 5.0;
  default: return eps * (double)w->rows * (20.0 + 2.0 * sqrt(2.0 * (double)w->columns));
  }
}

static bool output_is(const struct abi_lane *lane, const struct abi_work *w, const uint8_t *data, uint32_t tensor,
                      const double *want, uint64_t n, const char *what) {
  double largest = w->kind == ABI_RNN || w->kind == ABI_LSTM ? 1.0 : 0.0;
  for (uint64_t i = 0; i < n; i++)
    largest = fmax(largest, fabs(want[i]));
  const double tolerance = tolerance_of(w) * largest;
  for (uint64_t i = 0; i < n; i++) {
    const double got = value_at(w, data, tensor, (int64_t)i);
    if (!(fabs(got - want[i]) <= tolerance)) {
      abi_fail(lane->message, "%s: %s: element %" PRIu64 " of %s is %.9g, expected %.9g ± %.2g", what, w->name, i,
               w->tensors[tensor].name, got, want[i], tolerance);
      return false;
    }
  }
  for (uint64_t i = n * unroll_dtype_size(w->dtype); i < w->bytes[tensor]; i++)
    if (data[w->at[tensor] + i] != UNWRITTEN) {
      abi_fail(lane->message, "%s: %s: byte %" PRIu64 " of %s, beyond this run's size, was written", what, w->name, i,
               w->tensors[tensor].name);
      return false;
    }
  return true;
}

bool abi_work_right(const struct abi_lane *lane, const struct abi_work *w, const uint8_t *data, int64_t rows,
                    const char *what) {
  const bool is_layer = w->kind == ABI_RNN || w->kind == ABI_LSTM;
  const uint64_t row = (uint64_t)(is_layer ? w->inner * w->columns : w->columns), n = (uint64_t)rows * row,
                 gates = 4 * (uint64_t)w->columns;
  double *y = mem_array(lane->session->allocator, n + 2 * row + gates + 1, sizeof *y);
  if (!y) {
    abi_fail(lane->message, "the judge has no memory for %" PRIu64 " numbers", n);
    return false;
  }
  double *h = y + n, *c = h + row;
  if (is_layer)
    expect_layer(w, data, rows, y, h, c, c + row);
  else
    expect_plain(w, data, rows, y);
  bool is_right = output_is(lane, w, data, w->n_in, y, n, what);
  for (uint32_t t = w->n_in + 1; is_right && t < w->n_tensors; t++)
    is_right = output_is(lane, w, data, t, t == w->n_in + 1 ? h : c, row, what);
  mem_free(lane->session->allocator, y);
  return is_right;
}

/* ---- bindings ---- */
bool abi_compile(const struct abi_lane *lane, const struct abi_work *w, unroll_backend_exec **exec) {
  unroll_error err;
  abi_error_init(&err);
  *exec = NULL;
  return abi_ok(lane->message, "compile", lane->ops->compile(lane->device, &w->view, NULL, 0, exec, &err), &err);
}

bool abi_make_buffers(const struct abi_lane *lane, const struct abi_work *w, struct abi_bound *b) {
  for (uint32_t i = 0; i < w->n_tensors; i++) {
    b->buffers[i] = abi_buffer(lane, NULL, w->bytes[i]);
    if (!b->buffers[i])
      return false;
  }
  return true;
}

void abi_slots(const struct abi_work *w, const struct abi_bound *b, unroll_slot slots[ABI_TENSORS]) {
  for (uint32_t i = 0; i < w->n_tensors; i++)
    slots[i] = (unroll_slot){.struct_size = sizeof *slots, .buffer = b->buffers[i], .bytes = w->bytes[i]};
}

bool abi_make_workspace(const struct abi_lane *lane, unroll_backend_exec *exec, struct abi_bound *b) {
  unroll_exec_info info = {.struct_size = sizeof info};
  unroll_error err;
  abi_error_init(&err);
  if (!abi_ok(lane->message, "exec_info", lane->ops->exec_info(exec, &info, &err), &err))
    return false;
  if (!info.workspace_bytes)
    return true;
  b->workspace = abi_buffer(lane, NULL, info.workspace_bytes);
  return b->workspace &&
         abi_ok(lane->message, "fill",
                lane->ops->fill(lane->queue, b->workspace, 0, info.workspace_bytes, UNWRITTEN, NULL, &err), &err);
}

bool abi_bind(const struct abi_lane *lane, const struct abi_work *w, unroll_backend_exec *exec, struct abi_bound *b) {
  *b = (struct abi_bound){0};
  if (!abi_make_buffers(lane, w, b) || !abi_make_workspace(lane, exec, b))
    return false;
  unroll_slot slots[ABI_TENSORS];
  unroll_error err;
  abi_error_init(&err);
  abi_slots(w, b, slots);
  return abi_ok(lane->message, "bind",
                lane->ops->bind(exec, slots, w->n_tensors, sizeof *slots, b->workspace, 0, &b->binding, &err), &err);
}

unroll_run_args abi_args(const struct abi_work *w, const int64_t *rows, const uint64_t *generations) {
  return (unroll_run_args){.struct_size = sizeof(unroll_run_args),
                           .n_dims = w->view.n_dims,
                           .dims = rows,
                           .generations = generations,
                           .count = 1};
}

bool abi_write(const struct abi_lane *lane, const struct abi_work *w, const struct abi_bound *b, const uint8_t *data) {
  unroll_error err;
  abi_error_init(&err);
  for (uint32_t i = 0; i < w->n_tensors; i++)
    if (!abi_ok(lane->message, "write",
                lane->ops->write(lane->queue, b->buffers[i], 0, data + w->at[i], w->bytes[i], NULL, &err), &err))
      return false;
  return true;
}

bool abi_read(const struct abi_lane *lane, const struct abi_work *w, const struct abi_bound *b, uint8_t *data) {
  unroll_error err;
  abi_error_init(&err);
  for (uint32_t i = w->n_in; i < w->n_tensors; i++)
    if (!abi_ok(lane->message, "read",
                lane->ops->read(lane->queue, b->buffers[i], 0, data + w->at[i], w->bytes[i], NULL, &err), &err))
      return false;
  return true;
}

bool abi_run(const struct abi_lane *lane, const struct abi_work *w, const struct abi_bound *b, uint8_t *data,
             int64_t rows, const uint64_t *generations) {
  const unroll_run_args args = abi_args(w, &rows, generations);
  unroll_error err;
  abi_error_init(&err);
  memset(data + w->at[w->n_in], UNWRITTEN, w->total - w->at[w->n_in]);
  return abi_write(lane, w, b, data) &&
         abi_ok(lane->message, "run", lane->ops->run(b->binding, lane->queue, &args, NULL, &err), &err) &&
         abi_ok(lane->message, "queue_sync", lane->ops->queue_sync(lane->queue, &err), &err) &&
         abi_read(lane, w, b, data);
}

void abi_unbind(const struct abi_lane *lane, struct abi_bound *b) {
  lane->ops->binding_destroy(b->binding);
  lane->ops->exec_destroy(b->exec);
  lane->ops->buffer_destroy(b->workspace);
  for (uint32_t i = 0; i < ABI_TENSORS; i++)
    lane->ops->buffer_destroy(b->buffers[i]);
  *b = (struct abi_bound){0};
}
