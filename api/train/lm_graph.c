/* SPDX-License-Identifier: Apache-2.0 */
/* The graphs of a language model, and their programs. */
#include <float.h>
#include <stdio.h>
#include <string.h>

#include "train/train_private.h"

/* Up to the logits [T,B,V] of ids [T,B]. The states h.l and c.l are carried on from run to run. */
static unroll_tensor add_network(const unroll_lm *lm, unroll_tensor ids, int64_t batch, double dropout) {
  const unroll_lm_options *o = &lm->options;
  const int64_t V = unroll_vocabulary_count(lm->vocabulary);
  unroll_tensor h[LM_MAX_LAYERS], c[LM_MAX_LAYERS], h_last[LM_MAX_LAYERS], c_last[LM_MAX_LAYERS];
  for (int64_t l = 0; l < o->layers; l++) {
    char name[32];
    snprintf(name, sizeof name, "h.%d", (int)l);
    h[l] = unroll_state(ids.graph, name, UNROLL_F32, 2, (int64_t[]){batch, o->hidden});
    snprintf(name, sizeof name, "c.%d", (int)l);
    c[l] = o->cell == UNROLL_CELL_LSTM ? unroll_state(ids.graph, name, UNROLL_F32, 2, (int64_t[]){batch, o->hidden})
                                       : unroll_none();
    h_last[l] = c_last[l] = unroll_none();
  }
  const unroll_rnn_options rnn = {.struct_size = sizeof rnn,
                                  .cell = o->cell,
                                  .activation = UNROLL_TANH,
                                  .layers = (int32_t)o->layers,
                                  .hidden = o->hidden,
                                  .dropout = dropout,
                                  .lengths = unroll_none()};
  const bool has_c = o->cell == UNROLL_CELL_LSTM;
  const unroll_rnn_state initial = {h, has_c ? c : NULL};
  unroll_rnn_state last = {h_last, has_c ? c_last : NULL};
  const unroll_tensor x = unroll_embedding_layer(ids, "embedding", UNROLL_F32, V, o->embedding);
  unroll_tensor y = unroll_rnn(x, "rnn", &rnn, &initial, &last);
  for (int64_t l = 0; l < o->layers; l++) {
    unroll_update(h[l], h_last[l]);
    if (has_c)
      unroll_update(c[l], c_last[l]);
  }
  if (dropout > 0)
    y = unroll_dropout(y, dropout);
  return unroll_linear(y, "linear", V, 1);
}

/* A state [LM_HISTORY] of what a value of one element was in the latest runs, this one last. */
static void add_history(const char *name, unroll_tensor value) {
  unroll_tensor row[2];
  const int32_t dtype = unroll_tensor_describe(value).dtype;
  const unroll_tensor history = unroll_state(value.graph, name, dtype, 1, (int64_t[]){LM_HISTORY});
  row[0] = unroll_slice(history, 0, 1, LM_HISTORY - 1);
  row[1] = unroll_reshape(value, 1, (int64_t[]){1});
  unroll_update(history, unroll_concat(row, 2, 0));
}

/* ---- loss scaling ---- */

/* What a training graph does with the gradients. Without a scale all are none; a fixed scale has no states. */
struct scaling {
  unroll_tensor scale, inverse; /* f32 [] */
  unroll_tensor step;           /* i32 []: the optimizer's */
  unroll_tensor made;           /* bool []: is the update made, or skipped; none: always made */
};

static unroll_tensor real(unroll_graph *g, double value) { return unroll_constant(g, UNROLL_F32, 0, NULL, value); }
static unroll_tensor whole(unroll_graph *g, int64_t value) {
  return unroll_constant(g, UNROLL_I32, 0, NULL, (double)value);
}

static struct scaling begin_scaling(unroll_graph *g, const unroll_lm_options *o) {
  struct scaling s = {unroll_none(), unroll_none(), unroll_none(), unroll_none()};
  if (lm_scale_is_dynamic(o)) {
    s.scale = unroll_state(g, LM_LOSS_SCALE, UNROLL_F32, 0, NULL);
    s.inverse = unroll_state(g, LM_LOSS_SCALE_INVERSE, UNROLL_F32, 0, NULL);
    s.step = unroll_add(unroll_state(g, LM_LOSS_SCALE_STEP, UNROLL_I32, 0, NULL), whole(g, 1));
  } else {
    if (o->loss_scale != 1) {
      s.scale = real(g, o->loss_scale);
      s.inverse = real(g, 1 / o->loss_scale);
    }
    s.step = unroll_input(g, "step", UNROLL_I32, 0, NULL);
  }
  return s;
}

/*
 * The next scale, on the device, so that updates follow each other without the host. The inverse is kept beside the
 * scale because both change by powers of two alone, which is exact; a division need not be.
 */
