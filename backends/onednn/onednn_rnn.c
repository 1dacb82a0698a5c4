/* SPDX-License-Identifier: Apache-2.0 */
/* What a layer and its gradient have in common: shapes, descriptors, the reserve, weights and biases. */
#include "onednn.h"
#include <string.h>

int64_t onednn_rnn_block(int32_t cell, int64_t block) {
  const bool swapped = (cell == UNROLL_CELL_GRU || cell == UNROLL_CELL_GRU_AFTER) && block < 2;
  return swapped ? 1 - block : block;
}

static bool has_cell_state(const onednn_rnn *rnn) { return rnn->cell == UNROLL_CELL_LSTM; }
static uint64_t state_bytes(const onednn_rnn *rnn) { return (uint64_t)(rnn->B * rnn->H) * sizeof(float); }

/* ---- descriptors ---- */
typedef struct rnn_descs {
  dnnl_memory_desc_t x, state, W_x, W_h, bias, y;
} rnn_descs;

static unroll_status by_tag(dnnl_memory_desc_t *md, int n, const dnnl_dims_t sizes, dnnl_format_tag_t tag,
                            unroll_error *err) {
  return onednn_check(err, dnnl_memory_desc_init_by_tag(md, n, sizes, dnnl_f32, tag), "dnnl_memory_desc_init_by_tag",
                      NULL);
}

static unroll_status describe(const onednn_rnn *q, rnn_descs *d, unroll_error *err) {
  const int64_t biases = q->cell == UNROLL_CELL_GRU_AFTER ? q->G + 1 : q->G;
  TRY(by_tag(&d->x, 3, (const dnnl_dims_t){q->T, q->B, q->I}, dnnl_tnc, err));
  TRY(by_tag(&d->y, 3, (const dnnl_dims_t){q->T, q->B, q->H}, dnnl_tnc, err));
  TRY(by_tag(&d->state, 4, (const dnnl_dims_t){1, 1, q->B, q->H}, dnnl_ldnc, err));
  TRY(by_tag(&d->W_x, 5, (const dnnl_dims_t){1, 1, q->I, q->G, q->H}, dnnl_format_tag_any, err));
  TRY(by_tag(&d->W_h, 5, (const dnnl_dims_t){1, 1, q->H, q->G, q->H}, dnnl_format_tag_any, err));
  return by_tag(&d->bias, 4, (const dnnl_dims_t){1, 1, biases, q->H}, dnnl_ldgo, err);
}

static dnnl_alg_kind_t algorithm(int32_t activation) {
  return activation == UNROLL_TANH   ? dnnl_eltwise_tanh
         : activation == UNROLL_RELU ? dnnl_eltwise_relu
                                     : dnnl_eltwise_logistic;
}

static dnnl_rnn_direction_t direction(const onednn_rnn *q) {
  return q->direction == UNROLL_REVERSE ? dnnl_unidirectional_right2left : dnnl_unidirectional_left2right;
}

static unroll_status make_forward(unroll_backend_device *device, onednn_rnn *q, const rnn_descs *d, unroll_error *err) {
  const dnnl_prop_kind_t kind = q->training ? dnnl_forward_training : dnnl_forward_inference;
  dnnl_rnn_desc_t desc;
  dnnl_status_t code;
  switch (q->cell) {
  case UNROLL_CELL_RNN:
    code = dnnl_vanilla_rnn_forward_desc_init(&desc, kind, algorithm(q->activation), direction(q), &d->x, &d->state,
                                              &d->W_x, &d->W_h, &d->bias, &d->y, &d->state, dnnl_rnn_flags_undef, 0, 0);
    break;
  case UNROLL_CELL_LSTM:
    code = dnnl_lstm_forward_desc_init(&desc, kind, direction(q), &d->x, &d->state, &d->state, &d->W_x, &d->W_h,
                                       &d->bias, &d->y, &d->state, &d->state, dnnl_rnn_flags_undef);
    break;
  case UNROLL_CELL_GRU:
    code = dnnl_gru_forward_desc_init(&desc, kind, direction(q), &d->x, &d->state, &d->W_x, &d->W_h, &d->bias, &d->y,
                                      &d->state, dnnl_rnn_flags_undef);
    break;
  default:
    code = dnnl_lbr_gru_forward_desc_init(&desc, kind, direction(q), &d->x, &d->state, &d->W_x, &d->W_h, &d->bias,
                                          &d->y, &d->state, dnnl_rnn_flags_undef);
  }
  TRY(onednn_check(err, code, "forward_desc_init", "layer"));
  return onednn_check(err, dnnl_primitive_desc_create(&q->forward, &desc, device->attr, device->engine, NULL),
                      "dnnl_primitive_desc_create", "layer");
}

