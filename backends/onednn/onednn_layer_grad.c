/* SPDX-License-Identifier: Apache-2.0 */
/* The gradient of a layer, from the reserve that the layer filled. */
#include "onednn.h"
#include <string.h>

enum { IN_X, IN_W_X, IN_W_H, IN_B, IN_B_N, IN_LENGTHS, IN_SAVED, IN_DY = 10, IN_DH, IN_DC };
enum { OUT_DX, OUT_DW_X, OUT_DW_H, OUT_DB, OUT_DB_N, OUT_DH0, OUT_DC0 };

typedef struct weights_grad { /* from oneDNN's layout to ours */
  onednn_call reorder;        /* without a primitive: nobody reads it */
  dnnl_primitive_t primitive;
  char *made, *staging, *to;
  uint64_t made_bytes, block_bytes;
} weights_grad;

struct onednn_state {
  onednn_weights W_x, W_h;
  weights_grad dW_x, dW_h;
  onednn_call call;
  char *bias, *db, *zeros;
  uint64_t db_bytes, zero_bytes;
};

static uint64_t arg_bytes(const onednn_rnn *q, int arg) { return onednn_desc_bytes(onednn_arg(q->backward, arg)); }

/* Workspace for what the primitive writes and nobody reads; zeros for what it reads and nobody gives. */
static unroll_status grad_resolve(const onednn_resolver *r, onednn_node *n) {
  onednn_rnn *q = &n->as.rnn;
  const onednn_tensor *saved = onednn_in(r, n, IN_SAVED);
  q->training = true;
  if (!saved)
    return onednn_fail(r->err, UNROLL_E_GRAPH, "onednn: \"%.60s\": no saved values", r->node_view->name);
  TRY(onednn_rnn_resolve(r, n, true));
  TRY(onednn_rnn_claim(r, n, saved));
  q->dx = onednn_take(&n->workspace, n->out[OUT_DX] == UNROLL_NO_TENSOR ? arg_bytes(q, DNNL_ARG_DIFF_SRC_LAYER) : 0);
  q->dh0 = onednn_take(&n->workspace, n->out[OUT_DH0] == UNROLL_NO_TENSOR ? arg_bytes(q, DNNL_ARG_DIFF_SRC_ITER) : 0);
  q->dc0 = onednn_take(&n->workspace, n->out[OUT_DC0] == UNROLL_NO_TENSOR ? arg_bytes(q, DNNL_ARG_DIFF_SRC_ITER_C) : 0);
  q->dW_x = onednn_take(&n->workspace, arg_bytes(q, DNNL_ARG_DIFF_WEIGHTS_LAYER));
  q->dW_h = onednn_take(&n->workspace, arg_bytes(q, DNNL_ARG_DIFF_WEIGHTS_ITER));
  q->db = onednn_take(&n->workspace, arg_bytes(q, DNNL_ARG_DIFF_BIAS));
  const uint64_t state = arg_bytes(q, DNNL_ARG_DIFF_DST_ITER);
  q->zeros = onednn_take(&n->workspace, n->in[IN_DY] == UNROLL_NO_TENSOR ? (uint64_t)q->T * state : state);
  return UNROLL_OK;
}

static void grad_unbind(unroll_backend_exec *e, onednn_state *s) {
  if (!s)
    return;
  weights_grad *const both[2] = {&s->dW_x, &s->dW_h};
  for (int i = 0; i < 2; i++) {
    onednn_call_release(&both[i]->reorder);
    if (both[i]->primitive)
      (void)dnnl_primitive_destroy(both[i]->primitive);
  }
  onednn_call_release(&s->call);
  onednn_weights_release(e, &s->W_x);
  onednn_weights_release(e, &s->W_h);
  onednn_free(e->device->backend, s);
}

