/* SPDX-License-Identifier: Apache-2.0 */
/* What a training graph makes of a task's loss: gradients, their sum over parts, their norm, updates, histories. */
#include <float.h>
#include <stdio.h>
#include <string.h>

#include "graph/graph_private.h"
#include "nn/nn_private.h"
#include "train/trainer.h"

static unroll_tensor real(unroll_graph *g, double value) { return unroll_constant(g, UNROLL_F32, 0, NULL, value); }
static unroll_tensor whole(unroll_graph *g, int64_t value) {
  return unroll_constant(g, UNROLL_I32, 0, NULL, (double)value);
}

/* `value` where the condition holds or is none, else `other`. */
static unroll_tensor where(unroll_tensor condition, unroll_tensor value, unroll_tensor other) {
  return condition.graph ? unroll_select(condition, value, other) : value;
}

/* Both conditions, either of which may be none. There is no op for it. */
static unroll_tensor both(unroll_tensor a, unroll_tensor b) {
  if (!a.graph || !b.graph)
    return a.graph ? a : b;
  const unroll_tensor product = unroll_mul(unroll_cast(a, UNROLL_F32), unroll_cast(b, UNROLL_F32));
  return unroll_binary(product, real(a.graph, 0.5), UNROLL_GT);
}

static unroll_tensor is_finite(unroll_tensor magnitude) {
  return unroll_binary(magnitude, real(magnitude.graph, (double)FLT_MAX), UNROLL_LE); /* false for NaN too */
}

/* ---- states ---- */

static unroll_tensor scratch_state(struct trainer_build *b, const char *name, int32_t dtype, int32_t rank,
                                   const int64_t *shape) {
  const unroll_tensor s = unroll_state(b->graph, name, dtype, rank, shape);
  if (b->n_scratch < sizeof b->scratch / sizeof b->scratch[0])
    b->scratch[b->n_scratch++] = s.id;
  else
    graph_fail(b->graph, UNROLL_E_RANGE, "training: more than %zu states", sizeof b->scratch / sizeof b->scratch[0]);
  return s;
}

unroll_tensor trainer_state(struct trainer_build *b, const char *name, int64_t rows, int64_t width) {
  if (b->n_carries == TRAINER_MAX_CARRIES)
    return graph_fail(b->graph, UNROLL_E_RANGE, "training: more than %d states that are carried on",
                      TRAINER_MAX_CARRIES);
  struct trainer_carry *c = &b->carries[b->n_carries++];
  c->state = unroll_state(b->graph, name, UNROLL_F32, 2, (int64_t[]){rows * b->parts, width});
  c->now = b->parts == 1 ? c->state : unroll_slice(c->state, 0, 0, rows);
  c->next = unroll_none();
  return c->now;
}

void trainer_carry_on(struct trainer_build *b, unroll_tensor now, unroll_tensor next) {
  for (uint32_t i = 0; i < b->n_carries; i++)
    if (b->carries[i].now.id == now.id)
      b->carries[i].next = next;
}

/* loss: where updates may be skipped, a part that has no finite one leaves the states as they were; else none. */
static void update_carries(struct trainer_build *b, unroll_tensor loss) {
  const unroll_tensor kept = loss.graph ? is_finite(unroll_unary(loss, UNROLL_ABS)) : unroll_none();
  for (uint32_t i = 0; i < b->n_carries; i++) {
    const struct trainer_carry *c = &b->carries[i];
    unroll_tensor next = where(kept, c->next, c->now);
    if (b->parts > 1) {
      const int64_t all = unroll_tensor_describe(c->state).shape[0], rows = all / b->parts;
      next = unroll_concat((unroll_tensor[]){unroll_slice(c->state, 0, rows, all - rows), next}, 2, 0);
    }
    unroll_update(c->state, next);
  }
}

void trainer_update_carries(struct trainer_build *b) { update_carries(b, unroll_none()); }

void trainer_history(struct trainer_build *b, const char *name, unroll_tensor value, unroll_tensor last) {
  unroll_tensor row[2];
  const int32_t dtype = unroll_tensor_describe(value).dtype;
  const unroll_tensor history = scratch_state(b, name, dtype, 1, (int64_t[]){TRAINER_HISTORY});
  row[0] = unroll_slice(history, 0, 1, TRAINER_HISTORY - 1);
  row[1] = unroll_reshape(value, 1, (int64_t[]){1});
  unroll_update(history, where(last, unroll_concat(row, 2, 0), history));
}

/* ---- an update ---- */