static void update_scaling(struct scaling *s, unroll_tensor norm, const unroll_lm_options *o) {
  unroll_graph *g = norm.graph;
  const unroll_tensor streak = unroll_state(g, LM_LOSS_SCALE_STREAK, UNROLL_I32, 0, NULL);
  const unroll_tensor longer = unroll_add(streak, whole(g, 1));
  const unroll_tensor grows = unroll_binary(longer, whole(g, o->loss_scale_interval), UNROLL_GE);
  s->made = unroll_binary(norm, real(g, (double)FLT_MAX), UNROLL_LE); /* false for NaN too */
  const unroll_tensor factor = unroll_select(s->made, unroll_select(grows, real(g, 2), real(g, 1)), real(g, 0.5));
  const unroll_tensor back = unroll_select(s->made, unroll_select(grows, real(g, 0.5), real(g, 1)), real(g, 2));
  const struct {
    unroll_tensor state, factor;
    double least, most;
  } both[] = {{s->scale, factor, LM_LOSS_SCALE_LEAST, LM_LOSS_SCALE_MOST},
              {s->inverse, back, 1 / LM_LOSS_SCALE_MOST, 1 / LM_LOSS_SCALE_LEAST}};
  for (int i = 0; i < 2; i++) {
    const unroll_tensor next = unroll_mul(both[i].state, both[i].factor);
    const unroll_tensor above = unroll_binary(next, real(g, both[i].least), UNROLL_MAX);
    unroll_update(both[i].state, unroll_binary(above, real(g, both[i].most), UNROLL_MIN));
  }
  unroll_update(streak, unroll_select(s->made, unroll_select(grows, whole(g, 0), longer), whole(g, 0)));
  const unroll_tensor step = unroll_graph_find(g, LM_LOSS_SCALE_STEP);
  unroll_update(step, unroll_select(s->made, s->step, step));
  add_history(LM_LOSS_SCALES, s->scale);
}

/* Ends the building: a graph that has an error is destroyed. */
static unroll_status finish(unroll_graph *g, unroll_graph **graph, unroll_error *err) {
  const unroll_status status = unroll_graph_status(g, err);
  if (status == UNROLL_OK)
    *graph = g;
  else
    unroll_graph_destroy(g);
  return status;
}

unroll_status lm_graph_train(const unroll_lm *lm, unroll_graph **graph, unroll_error *err) {
  const unroll_lm_options *o = &lm->options;
  const int64_t ids_shape[] = {o->steps, o->batch};
  unroll_graph *g;
  TRY(unroll_graph_create(&lm->allocator, &g, err));
  const unroll_tensor x = unroll_input(g, "x", UNROLL_I32, 2, ids_shape);
  const unroll_tensor targets = unroll_input(g, "targets", UNROLL_I32, 2, ids_shape);
  const unroll_tensor lr = unroll_input(g, "lr", UNROLL_F32, 0, NULL);
  struct scaling s = begin_scaling(g, o);
  const unroll_tensor logits = add_network(lm, x, o->batch, o->dropout);
  const unroll_tensor loss = unroll_cross_entropy(logits, targets, UNROLL_LOSS_MEAN);

  unroll_tensor params[LM_MAX_PARAMS], grads[LM_MAX_PARAMS], norm = unroll_none();
  uint32_t n = 0;
  for (uint32_t i = 0; i < unroll_graph_count(g) && n < LM_MAX_PARAMS; i++)
    if (unroll_tensor_describe(unroll_graph_tensor(g, i)).role == UNROLL_ROLE_PARAM) {
      grads[n] = unroll_none();
      params[n++] = unroll_graph_tensor(g, i);
    }
  unroll_vjp(&loss, &s.scale, 1, params, n, grads);
  for (uint32_t i = 0; i < n && s.scale.graph; i++)
    grads[i] = unroll_mul(grads[i], s.inverse);
  /* The norm is reported without clipping too; its factor is then left unused. */
  const unroll_tensor clip = unroll_clip_global_norm(grads, n, o->clip > 0 ? o->clip : 1, &norm);
  if (lm_scale_is_dynamic(o))
    update_scaling(&s, norm, o);
  for (uint32_t i = 0; i < n; i++)
    unroll_optimize_if(s.made, params[i], grads[i], lr, s.step, o->clip > 0 ? clip : unroll_none(), &o->optimizer);
  add_history("losses", loss);
  add_history("grad_norms", norm);
  return finish(g, graph, err);
}

unroll_status lm_graph_evaluate(const unroll_lm *lm, unroll_graph **graph, unroll_error *err) {
  const int64_t ids_shape[] = {lm->validation.T, lm->validation.B};
  unroll_graph *g;
  TRY(unroll_graph_create(&lm->allocator, &g, err));
  const unroll_tensor x = unroll_input(g, "x", UNROLL_I32, 2, ids_shape);
  const unroll_tensor targets = unroll_input(g, "targets", UNROLL_I32, 2, ids_shape);
  const unroll_tensor logits = add_network(lm, x, lm->validation.B, 0);
  add_history("losses", unroll_cross_entropy(logits, targets, UNROLL_LOSS_MEAN));
  return finish(g, graph, err);
}