static unroll_status bind_weights_grad(unroll_backend_exec *e, const onednn_node *n, int arg, int64_t inner, char *made,
                                       char *to, char *workspace, weights_grad *w, unroll_error *err) {
  const onednn_rnn *q = &n->as.rnn;
  const dnnl_memory_desc_t *from = onednn_arg(q->backward, arg);
  dnnl_memory_desc_t ours;
  w->made = made;
  w->made_bytes = onednn_desc_bytes(from);
  if (!to)
    return UNROLL_OK;
  w->to = to;
  w->block_bytes = (uint64_t)(q->H * inner) * sizeof(float);
  w->staging = onednn_rnn_block(q->cell, 0) != 0 ? workspace + q->staging : NULL;
  TRY(onednn_weights_desc(q, inner, &ours, err));
  TRY(onednn_reorder_create(e->device, from, &ours, &w->primitive, err));
  w->reorder.primitive = w->primitive;
  TRY(onednn_call_add(&w->reorder, e->device->engine, DNNL_ARG_FROM, from, made, err));
  return onednn_call_add(&w->reorder, e->device->engine, DNNL_ARG_TO, &ours, w->staging ? w->staging : to, err);
}

static unroll_status add(onednn_state *s, unroll_backend_exec *e, const onednn_rnn *q, int arg, void *data,
                         unroll_error *err) {
  return onednn_call_add(&s->call, e->device->engine, arg, onednn_arg(q->backward, arg), data, err);
}

static char *either(char *first, char *second) { return first ? first : second; }

static unroll_status add_all(onednn_state *s, unroll_backend_exec *e, const onednn_node *n, char *const *data,
                             char *workspace, unroll_error *err) {
  const onednn_rnn *q = &n->as.rnn;
  char *const reserve = data[n->in[IN_SAVED]];
  TRY(add(s, e, q, DNNL_ARG_SRC_LAYER, data[n->in[IN_X]], err));
  TRY(add(s, e, q, DNNL_ARG_SRC_ITER, reserve + q->reserve.h0, err));
  TRY(add(s, e, q, DNNL_ARG_WEIGHTS_LAYER, s->W_x.packed, err));
  TRY(add(s, e, q, DNNL_ARG_WEIGHTS_ITER, s->W_h.packed, err));
  TRY(add(s, e, q, DNNL_ARG_BIAS, s->bias, err));
  TRY(add(s, e, q, DNNL_ARG_DST_LAYER, reserve + q->reserve.y, err));
  TRY(add(s, e, q, DNNL_ARG_DST_ITER, reserve + q->reserve.h_last, err));
  TRY(add(s, e, q, DNNL_ARG_WORKSPACE, reserve + q->reserve.workspace, err));
  TRY(add(s, e, q, DNNL_ARG_DIFF_DST_LAYER, either(onednn_data(data, n->in[IN_DY]), s->zeros), err));
  TRY(add(s, e, q, DNNL_ARG_DIFF_DST_ITER, either(onednn_data(data, n->in[IN_DH]), s->zeros), err));
  TRY(add(s, e, q, DNNL_ARG_DIFF_SRC_LAYER, either(onednn_data(data, n->out[OUT_DX]), workspace + q->dx), err));
  TRY(add(s, e, q, DNNL_ARG_DIFF_SRC_ITER, either(onednn_data(data, n->out[OUT_DH0]), workspace + q->dh0), err));
  TRY(add(s, e, q, DNNL_ARG_DIFF_WEIGHTS_LAYER, s->dW_x.made, err));
  TRY(add(s, e, q, DNNL_ARG_DIFF_WEIGHTS_ITER, s->dW_h.made, err));
  TRY(add(s, e, q, DNNL_ARG_DIFF_BIAS, s->db, err));
  if (q->cell == UNROLL_CELL_LSTM) {
    TRY(add(s, e, q, DNNL_ARG_SRC_ITER_C, reserve + q->reserve.c0, err));
    TRY(add(s, e, q, DNNL_ARG_DST_ITER_C, reserve + q->reserve.c_last, err));
    TRY(add(s, e, q, DNNL_ARG_DIFF_DST_ITER_C, either(onednn_data(data, n->in[IN_DC]), s->zeros), err));
    TRY(add(s, e, q, DNNL_ARG_DIFF_SRC_ITER_C, either(onednn_data(data, n->out[OUT_DC0]), workspace + q->dc0), err));
  }
  return add(s, e, q, DNNL_ARG_SCRATCHPAD, workspace + q->scratchpad, err);
}

