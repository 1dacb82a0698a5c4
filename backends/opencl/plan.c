/* SPDX-License-Identifier: Apache-2.0 */
/* plan.c: the list of launches that a group becomes: growing it, and which function plans which op. */
#include "opencl.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const unroll_tensor_view *graph_tensor(const unroll_graph_view *g, uint32_t tensor) {
  return (const unroll_tensor_view *)((const char *)g->tensors + (size_t)tensor * g->tensor_stride);
}

const unroll_node_view *graph_node(const unroll_graph_view *g, uint32_t node) {
  return (const unroll_node_view *)((const char *)g->nodes + (size_t)node * g->node_stride);
}

uint32_t plan_in(const plan *p, uint32_t i) {
  return i < p->node->n_in ? p->graph->edges[p->node->first_in + i] : UNROLL_NO_TENSOR;
}

uint32_t plan_out(const plan *p, uint32_t i) {
  return i < p->node->n_out ? p->graph->edges[p->node->first_out + i] : UNROLL_NO_TENSOR;
}

operand operand_of(uint32_t tensor) { return (operand){ARG_MEM, tensor, 0}; }

operand operand_after(operand o, uint64_t bytes) {
  o.at += bytes;
  return o;
}

const unroll_tensor_view *plan_view(const plan *p, uint32_t tensor) { return graph_tensor(p->graph, tensor); }

size_t dtype_bytes(int32_t dtype) {
  static const uint8_t bytes[UNROLL_DTYPE_COUNT] = {
#define BYTES(name, value, text, size) [value] = (size),
      UNROLL_DTYPES(BYTES)
#undef BYTES
  };
  return dtype >= 0 && dtype < UNROLL_DTYPE_COUNT ? bytes[dtype] : 0;
}

const char *dtype_c(int32_t dtype) {
  switch (dtype) {
  case UNROLL_F64: return "double";
  case UNROLL_F32: return "float";
  case UNROLL_F16: return "half";
  case UNROLL_I64: return "long";
  case UNROLL_I32: return "int";
  default: return "uchar";
  }
}

bool plan_real(const plan *p, int32_t dtype) {
  return dtype == UNROLL_F32 || (dtype == UNROLL_F64 && p->device->entry->fp64);
}

int32_t plan_panels(const plan *p, int32_t dtype) {
  return dtype == UNROLL_F32 && p->device->precision == PRECISION_HALF ? UNROLL_F16 : dtype;
}

bool plan_number(const plan *p, int32_t dtype) {
  return plan_real(p, dtype) || dtype == UNROLL_I32 || dtype == UNROLL_I64;
}

uint32_t plan_width(const plan *p, int32_t dtype) {
  return dtype_bytes(dtype) == 8 ? p->device->width64 : p->device->width32;
}

/* The extent of one axis: with a run-time size only along axis 0, in proportion to it. */
extent plan_axis(const plan *p, uint32_t id, int32_t axis) {
  const unroll_tensor_view *t = plan_view(p, id);
  const int32_t dim = t->dim[axis];
  if (dim < 0)
    return (extent){t->shape[axis], -1};
  return (extent){t->shape[axis] / p->graph->dim_max[dim], dim};
}

extent plan_axes(const plan *p, uint32_t id, int32_t from, int32_t to) {
  extent e = {1, -1};
  for (int32_t i = from; i < to; i++) {
    const extent axis = plan_axis(p, id, i);
    e.per *= axis.per;
    if (axis.dim >= 0)
      e.dim = axis.dim;
  }
  return e;
}

int64_t extent_max(const plan *p, extent e) { return e.dim < 0 ? e.per : e.per * p->graph->dim_max[e.dim]; }

unroll_status(plan_decline)(plan *p, const char *format, ...) {
  char why[160];
  va_list list;
  va_start(list, format);
  vsnprintf(why, sizeof why, format, list);
  va_end(list);
  return opencl_fail(&p->error, UNROLL_E_UNSUPPORTED, 0, "opencl: %s: %s", p->node->name, why);
}

static void out_of_memory(plan *p) {
  if (p->status == UNROLL_OK)
    p->status = opencl_fail(&p->error, UNROLL_E_MEMORY, 0, "opencl: %s: no memory to plan it", p->node->name);
}