struct update {
  struct trainer_build *b;
  const unroll_training *o;
  struct trainer_loss of;
  uint32_t n;
  unroll_tensor params[TRAINER_MAX_PARAMS], grads[TRAINER_MAX_PARAMS], squares[TRAINER_MAX_PARAMS];
  const char *names[TRAINER_MAX_PARAMS];
  unroll_tensor first, last;    /* bool []: this part of the batch is the first one, the last one; none: the only one */
  unroll_tensor scale, inverse; /* f32 []; without a scale none */
  unroll_tensor lr, step;       /* f32 [], i32 [] */
  unroll_tensor norm;           /* f32 [] */
  unroll_tensor made;           /* bool []: is the update made, or skipped; none: always made */
};

static const char *step_name(const unroll_training *o) {
  return trainer_scale_is_dynamic(o) ? TRAINER_LOSS_SCALE_STEP : TRAINER_MADE;
}

static void begin_update(struct update *u) {
  unroll_graph *g = u->b->graph;
  const unroll_training *o = u->o;
  u->lr = unroll_input(g, "lr", UNROLL_F32, 0, NULL);
  u->scale = u->inverse = u->first = u->last = u->made = unroll_none();
  if (trainer_scale_is_dynamic(o)) {
    u->scale = unroll_state(g, TRAINER_LOSS_SCALE, UNROLL_F32, 0, NULL);
    u->inverse = unroll_state(g, TRAINER_LOSS_SCALE_INVERSE, UNROLL_F32, 0, NULL);
  } else if (o->loss_scale != 1) {
    u->scale = real(g, o->loss_scale);
    u->inverse = real(g, 1 / o->loss_scale);
  }
  if (trainer_counts_on_device(o))
    u->step = unroll_add(unroll_state(g, step_name(o), UNROLL_I32, 0, NULL), whole(g, 1));
  else
    u->step = unroll_input(g, "step", UNROLL_I32, 0, NULL);
  if (u->b->parts > 1) {
    const unroll_tensor part = unroll_input(g, "part", UNROLL_I32, 0, NULL);
    u->first = unroll_binary(part, whole(g, 0), UNROLL_EQ);
    u->last = unroll_binary(part, whole(g, u->b->parts - 1), UNROLL_EQ);
  }
}

static void find_parameters(struct update *u) {
  unroll_graph *g = u->b->graph;
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor p = unroll_graph_tensor(g, i);
    const unroll_tensor_info info = unroll_tensor_describe(p);
    if (info.role != UNROLL_ROLE_PARAM || trainer_is_frozen(u->o, info.name))
      continue;
    if (u->n == TRAINER_MAX_PARAMS) {
      graph_fail(g, UNROLL_E_RANGE, "training: more than %d parameters", TRAINER_MAX_PARAMS);
      return;
    }
    u->names[u->n] = info.name;
    u->grads[u->n] = unroll_none();
    u->params[u->n++] = p;
  }
}

/* The sum of a value over the parts so far. */
static unroll_tensor sum_of_parts(struct update *u, const char *of, unroll_tensor value) {
  char name[160];
  const unroll_tensor_info info = unroll_tensor_describe(value);
  snprintf(name, sizeof name, "%.150s.sum", of);
  const unroll_tensor sum = scratch_state(u->b, name, info.dtype, info.rank, info.shape);
  const unroll_tensor now = unroll_select(u->first, value, unroll_add(sum, value));
  unroll_update(sum, now);
  return now;
}

/*
 * Gradients, loss and metric become those of the whole batch: each part's is a mean, and counts as much as it has
 * weight. Without weights parts are alike.
 */