static unroll_status make_backward(unroll_backend_device *device, onednn_rnn *q, const rnn_descs *d,
                                   unroll_error *err) {
  dnnl_rnn_desc_t desc;
  dnnl_status_t code;
  switch (q->cell) {
  case UNROLL_CELL_RNN:
    code = dnnl_vanilla_rnn_backward_desc_init(
        &desc, dnnl_backward, algorithm(q->activation), direction(q), &d->x, &d->state, &d->W_x, &d->W_h, &d->bias,
        &d->y, &d->state, &d->x, &d->state, &d->W_x, &d->W_h, &d->bias, &d->y, &d->state, dnnl_rnn_flags_undef, 0, 0);
    break;
  case UNROLL_CELL_LSTM:
    code = dnnl_lstm_backward_desc_init(&desc, dnnl_backward, direction(q), &d->x, &d->state, &d->state, &d->W_x,
                                        &d->W_h, &d->bias, &d->y, &d->state, &d->state, &d->x, &d->state, &d->state,
                                        &d->W_x, &d->W_h, &d->bias, &d->y, &d->state, &d->state, dnnl_rnn_flags_undef);
    break;
  case UNROLL_CELL_GRU:
    code = dnnl_gru_backward_desc_init(&desc, dnnl_backward, direction(q), &d->x, &d->state, &d->W_x, &d->W_h, &d->bias,
                                       &d->y, &d->state, &d->x, &d->state, &d->W_x, &d->W_h, &d->bias, &d->y, &d->state,
                                       dnnl_rnn_flags_undef);
    break;
  default:
    code = dnnl_lbr_gru_backward_desc_init(&desc, dnnl_backward, direction(q), &d->x, &d->state, &d->W_x, &d->W_h,
                                           &d->bias, &d->y, &d->state, &d->x, &d->state, &d->W_x, &d->W_h, &d->bias,
                                           &d->y, &d->state, dnnl_rnn_flags_undef);
  }
  TRY(onednn_check(err, code, "backward_desc_init", "layer_grad"));
  return onednn_check(err, dnnl_primitive_desc_create(&q->backward, &desc, device->attr, device->engine, q->forward),
                      "dnnl_primitive_desc_create", "layer_grad");
}

void onednn_rnn_release(onednn_node *n) {
  onednn_rnn *q = &n->as.rnn;
  if (q->primitive)
    (void)dnnl_primitive_destroy(q->primitive);
  if (q->backward)
    (void)dnnl_primitive_desc_destroy(q->backward);
  if (q->forward)
    (void)dnnl_primitive_desc_destroy(q->forward);
  q->primitive = NULL;
  q->backward = q->forward = NULL;
}

/* ---- the reserve ---- */
/* The gradient's primitive wants what the layer's read and wrote, and the node has only x of it: the rest stands here. */
static void lay_out_reserve(onednn_rnn *q) {
  onednn_reserve *v = &q->reserve;
  v->y = onednn_take(&v->total, (uint64_t)q->T * state_bytes(q));
  v->h_last = onednn_take(&v->total, state_bytes(q));
  v->h0 = onednn_take(&v->total, state_bytes(q));
  if (has_cell_state(q)) {
    v->c_last = onednn_take(&v->total, state_bytes(q));
    v->c0 = onednn_take(&v->total, state_bytes(q));
  }
  v->workspace =
      onednn_take(&v->total, onednn_desc_bytes(dnnl_primitive_desc_query_md(q->forward, dnnl_query_workspace_md, 0)));
}

/* ---- resolve ---- */
static unroll_status is_right(const onednn_resolver *r, const onednn_tensor *t, bool optional, int32_t rank,
                              const int64_t *size) {
  if (!t)
    return optional ? UNROLL_OK
                    : onednn_fail(r->err, UNROLL_E_GRAPH, "onednn: \"%.60s\": an input is absent", r->node_view->name);
  if (t->dtype != UNROLL_F32)
    return onednn_fail(r->err, UNROLL_E_DTYPE, "onednn: \"%.60s\": \"%s\" is not f32", r->node_view->name, t->name);
  if (t->rank != rank || memcmp(t->size, size, (size_t)rank * sizeof *size) != 0)
    return onednn_fail(r->err, UNROLL_E_SHAPE, "onednn: \"%.60s\": \"%s\" has another shape than expected",
                       r->node_view->name, t->name);
  return UNROLL_OK;
}