/* Room for one more element of an array of the plan. */
static bool grow(plan *p, void **array, uint32_t n, uint32_t *room, size_t size) {
  if (p->status != UNROLL_OK)
    return false;
  if (n < *room)
    return true;
  const uint32_t more = *room ? 2 * *room : 32;
  void *data = opencl_alloc(p->device->host, more, size);
  if (!data) {
    out_of_memory(p);
    return false;
  }
  if (n)
    memcpy(data, *array, n * size);
  opencl_free(p->device->host, *array);
  *array = data;
  *room = more;
  return true;
}

static uint32_t add_extent(plan *p, extent e) {
  void *array = p->extents;
  if (!grow(p, &array, p->n_extents, &p->room_extents, sizeof e))
    return 0;
  p->extents = array;
  p->extents[p->n_extents] = e;
  return p->n_extents++;
}

static launch *last(plan *p) {
  return p->status == UNROLL_OK && p->n_launches ? &p->launches[p->n_launches - 1] : NULL;
}

launch *plan_launch(plan *p, const char *source, const char *kernel, const char *options, ...) {
  char text[512];
  va_list list;
  va_start(list, options);
  const int n = vsnprintf(text, sizeof text, options, list);
  va_end(list);
  void *array = p->launches;
  if (n < 0 || (size_t)n >= sizeof text || !grow(p, &array, p->n_launches, &p->room_launches, sizeof *p->launches)) {
    out_of_memory(p);
    return &p->nowhere;
  }
  p->launches = array;
  launch *l = &p->launches[p->n_launches];
  *l = (launch){.source = source,
                .kernel = kernel,
                .name = p->node->name,
                .node = p->node_index,
                .times = 1,
                .cached = UNROLL_NO_TENSOR,
                .group = p->device->group,
                .first_arg = p->n_args};
  l->options = opencl_copy_text(p->device->host, text);
  p->n_launches++;
  if (!l->options)
    out_of_memory(p);
  return l;
}

void plan_items(plan *p, extent e, int64_t divisor) {
  const uint32_t at = add_extent(p, e);
  launch *l = last(p);
  if (!l)
    return;
  l->term[l->n_terms].first = at;
  l->term[l->n_terms].n = 1;
  l->term[l->n_terms++].divisor = divisor;
}

void plan_elements(plan *p, uint32_t tensor, int64_t divisor) {
  plan_items(p, plan_axes(p, tensor, 0, plan_view(p, tensor)->rank), divisor);
}

static launch_arg *add_arg(plan *p, arg_kind kind) {
  void *array = p->args;
  launch *l = last(p);
  if (!l || !grow(p, &array, p->n_args, &p->room_args, sizeof *p->args))
    return NULL;
  p->args = array;
  launch_arg *a = &p->args[p->n_args++];
  *a = (launch_arg){.kind = kind, .tensor = UNROLL_NO_TENSOR};
  l->n_args++;
  return a;
}

void arg_kind_of(plan *p, arg_kind kind, int64_t value) {
  launch_arg *a = add_arg(p, kind);
  if (a)
    a->value = value;
}

void arg_window(plan *p, uint32_t id, int64_t elements, const extent *more, uint32_t n) {
  launch_arg *a = add_arg(p, ARG_MEM);
  if (a)
    a->tensor = id;
  a = add_arg(p, ARG_AT);
  if (!a)
    return;
  a->tensor = id;
  a->extra = elements;
  if (id != UNROLL_NO_TENSOR)
    a->bytes = (uint32_t)dtype_bytes(plan_view(p, id)->dtype);
  a->first_extent = p->n_extents;
  a->n_extents = n;
  for (uint32_t i = 0; i < n; i++)
    add_extent(p, more[i]);
}

void arg_tensor(plan *p, uint32_t id) { arg_window(p, id, 0, NULL, 0); }

void arg_operand(plan *p, operand o, int32_t dtype) {
  const uint32_t size = (uint32_t)dtype_bytes(dtype), bytes = size ? size : 1; /* else a uchar, as in dtype_c */
  if (o.mem == ARG_MEM) {
    const uint32_t first = p->n_args;
    arg_window(p, o.tensor, (int64_t)(o.at / bytes), NULL, 0);
    if (p->status == UNROLL_OK && first + 2 == p->n_args)
      p->args[first + 1].bytes = bytes;
    return;
  }
  add_arg(p, o.mem);
  launch_arg *a = add_arg(p, o.mem == ARG_SCRATCH ? ARG_SCRATCH_AT : ARG_PACKED_AT);
  if (a) {
    a->value = (int64_t)o.at;
    a->bytes = bytes;
  }
}