static void make_gradients(struct update *u) {
  unroll_graph *g = u->b->graph;
  const bool weighs = u->b->parts > 1 && u->of.weight.graph;
  unroll_tensor dy = u->scale, factor = u->inverse;
  if (weighs)
    dy = dy.graph ? unroll_mul(dy, u->of.weight) : u->of.weight;
  unroll_vjp(&u->of.loss, &dy, 1, u->params, u->n, u->grads);
  if (u->b->parts > 1) {
    unroll_tensor share = real(g, 1 / (double)u->b->parts);
    if (weighs) /* of nothing at all it is finite */
      share = unroll_unary(unroll_binary(sum_of_parts(u, "weight", u->of.weight), real(g, (double)FLT_MIN), UNROLL_MAX),
                           UNROLL_RECIPROCAL);
    factor = factor.graph ? unroll_mul(factor, share) : share;
    for (uint32_t i = 0; i < u->n; i++)
      u->grads[i] = sum_of_parts(u, u->names[i], u->grads[i]);
    const unroll_tensor loss = weighs ? unroll_mul(u->of.loss, u->of.weight) : u->of.loss;
    u->of.loss = unroll_mul(sum_of_parts(u, "loss", loss), share);
    if (u->of.metric.graph) {
      const unroll_tensor metric = weighs ? unroll_mul(u->of.metric, u->of.weight) : u->of.metric;
      u->of.metric = unroll_mul(sum_of_parts(u, "metric", metric), share);
    }
  }
  for (uint32_t i = 0; i < u->n && factor.graph; i++)
    u->grads[i] = unroll_mul(u->grads[i], factor);
  for (uint32_t i = 0; i < u->n; i++) {
    const double lambda = trainer_l2(u->o, u->names[i]);
    if (lambda > 0) /* of λ‖W‖² */
      u->grads[i] = unroll_add(u->grads[i], unroll_scale(u->params[i], 2 * lambda));
  }
}

/* As unroll_clip_global_norm sums; each parameter's part is kept, to say where a norm is not finite. */
static void make_norm(struct update *u) {
  unroll_tensor sum = unroll_none();
  for (uint32_t i = 0; i < u->n; i++) {
    u->squares[i] = unroll_reduce(u->grads[i], UNROLL_SUM_SQUARES, 0, 0);
    sum = i ? unroll_add(sum, u->squares[i]) : u->squares[i];
  }
  u->norm = unroll_unary(sum, UNROLL_SQRT);
}

/*
 * The squares of the first norm that was not finite since the host cleared them. They are zeros before, and their sum is
 * not zero after.
 */
static void add_nonfinite(struct update *u, unroll_tensor finite) {
  unroll_graph *g = u->b->graph;
  unroll_tensor rows[TRAINER_MAX_PARAMS];
  for (uint32_t i = 0; i < u->n; i++)
    rows[i] = unroll_reshape(u->squares[i], 1, (int64_t[]){1});
  const unroll_tensor now = unroll_concat(rows, u->n, 0);
  const unroll_tensor kept = scratch_state(u->b, TRAINER_NONFINITE, UNROLL_F32, 1, (int64_t[]){u->n});
  const unroll_tensor empty = unroll_binary(unroll_reduce(kept, UNROLL_SUM, 0, 0), real(g, 0), UNROLL_EQ);
  unroll_update(kept, where(u->last, unroll_select(empty, unroll_select(finite, kept, now), kept), kept));
}

/*
 * The next scale, on the device, so that updates follow each other without the host. The inverse is kept beside the
 * scale because both change by powers of two alone, which is exact; a division need not be.
 */
static void update_scaling(struct update *u) {
  unroll_graph *g = u->b->graph;
  const unroll_tensor streak = unroll_state(g, TRAINER_LOSS_SCALE_STREAK, UNROLL_I32, 0, NULL);
  const unroll_tensor longer = unroll_add(streak, whole(g, 1));
  const unroll_tensor grows = unroll_binary(longer, whole(g, u->o->loss_scale_interval), UNROLL_GE);
  const unroll_tensor factor = unroll_select(u->made, unroll_select(grows, real(g, 2), real(g, 1)), real(g, 0.5));
  const unroll_tensor back = unroll_select(u->made, unroll_select(grows, real(g, 0.5), real(g, 1)), real(g, 2));
  const struct {
    unroll_tensor state, factor;
    double least, most;
  } pair[] = {{u->scale, factor, TRAINER_LOSS_SCALE_LEAST, TRAINER_LOSS_SCALE_MOST},
              {u->inverse, back, 1 / TRAINER_LOSS_SCALE_MOST, 1 / TRAINER_LOSS_SCALE_LEAST}};
  for (int i = 0; i < 2; i++) {
    const unroll_tensor next = unroll_mul(pair[i].state, pair[i].factor);
    const unroll_tensor above = unroll_binary(next, real(g, pair[i].least), UNROLL_MAX);
    unroll_update(pair[i].state,
                  where(u->last, unroll_binary(above, real(g, pair[i].most), UNROLL_MIN), pair[i].state));
  }
  const unroll_tensor next = unroll_select(u->made, unroll_select(grows, whole(g, 0), longer), whole(g, 0));
  unroll_update(streak, where(u->last, next, streak));
  trainer_history(u->b, TRAINER_SCALES, u->scale, u->last);
}