static unroll_status read_attr(const onednn_resolver *r, onednn_rnn *q) {
  unroll_layer_attr attr;
  if (!r->node_view->attr || r->node_view->attr_size < UNROLL_SIZE_TO(unroll_layer_attr, reserved))
    return onednn_fail(r->err, UNROLL_E_ABI, "onednn: \"%.60s\": attributes of %u bytes, %zu expected",
                       r->node_view->name, r->node_view->attr_size, UNROLL_SIZE_TO(unroll_layer_attr, reserved));
  memcpy(&attr, r->node_view->attr, UNROLL_SIZE_TO(unroll_layer_attr, reserved));
  /* Its sums over time are of oneDNN's own order: they have other bits where a sequence is cut. */
  int32_t segment = 0;
  if (r->node_view->attr_size >= UNROLL_SIZE_TO(unroll_layer_attr, segment))
    memcpy(&segment, (const char *)r->node_view->attr + offsetof(unroll_layer_attr, segment), sizeof segment);
  if (segment)
    return onednn_fail(r->err, UNROLL_E_UNSUPPORTED, "onednn: \"%.60s\": a part of a sequence with checkpoints",
                       r->node_view->name);
  q->cell = attr.cell;
  q->direction = attr.direction;
  q->activation = attr.activation;
  q->G = attr.cell == UNROLL_CELL_RNN ? 1 : attr.cell == UNROLL_CELL_LSTM ? 4 : 3;
  const bool known =
      attr.cell == UNROLL_CELL_RNN
          ? attr.activation == UNROLL_TANH || attr.activation == UNROLL_RELU || attr.activation == UNROLL_SIGMOID
          : attr.cell == UNROLL_CELL_LSTM || attr.cell == UNROLL_CELL_GRU || attr.cell == UNROLL_CELL_GRU_AFTER;
  if (known && (attr.direction == UNROLL_FORWARD || attr.direction == UNROLL_REVERSE))
    return UNROLL_OK;
  return onednn_fail(r->err, UNROLL_E_UNSUPPORTED, "onednn: \"%.60s\": cell %d, activation %d, direction %d",
                     r->node_view->name, attr.cell, attr.activation, attr.direction);
}

static bool is_fixed(const unroll_graph_view *v, const onednn_tensor *t) {
  return t->dim < 0 || v->dim_min[t->dim] == v->dim_max[t->dim];
}

static unroll_status read_shapes(const onednn_resolver *r, const onednn_node *n, onednn_rnn *q, bool is_gradient) {
  const onednn_tensor *x = onednn_in(r, n, 0), *W_h = onednn_in(r, n, 2);
  if (!x || !W_h || x->rank != 3 || W_h->rank != 2)
    return onednn_fail(r->err, UNROLL_E_SHAPE, "onednn: \"%.60s\": x of rank 3 and W_h of rank 2 expected",
                       r->node_view->name);
  q->T = x->size[0];
  q->B = x->size[1];
  q->I = x->size[2];
  q->H = W_h->size[1];
  if (q->T * q->B > INT32_MAX || q->G * q->H > INT32_MAX || q->I > INT32_MAX) /* its own loops count in int */
    return onednn_fail(r->err, UNROLL_E_UNSUPPORTED, "onednn: \"%.60s\": too large", r->node_view->name);
  const int64_t T = q->T, B = q->B, I = q->I, H = q->H, GH = q->G * q->H;
  const int64_t inputs[3] = {T, B, I}, outputs[3] = {T, B, H}, state[2] = {B, H}, W_x[2] = {GH, I},
                recurrent[2] = {GH, H};
  const bool after = q->cell == UNROLL_CELL_GRU_AFTER, lstm = q->cell == UNROLL_CELL_LSTM;
  TRY(is_right(r, x, false, 3, inputs));
  TRY(is_right(r, onednn_in(r, n, 1), false, 2, W_x));
  TRY(is_right(r, W_h, false, 2, recurrent));
  TRY(is_right(r, onednn_in(r, n, 3), false, 1, &GH));
  TRY(is_right(r, onednn_in(r, n, 4), !after, 1, &H));
  if (is_gradient) {
    TRY(is_right(r, onednn_in(r, n, 10), true, 3, outputs));
    TRY(is_right(r, onednn_in(r, n, 11), true, 2, state));
    TRY(is_right(r, onednn_in(r, n, 12), true, 2, state));
    TRY(is_right(r, onednn_out(r, n, 0), true, 3, inputs));
    TRY(is_right(r, onednn_out(r, n, 1), true, 2, W_x));
    TRY(is_right(r, onednn_out(r, n, 2), true, 2, recurrent));
    TRY(is_right(r, onednn_out(r, n, 3), true, 1, &GH));
    TRY(is_right(r, onednn_out(r, n, 4), true, 1, &H));
    TRY(is_right(r, onednn_out(r, n, 5), true, 2, state));
    return is_right(r, onednn_out(r, n, 6), true, 2, state);
  }
  TRY(is_right(r, onednn_in(r, n, 5), false, 2, state));
  TRY(is_right(r, onednn_in(r, n, 6), !lstm, 2, state));
  TRY(is_right(r, onednn_out(r, n, 0), true, 3, outputs));
  TRY(is_right(r, onednn_out(r, n, 1), true, 2, state));
  return is_right(r, onednn_out(r, n, 2), true, 2, state);
}