unroll_status lm_graph_sample(const unroll_lm *lm, bool greedy, int64_t top_k, unroll_graph **graph,
                              unroll_error *err) {
  const int64_t V = unroll_vocabulary_count(lm->vocabulary);
  unroll_graph *g;
  TRY(unroll_graph_create(&lm->allocator, &g, err));
  const unroll_tensor id = unroll_state(g, "id", UNROLL_I32, 2, (int64_t[]){1, 1});
  unroll_tensor logits = unroll_reshape(add_network(lm, id, 1, 0), 2, (int64_t[]){1, V});
  unroll_tensor next;
  if (greedy)
    next = unroll_argmax(logits);
  else
    next = unroll_categorical(unroll_div(logits, unroll_input(g, "temperature", UNROLL_F32, 0, NULL)), top_k);
  unroll_update(id, unroll_reshape(next, 2, (int64_t[]){1, 1}));
  add_history("ids", next);
  return finish(g, graph, err);
}

static bool is_history(const char *name) {
  return strcmp(name, "losses") == 0 || strcmp(name, "grad_norms") == 0 || strcmp(name, LM_LOSS_SCALES) == 0;
}

unroll_status lm_list_tensors(unroll_lm *lm, unroll_graph *graph, unroll_error *err) {
  const uint32_t count = unroll_graph_count(graph);
  lm->tensors = mem_array(&lm->allocator, count, sizeof *lm->tensors);
  if (!lm->tensors)
    return fail(err, UNROLL_E_MEMORY, "model: no memory for a list of %u tensors", count);
  for (uint32_t i = 0; i < count; i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(graph, i));
    if ((info.role != UNROLL_ROLE_PARAM && info.role != UNROLL_ROLE_STATE) || is_history(info.name))
      continue;
    struct lm_tensor *t = &lm->tensors[lm->n_tensors];
    *t = (struct lm_tensor){.dtype = info.dtype, .rank = info.rank, .role = info.role};
    t->bytes = unroll_dtype_size(info.dtype);
    for (int32_t k = 0; k < info.rank; k++) {
      t->shape[k] = info.shape[k];
      if (!size_mul(t->bytes, (uint64_t)info.shape[k], &t->bytes))
        return fail(err, UNROLL_E_RANGE, "model: tensor %s has too many bytes", info.name);
    }
    t->name = mem_strdup(&lm->allocator, info.name);
    if (!t->name)
      return fail(err, UNROLL_E_MEMORY, "model: no memory for the name of tensor %s", info.name);
    lm->n_tensors++;
  }
  return UNROLL_OK;
}

unroll_status lm_program_make(unroll_lm *lm, unroll_graph *graph, struct lm_program *program, unroll_error *err) {
  unroll_status status = unroll_compile(graph, lm->devices, lm->n_devices, NULL, &program->exe, err);
  unroll_graph_destroy(graph);
  if (status != UNROLL_OK) {
    program->exe = NULL;
    return status;
  }
  status = unroll_binding_create(program->exe, &program->binding, err);
  if (status != UNROLL_OK) {
    program->binding = NULL;
    lm_program_free(program);
  }
  return status;
}

void lm_program_free(struct lm_program *program) {
  if (program->binding)
    unroll_binding_destroy(program->binding);
  if (program->exe)
    unroll_executable_destroy(program->exe);
  *program = (struct lm_program){NULL, NULL};
}

unroll_status lm_program_parameters(unroll_lm *lm, struct lm_program *program, unroll_error *err) {
  for (uint32_t i = 0; i < lm->n_tensors; i++) {
    const struct lm_tensor *t = &lm->tensors[i];
    if (t->role != UNROLL_ROLE_PARAM)
      continue;
    if (lm->train.binding)
      TRY(unroll_binding_share(program->binding, t->name, lm->train.binding, t->name, err));
    else
      TRY(unroll_binding_write(program->binding, t->name, t->stored, t->bytes, err));
  }
  return UNROLL_OK;
}

unroll_status lm_program_reset(const unroll_lm *lm, const struct lm_program *program, unroll_error *err) {
  for (int64_t l = 0; l < lm->options.layers; l++) {
    char name[32];
    snprintf(name, sizeof name, "h.%d", (int)l);
    TRY(unroll_binding_clear(program->binding, name, err));
    if (lm->options.cell != UNROLL_CELL_LSTM)
      continue;
    snprintf(name, sizeof name, "c.%d", (int)l);
    TRY(unroll_binding_clear(program->binding, name, err));
  }
  return UNROLL_OK;
}
