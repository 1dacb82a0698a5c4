/* SPDX-License-Identifier: Apache-2.0 */
/* A layer: for inference where nobody reads what it would save, else for training, with all that the gradient needs put into
 * the reserve. */
#include "onednn.h"
#include <string.h>

enum { IN_X, IN_W_X, IN_W_H, IN_B, IN_B_N, IN_H0, IN_C0, IN_LENGTHS, OUT_Y = 0, OUT_H, OUT_C, OUT_SAVED };

struct onednn_state {
  onednn_weights W_x, W_h;
  onednn_call call;
  char *bias;
  char *y, *h, *c; /* where the primitive writes them */
  char *reserve;   /* NULL for inference */
};

static unroll_status layer_resolve(const onednn_resolver *r, onednn_node *n) {
  onednn_rnn *q = &n->as.rnn;
  const onednn_tensor *saved = NULL;
  for (uint32_t i = OUT_SAVED; i < ONEDNN_MAX_OUT && !saved; i++)
    saved = onednn_out(r, n, i);
  q->training = saved != NULL;
  TRY(onednn_rnn_resolve(r, n, false));
  TRY(onednn_rnn_claim(r, n, saved));
  const uint64_t state = (uint64_t)(q->B * q->H) * sizeof(float);
  if (!q->training) {
    q->y = onednn_take(&n->workspace, n->out[OUT_Y] == UNROLL_NO_TENSOR ? (uint64_t)q->T * state : 0);
    q->h_last = onednn_take(&n->workspace, n->out[OUT_H] == UNROLL_NO_TENSOR ? state : 0);
    q->c_last = onednn_take(&n->workspace, n->out[OUT_C] == UNROLL_NO_TENSOR ? state : 0);
  }
  return UNROLL_OK;
}

static void layer_unbind(unroll_backend_exec *e, onednn_state *s) {
  if (!s)
    return;
  onednn_call_release(&s->call);
  onednn_weights_release(e, &s->W_x);
  onednn_weights_release(e, &s->W_h);
  onednn_free(e->device->backend, s);
}

static unroll_status add(onednn_state *s, unroll_backend_exec *e, const onednn_rnn *q, int arg, void *data,
                         unroll_error *err) {
  return onednn_call_add(&s->call, e->device->engine, arg, onednn_arg(q->forward, arg), data, err);
}

static char *either(char *first, char *second) { return first ? first : second; }

static unroll_status fill_state(onednn_state *s, unroll_backend_exec *e, const onednn_node *n, char *const *data,
                                char *workspace, unroll_error *err) {
  const onednn_rnn *q = &n->as.rnn;
  TRY(onednn_weights_bind(e, n, onednn_arg(q->forward, DNNL_ARG_WEIGHTS_LAYER), q->I, n->in[IN_W_X], data, workspace,
                          &s->W_x, err));
  TRY(onednn_weights_bind(e, n, onednn_arg(q->forward, DNNL_ARG_WEIGHTS_ITER), q->H, n->in[IN_W_H], data, workspace,
                          &s->W_h, err));
  s->bias = onednn_bias_place(n, data, workspace);
  if (q->training) {
    s->reserve = data[n->out[OUT_SAVED]];
    s->y = s->reserve + q->reserve.y;
    s->h = s->reserve + q->reserve.h_last;
    s->c = s->reserve + q->reserve.c_last;
    TRY(add(s, e, q, DNNL_ARG_WORKSPACE, s->reserve + q->reserve.workspace, err));
  } else {
    s->y = either(onednn_data(data, n->out[OUT_Y]), workspace + q->y);
    s->h = either(onednn_data(data, n->out[OUT_H]), workspace + q->h_last);
    s->c = either(onednn_data(data, n->out[OUT_C]), workspace + q->c_last);
  }
  TRY(add(s, e, q, DNNL_ARG_SRC_LAYER, data[n->in[IN_X]], err));
  TRY(add(s, e, q, DNNL_ARG_SRC_ITER, data[n->in[IN_H0]], err));
  TRY(add(s, e, q, DNNL_ARG_WEIGHTS_LAYER, s->W_x.packed, err));
  TRY(add(s, e, q, DNNL_ARG_WEIGHTS_ITER, s->W_h.packed, err));
  TRY(add(s, e, q, DNNL_ARG_BIAS, s->bias, err));
  TRY(add(s, e, q, DNNL_ARG_DST_LAYER, s->y, err));
  TRY(add(s, e, q, DNNL_ARG_DST_ITER, s->h, err));
  if (q->cell == UNROLL_CELL_LSTM) {
    TRY(add(s, e, q, DNNL_ARG_SRC_ITER_C, data[n->in[IN_C0]], err));
    TRY(add(s, e, q, DNNL_ARG_DST_ITER_C, s->c, err));
  }
  s->call.primitive = q->primitive;
  return add(s, e, q, DNNL_ARG_SCRATCHPAD, workspace + q->scratchpad, err);
}

static unroll_status layer_bind(unroll_backend_exec *e, const onednn_node *n, char *const *data, char *workspace,
                                onednn_state **out, unroll_error *err) {
  onednn_state *s = onednn_alloc(e->device->backend, sizeof *s);
  if (!s)
    return onednn_fail(err, UNROLL_E_MEMORY, "onednn: no memory for layer \"%s\"", n->name);
  const unroll_status status = fill_state(s, e, n, data, workspace, err);
  if (status < 0) {
    layer_unbind(e, s);
    return status;
  }
  *out = s;
  return UNROLL_OK;
}

static void copy_out(char *to, const char *from, uint64_t n) {
  if (to)
    memcpy(to, from, n);
}

static unroll_status layer_run(const unroll_backend_exec *e, const onednn_node *n, onednn_state *s,
                               const onednn_step *step) {
  (void)e;
  const onednn_rnn *q = &n->as.rnn;
  TRY(onednn_weights_run(q, &s->W_x, step));
  TRY(onednn_weights_run(q, &s->W_h, step));
  onednn_bias_write(n, step->data, s->bias);
  TRY(onednn_call_run(&s->call, step->stream, step->err));
  if (!s->reserve)
    return UNROLL_OK;
  const uint64_t state = (uint64_t)(q->B * q->H) * sizeof(float);
  memcpy(s->reserve + q->reserve.h0, step->data[n->in[IN_H0]], state);
  copy_out(onednn_data(step->data, n->out[OUT_Y]), s->y, (uint64_t)q->T * state);
  copy_out(onednn_data(step->data, n->out[OUT_H]), s->h, state);
  if (q->cell == UNROLL_CELL_LSTM) {
    memcpy(s->reserve + q->reserve.c0, step->data[n->in[IN_C0]], state);
    copy_out(onednn_data(step->data, n->out[OUT_C]), s->c, state);
  }
  return UNROLL_OK;
}

const onednn_op onednn_layer_op = {"layer", layer_resolve, onednn_rnn_release, layer_bind, layer_unbind, layer_run};