unroll_status onednn_rnn_resolve(const onednn_resolver *r, onednn_node *n, bool is_gradient) {
  onednn_rnn *q = &n->as.rnn;
  rnn_descs d;
  const onednn_tensor *x = onednn_in(r, n, 0);
  TRY(read_attr(r, q));
  TRY(read_shapes(r, n, q, is_gradient));
  if (onednn_in(r, n, is_gradient ? 5 : 7))
    return onednn_fail(r->err, UNROLL_E_UNSUPPORTED, "onednn: \"%.60s\": sequences of their own lengths",
                       r->node_view->name);
  if (r->view->is_template || (!r->claim && !is_fixed(r->view, x)))
    return onednn_fail(r->err, UNROLL_E_UNSUPPORTED, "onednn: \"%.60s\": time steps known at run time only",
                       r->node_view->name);
  TRY(describe(q, &d, r->err));
  TRY(make_forward(r->device, q, &d, r->err));
  if (q->training)
    lay_out_reserve(q);
  if (is_gradient)
    TRY(make_backward(r->device, q, &d, r->err));
  dnnl_primitive_desc_t own = is_gradient ? q->backward : q->forward;
  if (!r->claim)
    TRY(onednn_check(r->err, dnnl_primitive_create(&q->primitive, own), "dnnl_primitive_create", n->name));
  q->scratchpad =
      onednn_take(&n->workspace, onednn_desc_bytes(dnnl_primitive_desc_query_md(own, dnnl_query_scratchpad_md, 0)));
  const bool swapped = onednn_rnn_block(q->cell, 0) != 0;
  if (swapped) {
    q->bias = onednn_take(&n->workspace, (uint64_t)((q->G + 1) * q->H) * sizeof(float));
    q->staging = onednn_take(&n->workspace, (uint64_t)(q->G * q->H * (q->I > q->H ? q->I : q->H)) * sizeof(float));
  }
  n->persistent = onednn_desc_bytes(onednn_arg(own, DNNL_ARG_WEIGHTS_LAYER)) +
                  onednn_desc_bytes(onednn_arg(own, DNNL_ARG_WEIGHTS_ITER));
  return UNROLL_OK;
}

unroll_status onednn_rnn_claim(const onednn_resolver *r, const onednn_node *n, const onednn_tensor *saved) {
  const onednn_rnn *q = &n->as.rnn;
  const bool is_reserve = saved && saved->dtype == UNROLL_U8 && saved->rank == 1;
  if (is_reserve && (uint64_t)saved->size[0] != q->reserve.total)
    return onednn_fail(r->err, UNROLL_E_SHAPE, "onednn: \"%.60s\": a reserve of %lld bytes, %llu expected",
                       r->node_view->name, (long long)saved->size[0], (unsigned long long)q->reserve.total);
  if (r->claim) {
    r->claim->group = UNROLL_GROUP_HOST;
    if (!is_fixed(r->view, onednn_in(r, n, 0)))
      r->claim->flags |= UNROLL_CLAIM_FIXED_DIMS;
    if (saved) {
      r->claim->flags |= UNROLL_CLAIM_RESERVE;
      r->claim->reserve_bytes = q->reserve.total;
    }
    return UNROLL_OK;
  }
  if (saved && !is_reserve)
    return onednn_fail(r->err, UNROLL_E_UNSUPPORTED, "onednn: \"%.60s\": the saved values as a reserve only",
                       r->node_view->name);
  return UNROLL_OK;
}