void arg_claims(plan *p) {
  add_arg(p, ARG_CLAIMS);
  arg_kind_of(p, ARG_LONG, (int64_t)(p->claims / sizeof(cl_int)));
  p->claims += OPENCL_ALIGNMENT;
}

void arg_long(plan *p, int64_t value) { arg_kind_of(p, ARG_LONG, value); }
void arg_uint(plan *p, uint32_t value) { arg_kind_of(p, ARG_UINT, value); }

void arg_blocks(plan *p, extent e, int64_t block) {
  launch_arg *a = add_arg(p, ARG_EXTENT);
  const uint32_t at = add_extent(p, e);
  if (a && p->status == UNROLL_OK) {
    a->first_extent = at;
    a->n_extents = 1;
    a->value = block;
  }
}

void arg_extent(plan *p, extent e) { arg_blocks(p, e, 1); }

void arg_bytes(plan *p, const void *data, uint32_t n) {
  launch_arg *a = add_arg(p, ARG_BYTES);
  if (!a)
    return;
  a->data = opencl_alloc(p->device->host, n, 1);
  a->bytes = n;
  if (a->data)
    memcpy(a->data, data, n);
  else
    out_of_memory(p);
}

void arg_real(plan *p, int32_t dtype, double value) {
  const float narrow = (float)value;
  if (dtype == UNROLL_F64)
    arg_bytes(p, &value, sizeof value);
  else
    arg_bytes(p, &narrow, sizeof narrow);
}

static uint64_t aligned(uint64_t bytes) { return (bytes + OPENCL_ALIGNMENT - 1) / OPENCL_ALIGNMENT * OPENCL_ALIGNMENT; }

operand plan_scratch(plan *p, uint64_t bytes) {
  const operand o = {ARG_SCRATCH, UNROLL_NO_TENSOR, p->node_workspace};
  p->node_workspace += aligned(bytes);
  if (p->workspace < p->node_workspace)
    p->workspace = p->node_workspace;
  return o;
}

operand plan_packed(plan *p, uint64_t bytes) {
  const operand o = {ARG_PACKED, UNROLL_NO_TENSOR, p->packed};
  p->packed += aligned(bytes);
  return o;
}

void plan_loop(plan *p, extent steps, int64_t extra, int64_t chunk) {
  void *array = p->loops;
  if (!grow(p, &array, p->n_loops, &p->room_loops, sizeof *p->loops))
    return;
  p->loops = array;
  const bool instead = p->n_loops && p->loops[p->n_loops - 1].kind == LOOP_PERSISTENT;
  p->loops[p->n_loops++] = (time_loop){steps, extra, chunk, instead ? LOOP_INSTEAD : LOOP_PLAIN, 0};
}

void plan_persistent_loop(plan *p, extent steps, int64_t extra, int64_t chunk) {
  plan_loop(p, steps, extra, chunk);
  if (p->status == UNROLL_OK)
    p->loops[p->n_loops - 1].kind = LOOP_PERSISTENT;
}

void arg_meeting(plan *p) {
  if (p->status == UNROLL_OK)
    p->loops[p->n_loops - 1].meeting = p->claims;
  arg_claims(p);
  arg_uint(p, persistent_spins(p->device));
}

void plan_in_loop(plan *p) {
  launch *l = last(p);
  if (l)
    l->loop = p->n_loops;
}