static unroll_status fill_state(onednn_state *s, unroll_backend_exec *e, const onednn_node *n, char *const *data,
                                char *workspace, unroll_error *err) {
  const onednn_rnn *q = &n->as.rnn;
  TRY(onednn_weights_bind(e, n, onednn_arg(q->backward, DNNL_ARG_WEIGHTS_LAYER), q->I, n->in[IN_W_X], data, workspace,
                          &s->W_x, err));
  TRY(onednn_weights_bind(e, n, onednn_arg(q->backward, DNNL_ARG_WEIGHTS_ITER), q->H, n->in[IN_W_H], data, workspace,
                          &s->W_h, err));
  TRY(bind_weights_grad(e, n, DNNL_ARG_DIFF_WEIGHTS_LAYER, q->I, workspace + q->dW_x,
                        onednn_data(data, n->out[OUT_DW_X]), workspace, &s->dW_x, err));
  TRY(bind_weights_grad(e, n, DNNL_ARG_DIFF_WEIGHTS_ITER, q->H, workspace + q->dW_h,
                        onednn_data(data, n->out[OUT_DW_H]), workspace, &s->dW_h, err));
  const uint64_t state = arg_bytes(q, DNNL_ARG_DIFF_DST_ITER);
  s->bias = onednn_bias_place(n, data, workspace);
  s->db = workspace + q->db;
  s->db_bytes = arg_bytes(q, DNNL_ARG_DIFF_BIAS);
  s->zeros = workspace + q->zeros;
  s->zero_bytes = n->in[IN_DY] == UNROLL_NO_TENSOR ? (uint64_t)q->T * state : state;
  s->call.primitive = q->primitive;
  return add_all(s, e, n, data, workspace, err);
}

static unroll_status grad_bind(unroll_backend_exec *e, const onednn_node *n, char *const *data, char *workspace,
                               onednn_state **out, unroll_error *err) {
  onednn_state *s = onednn_alloc(e->device->backend, sizeof *s);
  if (!s)
    return onednn_fail(err, UNROLL_E_MEMORY, "onednn: no memory for layer_grad \"%s\"", n->name);
  const unroll_status status = fill_state(s, e, n, data, workspace, err);
  if (status < 0) {
    grad_unbind(e, s);
    return status;
  }
  *out = s;
  return UNROLL_OK;
}

static unroll_status hand_over(const onednn_rnn *q, const weights_grad *w, const onednn_step *step) {
  if (!w->to)
    return UNROLL_OK;
  TRY(onednn_call_run(&w->reorder, step->stream, step->err));
  for (int64_t g = 0; w->staging && g < q->G; g++)
    memcpy(w->to + (uint64_t)onednn_rnn_block(q->cell, g) * w->block_bytes, w->staging + (uint64_t)g * w->block_bytes,
           w->block_bytes);
  return UNROLL_OK;
}

static unroll_status grad_run(const unroll_backend_exec *e, const onednn_node *n, onednn_state *s,
                              const onednn_step *step) {
  (void)e;
  const onednn_rnn *q = &n->as.rnn;
  TRY(onednn_weights_run(q, &s->W_x, step));
  TRY(onednn_weights_run(q, &s->W_h, step));
  onednn_bias_write(n, step->data, s->bias);
  memset(s->zeros, 0, s->zero_bytes);
  memset(s->dW_x.made, 0, s->dW_x.made_bytes); /* the primitive adds to these three */
  memset(s->dW_h.made, 0, s->dW_h.made_bytes);
  memset(s->db, 0, s->db_bytes);
  TRY(onednn_call_run(&s->call, step->stream, step->err));
  TRY(hand_over(q, &s->dW_x, step));
  TRY(hand_over(q, &s->dW_h, step));
  const uint64_t block = (uint64_t)q->H * sizeof(float);
  char *db = onednn_data(step->data, n->out[OUT_DB]), *db_n = onednn_data(step->data, n->out[OUT_DB_N]);
  for (int64_t g = 0; db && g < q->G; g++)
    memcpy(db + (uint64_t)onednn_rnn_block(q->cell, g) * block, s->db + (uint64_t)g * block, block);
  if (db_n)
    memcpy(db_n, s->db + (uint64_t)q->G * block, block);
  return UNROLL_OK;
}

const onednn_op onednn_layer_grad_op = {"layer_grad", grad_resolve, onednn_rnn_release,
                                        grad_bind,    grad_unbind,  grad_run};