/* ---- weights ---- */
unroll_status onednn_weights_desc(const onednn_rnn *q, int64_t inner, dnnl_memory_desc_t *md, unroll_error *err) {
  return by_tag(md, 5, (const dnnl_dims_t){1, 1, inner, q->G, q->H}, dnnl_ldgoi, err);
}

unroll_status onednn_reorder_create(unroll_backend_device *device, const dnnl_memory_desc_t *from,
                                    const dnnl_memory_desc_t *to, dnnl_primitive_t *out, unroll_error *err) {
  dnnl_primitive_desc_t desc;
  TRY(onednn_check(err, dnnl_reorder_primitive_desc_create(&desc, from, device->engine, to, device->engine, NULL),
                   "dnnl_reorder_primitive_desc_create", "weights"));
  const dnnl_status_t code = dnnl_primitive_create(out, desc);
  (void)dnnl_primitive_desc_destroy(desc);
  return onednn_check(err, code, "dnnl_primitive_create", "reorder of weights");
}

unroll_status onednn_weights_bind(unroll_backend_exec *e, const onednn_node *n, const dnnl_memory_desc_t *wanted,
                                  int64_t inner, uint32_t tensor, char *const *data, char *workspace, onednn_weights *w,
                                  unroll_error *err) {
  const onednn_rnn *q = &n->as.rnn;
  dnnl_memory_desc_t given;
  TRY(onednn_weights_desc(q, inner, &given, err));
  w->from = data[tensor];
  w->slot = e->tensors[tensor].slot;
  w->block_bytes = (uint64_t)(q->H * inner) * sizeof(float);
  w->staging = onednn_rnn_block(q->cell, 0) != 0 ? workspace + q->staging : NULL;
  if (!(w->packed = onednn_alloc(e->device->backend, onednn_desc_bytes(wanted))))
    return onednn_fail(err, UNROLL_E_MEMORY, "onednn: no memory for the packed weights of \"%s\"", n->name);
  TRY(onednn_reorder_create(e->device, &given, wanted, &w->primitive, err));
  w->reorder.primitive = w->primitive;
  TRY(onednn_call_add(&w->reorder, e->device->engine, DNNL_ARG_FROM, &given, w->staging ? w->staging : data[tensor],
                      err));
  return onednn_call_add(&w->reorder, e->device->engine, DNNL_ARG_TO, wanted, w->packed, err);
}

void onednn_weights_release(unroll_backend_exec *e, onednn_weights *w) {
  onednn_call_release(&w->reorder);
  if (w->primitive)
    (void)dnnl_primitive_destroy(w->primitive);
  onednn_free(e->device->backend, w->packed);
}

unroll_status onednn_weights_run(const onednn_rnn *q, onednn_weights *w, const onednn_step *step) {
  const uint64_t now = step->args->generations ? step->args->generations[w->slot] : 0;
  if (now != 0 && now == w->generation)
    return UNROLL_OK;
  w->generation = 0;
  for (int64_t g = 0; w->staging && g < q->G; g++)
    memcpy(w->staging + (uint64_t)g * w->block_bytes, w->from + (uint64_t)onednn_rnn_block(q->cell, g) * w->block_bytes,
           w->block_bytes);
  TRY(onednn_call_run(&w->reorder, step->stream, step->err));
  w->generation = now;
  return UNROLL_OK;
}

/* ---- biases ---- */
char *onednn_bias_place(const onednn_node *n, char *const *data, char *workspace) {
  return onednn_rnn_block(n->as.rnn.cell, 0) != 0 ? workspace + n->as.rnn.bias : data[n->in[3]];
}

void onednn_bias_write(const onednn_node *n, char *const *data, char *bias) {
  const onednn_rnn *q = &n->as.rnn;
  const uint64_t block = (uint64_t)q->H * sizeof(float);
  if (bias == data[n->in[3]])
    return;
  for (int64_t g = 0; g < q->G; g++)
    memcpy(bias + (uint64_t)g * block, data[n->in[3]] + (uint64_t)onednn_rnn_block(q->cell, g) * block, block);
  if (q->cell == UNROLL_CELL_GRU_AFTER)
    memcpy(bias + (uint64_t)q->G * block, data[n->in[4]], block);
}