/* ---- which function plans which op, how large its attributes are at least, which edges must be there ---- */
static const struct {
  unroll_status (*plan)(plan *p);
  uint32_t attr_size;
  uint32_t inputs; /* bit mask */
  uint32_t outputs;
} families[UNROLL_OP_END] = {
    [UNROLL_OP_MATMUL] = {plan_matmul, UNROLL_SIZE_TO(unroll_matmul_attr, trans_b), 0x3, 1},
    [UNROLL_OP_UNARY] = {plan_unary, UNROLL_SIZE_TO(unroll_unary_attr, reserved), 0x1, 1},
    [UNROLL_OP_BINARY] = {plan_binary, UNROLL_SIZE_TO(unroll_binary_attr, reserved), 0x3, 1},
    [UNROLL_OP_REDUCE] = {plan_reduce, UNROLL_SIZE_TO(unroll_reduce_attr, reserved), 0x1, 1},
    [UNROLL_OP_SOFTMAX] = {plan_softmax, 0, 0x1, 1},
    [UNROLL_OP_LOG_SOFTMAX] = {plan_softmax, 0, 0x1, 1},
    [UNROLL_OP_CROSS_ENTROPY] = {plan_cross_entropy, 0, 0x3, 1},
    [UNROLL_OP_CROSS_ENTROPY_GRAD] = {plan_cross_entropy_grad, 0, 0x7, 1},
    [UNROLL_OP_EMBEDDING] = {plan_embedding, 0, 0x3, 1},
    [UNROLL_OP_EMBEDDING_GRAD] = {plan_embedding_grad, 0, 0x3, 1},
    [UNROLL_OP_SLICE] = {plan_slice, UNROLL_SIZE_TO(unroll_slice_attr, start), 0x1, 1},
    [UNROLL_OP_PAD] = {plan_pad, UNROLL_SIZE_TO(unroll_pad_attr, after), 0x1, 1},
    [UNROLL_OP_CONCAT] = {plan_concat, UNROLL_SIZE_TO(unroll_axis_attr, reserved), 0x1, 1},
    [UNROLL_OP_TRANSPOSE] = {plan_transpose, UNROLL_SIZE_TO(unroll_transpose_attr, perm), 0x1, 1},
    [UNROLL_OP_RESHAPE] = {plan_reshape, 0, 0x1, 1},
    [UNROLL_OP_REVERSE] = {plan_reverse, 0, 0x3, 1},
    [UNROLL_OP_SELECT] = {plan_select, 0, 0x7, 1},
    [UNROLL_OP_CAST] = {plan_cast, 0, 0x1, 1},
    [UNROLL_OP_CONSTANT] = {plan_constant, UNROLL_SIZE_TO(unroll_constant_attr, value), 0x0, 1},
    [UNROLL_OP_DROPOUT] = {plan_dropout, UNROLL_SIZE_TO(unroll_dropout_attr, time_axis), 0x1, 1},
    [UNROLL_OP_ARGMAX] = {plan_argmax, 0, 0x1, 1},
    [UNROLL_OP_CATEGORICAL] = {plan_categorical, UNROLL_SIZE_TO(unroll_categorical_attr, top_k), 0x1, 1},
    [UNROLL_OP_RANDOM] = {plan_random, UNROLL_SIZE_TO(unroll_random_attr, site), 0x0, 1},
    [UNROLL_OP_GATHER] = {plan_gather, 0, 0x3, 1},
    [UNROLL_OP_GATHER_GRAD] = {plan_gather_grad, 0, 0x3, 1},
    [UNROLL_OP_TOP_K] = {plan_top_k, UNROLL_SIZE_TO(unroll_top_k_attr, k), 0x1, 0},
    [UNROLL_OP_LINEAR_SCAN] = {plan_linear_scan, UNROLL_SIZE_TO(unroll_linear_scan_attr, direction), 0x3, 0},
    [UNROLL_OP_LINEAR_SCAN_GRAD] = {plan_linear_scan_grad, UNROLL_SIZE_TO(unroll_linear_scan_attr, direction), 0x3, 0},
    [UNROLL_OP_LAYER_NORM] = {plan_layer_norm, UNROLL_SIZE_TO(unroll_layer_norm_attr, epsilon), 0x3, 1},
    [UNROLL_OP_LAYER_NORM_GRAD] = {plan_layer_norm_grad, UNROLL_SIZE_TO(unroll_layer_norm_attr, block_order), 0x7, 0},
    [UNROLL_OP_LENGTH_MASK] = {plan_length_mask, UNROLL_SIZE_TO(unroll_length_mask_attr, invert), 0x5, 1},
    [UNROLL_OP_OPTIMIZER] = {plan_optimizer, UNROLL_SIZE_TO(unroll_optimizer_attr, weight_decay), 0xf, 0},
    [UNROLL_OP_LAYER] = {plan_layer, UNROLL_SIZE_TO(unroll_layer_attr, activation), 0x2f, 0},
    [UNROLL_OP_LAYER_GRAD] = {plan_layer_grad, UNROLL_SIZE_TO(unroll_layer_attr, activation), 0xf, 0},
    [UNROLL_OP_LSTM_GATES] = {plan_gates, 0, 0x3, 0},
    [UNROLL_OP_LSTM_GATES_GRAD] = {plan_gates, 0, 0x3, 0},
    [UNROLL_OP_GRU_AFTER_GATES] = {plan_gates, 0, 0x7, 0},
    [UNROLL_OP_GRU_AFTER_GATES_GRAD] = {plan_gates, 0, 0x7, 0},
    [UNROLL_OP_GRU_RESET] = {plan_gates, 0, 0x3, 0},
    [UNROLL_OP_GRU_RESET_GRAD] = {plan_gates, 0, 0x3, 0},
    [UNROLL_OP_GRU_UPDATE] = {plan_gates, 0, 0x7, 0},
    [UNROLL_OP_GRU_UPDATE_GRAD] = {plan_gates, 0, 0xf, 0},
};