static void make_update(struct update *u) {
  unroll_graph *g = u->b->graph;
  const unroll_training *o = u->o;
  const bool skips = o->nonfinite == UNROLL_NONFINITE_SKIP;
  const unroll_tensor finite = is_finite(u->norm);
  if (skips)
    u->made = is_finite(unroll_add(u->norm, unroll_unary(u->of.loss, UNROLL_ABS)));
  else if (trainer_scale_is_dynamic(o))
    u->made = finite;
  add_nonfinite(u, finite);
  if (trainer_scale_is_dynamic(o))
    update_scaling(u);
  const unroll_tensor condition = both(u->made, u->last);
  if (trainer_counts_on_device(o)) {
    const unroll_tensor step = unroll_graph_find(g, step_name(o));
    unroll_update(step, unroll_select(condition, u->step, step));
  }
  const unroll_tensor clip = o->clip > 0 ? nn_clip_factor(u->norm, o->clip) : unroll_none();
  for (uint32_t i = 0; i < u->n; i++) {
    unroll_tensor from = u->params[i];
    if (o->recurrent_decay > 0 && trainer_is_recurrent(u->names[i]))
      from = unroll_scale(from, 1 - o->recurrent_decay);
    graph_optimize(condition, u->params[i], from, u->grads[i], u->lr, u->step, clip, &o->optimizer);
  }
  trainer_history(u->b, TRAINER_LOSSES, u->of.loss, u->last);
  trainer_history(u->b, TRAINER_NORMS, u->norm, u->last);
  if (u->of.metric.graph)
    trainer_history(u->b, TRAINER_METRICS, u->of.metric, u->last);
}

unroll_status trainer_graph_finish(unroll_graph *g, unroll_graph **graph, unroll_error *err) {
  const unroll_status status = unroll_graph_status(g, err);
  if (status == UNROLL_OK)
    *graph = g;
  else
    unroll_graph_destroy(g);
  return status;
}

static unroll_status check_patterns(const struct trainer *t, unroll_graph *g, unroll_error *err) {
  const char *names[TRAINER_MAX_PARAMS];
  uint32_t n = 0;
  for (uint32_t i = 0; i < unroll_graph_count(g) && n < TRAINER_MAX_PARAMS; i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(g, i));
    if (info.role == UNROLL_ROLE_PARAM)
      names[n++] = info.name;
  }
  return trainer_check_patterns(&t->options, names, n, err);
}

static unroll_status build_train(const struct trainer *t, struct update *u, unroll_error *err) {
  struct trainer_build *b = u->b;
  begin_update(u);
  u->of = t->task->build(t->owner, b);
  TRY(unroll_graph_status(b->graph, err));
  TRY(check_patterns(t, b->graph, err));
  find_parameters(u);
  update_carries(b, t->options.nonfinite == UNROLL_NONFINITE_SKIP ? u->of.loss : unroll_none());
  make_gradients(u);
  make_norm(u);
  make_update(u);
  return unroll_graph_status(b->graph, err);
}

unroll_status trainer_graph_train(const struct trainer *t, uint32_t variant, struct trainer_build *b,
                                  unroll_error *err) {
  *b = (struct trainer_build){.training = true, .variant = variant, .parts = t->options.accumulate};
  struct update *u = mem_zalloc(&t->allocator, sizeof *u);
  if (!u)
    return fail(err, UNROLL_E_MEMORY, "model: no memory to make its graph");
  u->b = b;
  u->o = &t->options;
  unroll_status status = unroll_graph_create(&t->allocator, &b->graph, err);
  if (status == UNROLL_OK) {
    status = build_train(t, u, err);
    if (status != UNROLL_OK)
      unroll_graph_destroy(b->graph);
  }
  mem_free(&t->allocator, u);
  return status;
}

unroll_status trainer_graph_evaluate(const struct trainer *t, uint32_t variant, unroll_graph **graph,
                                     unroll_error *err) {
  struct trainer_build b = {.training = false, .variant = variant, .parts = 1};
  TRY(unroll_graph_create(&t->allocator, &b.graph, err));
  const struct trainer_loss of = t->task->build(t->owner, &b);
  trainer_update_carries(&b);
  trainer_history(&b, TRAINER_LOSSES, of.loss, unroll_none());
  if (of.weight.graph)
    trainer_history(&b, TRAINER_WEIGHTS, of.weight, unroll_none());
  if (of.metric.graph)
    trainer_history(&b, TRAINER_METRICS, of.metric, unroll_none());
  return trainer_graph_finish(b.graph, graph, err);
}