/* Of the attributes of a version above 1; 0: the op has no such version. */
static uint32_t newer_size(uint32_t op, uint32_t version) {
  switch (op) {
  case UNROLL_OP_REDUCE: return version == 2 ? UNROLL_SIZE_TO(unroll_reduce_attr, block_order) : 0;
  case UNROLL_OP_DROPOUT: return version == 2 ? UNROLL_SIZE_TO(unroll_dropout_attr, t0) : 0;
  case UNROLL_OP_CATEGORICAL: return version == 2 ? UNROLL_SIZE_TO(unroll_categorical_attr, top_p) : 0;
  case UNROLL_OP_LAYER: return version == 2 ? UNROLL_SIZE_TO(unroll_layer_attr, segment) : 0;
  case UNROLL_OP_LAYER_GRAD: return version <= 3 ? UNROLL_SIZE_TO(unroll_layer_attr, segment) : 0;
  case UNROLL_OP_LSTM_GATES: return version == 2 ? UNROLL_SIZE_TO(unroll_layer_norm_attr, epsilon) : 0;
  case UNROLL_OP_LSTM_GATES_GRAD: return version == 2 ? UNROLL_SIZE_TO(unroll_layer_norm_attr, block_order) : 0;
  default: return 0;
  }
}

unroll_status plan_node(plan *p, uint32_t node) {
  p->node = graph_node(p->graph, node);
  p->node_index = node;
  p->node_workspace = 0;
  const uint32_t op = p->node->op;
  if (op >= UNROLL_OP_END || !families[op].plan)
    return plan_decline(p, "op %u has no kernel", op);
  const uint32_t version = p->node->op_version;
  const uint32_t attr_size = version > 1 ? newer_size(op, version) : families[op].attr_size;
  if (version > 1 && attr_size == 0)
    return plan_decline(p, "op %u of version %u", op, version);
  if (p->node->attr_size < attr_size)
    return opencl_fail(&p->error, UNROLL_E_GRAPH, 0, "opencl: %s: %u bytes of attributes, expected %u", p->node->name,
                       p->node->attr_size, attr_size);
  for (uint32_t i = 0; i < 32; i++)
    if ((families[op].inputs >> i & 1u && plan_in(p, i) == UNROLL_NO_TENSOR) ||
        (i < families[op].outputs && plan_out(p, i) == UNROLL_NO_TENSOR))
      return plan_decline(p, "edge %u is absent", i);
  if (plan_is_joined(p, node))
    return UNROLL_OK;
  const unroll_status status = families[op].plan(p);
  return p->status != UNROLL_OK ? p->status : status;
}

void plan_free(plan *p) {
  const unroll_host *host = p->device->host;
  for (uint32_t i = 0; i < p->n_launches; i++) {
    opencl_free(host, p->launches[i].options);
    opencl_free(host, p->launches[i].product);
  }
  for (uint32_t i = 0; i < p->n_args; i++)
    opencl_free(host, p->args[i].data);
  opencl_free(host, p->launches);
  opencl_free(host, p->args);
  opencl_free(host, p->extents);
  opencl_free(host, p->loops);
  opencl_free(host, p->flights);
}
