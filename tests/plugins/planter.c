/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend for tests: another one's code, with one number of one step's result overwritten, as planter.h says. Layers and
 * scans are left to the host to spell out, so that there is a step, unless it is a layer's result that is meant; the node in
 * question stands in a group of its own, so that nothing has read its result yet.
 */
#include "planter.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>
#include <unroll/plugin.h>

#define PUBLIC __attribute__((visibility("default")))
PUBLIC planter planter_plan;

extern const unroll_plugin unroll_plugin_v1_cpu;
static const unroll_plugin *inner_plugin;
static const unroll_backend_ops *inner;

/* Where an executable has the result, and a binding of it. */
typedef struct place {
  const void *of, *exec; /* NULL: free */
  uint32_t slot, period;
  uint64_t offset;
  int64_t step;
  unroll_backend_buffer *buffer;
} place;
enum { MOST_PLACES = 256 };
static place execs[MOST_PLACES], bindings[MOST_PLACES];

static place *find(place *all, const void *of) {
  for (int i = 0; i < MOST_PLACES; i++)
    if (all[i].of == of)
      return &all[i];
  return NULL;
}

static const void *element_of(const void *array, uint32_t stride, uint32_t i) {
  return (const char *)array + (size_t)i * stride;
}

static bool is_whole(const planter *p) { return p->top || p->op == UNROLL_OP_LAYER; }

/* The result to plant in, or NULL. */
static const unroll_tensor_view *target(const unroll_graph_view *view, uint32_t i) {
  const planter *p = &planter_plan;
  const unroll_node_view *n = element_of(view->nodes, view->node_stride, i);
  if (!p->armed || !view->is_template != is_whole(p) || n->layer != p->layer || n->direction != p->direction)
    return NULL;
  if (n->op != p->op || (p->name && strcmp(n->name, p->name) != 0))
    return NULL;
  if (n->op == UNROLL_OP_MATMUL && ((const unroll_matmul_attr *)n->attr)->trans_b != p->kind)
    return NULL;
  if ((n->op == UNROLL_OP_UNARY || n->op == UNROLL_OP_BINARY) && *(const int32_t *)n->attr != p->kind)
    return NULL;
  const uint32_t id = p->output < n->n_out ? view->edges[n->first_out + p->output] : UNROLL_NO_TENSOR;
  if (id == UNROLL_NO_TENSOR)
    return NULL;
  const unroll_tensor_view *t = element_of(view->tensors, view->tensor_stride, id);
  return p->width && (t->rank < 1 || t->shape[t->rank - 1] != p->width) ? NULL : t;
}

static unroll_status claim(unroll_backend_device *device, const unroll_graph_view *view, unroll_claim *claims,
                           uint32_t stride, unroll_error *err) {
  const unroll_status status = inner->claim(device, view, claims, stride, err);
  for (uint32_t i = 0; i < view->n_nodes && status == UNROLL_OK; i++) {
    const unroll_node_view *n = element_of(view->nodes, view->node_stride, i);
    unroll_claim *c = (unroll_claim *)(void *)((char *)claims + (size_t)i * stride);
    const bool whole = n->op == UNROLL_OP_LAYER || n->op == UNROLL_OP_LAYER_GRAD || n->op == UNROLL_OP_SCAN;
    if (whole && planter_plan.op != UNROLL_OP_LAYER)
      *c = (unroll_claim){.group = 0};
    else if (c->group && target(view, i))
      c->group = 1u << 30;
  }
  return status;
}

static unroll_status compile(unroll_backend_device *device, const unroll_graph_view *view, const unroll_option *options,
                             uint32_t n_options, unroll_backend_exec **exec, unroll_error *err) {
  const unroll_status status = inner->compile(device, view, options, n_options, exec, err);
  for (uint32_t i = 0; i < view->n_nodes && status == UNROLL_OK; i++) {
    const unroll_tensor_view *t = target(view, i);
    place *x = t ? find(execs, NULL) : NULL;
    if (x)
      *x = (place){.of = *exec, .slot = t->slot, .period = t->period, .offset = t->offset, .step = t->step};
  }
  return status;
}

static void forget(place *all, const void *of) {
  place *x = of ? find(all, of) : NULL;
  if (x)
    *x = (place){.of = NULL};
}
static void exec_destroy(unroll_backend_exec *exec) {
  forget(execs, exec);
  inner->exec_destroy(exec);
}
static void binding_destroy(unroll_backend_binding *binding) {
  forget(bindings, binding);
  inner->binding_destroy(binding);
}

static unroll_status bind_(unroll_backend_exec *exec, const unroll_slot *slots, uint32_t n_slots, uint32_t stride,
                           unroll_backend_buffer *workspace, uint64_t offset, unroll_backend_binding **binding,
                           unroll_error *err) {
  const unroll_status status = inner->bind(exec, slots, n_slots, stride, workspace, offset, binding, err);
  const place *x = find(execs, exec);
  place *b = status == UNROLL_OK && x && x->slot < n_slots ? find(bindings, NULL) : NULL;
  if (b) {
    const unroll_slot *slot = element_of(slots, stride, x->slot);
    *b = *x;
    b->of = *binding;
    b->buffer = slot->buffer;
    b->offset += slot->offset;
  }
  return status;
}

static unroll_status run_steps(unroll_backend_binding *binding, unroll_backend_queue *queue,
                               const unroll_run_args *args, int64_t skip, int64_t count, unroll_error *err) {
  unroll_run_args part = *args;
  part.first += args->direction == UNROLL_REVERSE ? -skip : skip;
  part.count = count;
  return count > 0 ? inner->run(binding, queue, &part, NULL, err) : UNROLL_OK;
}

static unroll_status run(unroll_backend_binding *binding, unroll_backend_queue *queue, const unroll_run_args *args,
                         unroll_backend_event **event, unroll_error *err) {
  planter *p = &planter_plan;
  const place *b = find(bindings, binding);
  const bool whole = is_whole(p);
  const int64_t at = whole ? 0 : args->direction == UNROLL_REVERSE ? args->first - p->t : p->t - args->first;
  if (!p->armed || !b || at < 0 || (!whole && at >= args->count) ||
      (p->update != UINT64_MAX && p->update != args->update) || (p->row0 >= 0 && p->row0 != args->row0))
    return inner->run(binding, queue, args, event, err);
  const int64_t t = b->period ? p->t % (int64_t)b->period : p->t;
  const uint64_t offset = b->offset + (uint64_t)(t * b->step) + (uint64_t)p->element * sizeof p->value;
  if (event)
    *event = NULL;
  unroll_status status =
      whole ? inner->run(binding, queue, args, NULL, err) : run_steps(binding, queue, args, 0, at + 1, err);
  if (status == UNROLL_OK)
    status = inner->write(queue, b->buffer, offset, &p->value, sizeof p->value, NULL, err);
  p->hits++;
  if (status == UNROLL_OK && !whole)
    status = run_steps(binding, queue, args, at + 1, args->count - at - 1, err);
  return status;
}

static int32_t score(const unroll_host *host) {
  (void)host;
  return 2;
}

static unroll_status close_(unroll_backend *backend, unroll_error *err) { return inner_plugin->close(backend, err); }

static unroll_status open_(const unroll_host *host, const unroll_option *options, uint32_t n_options,
                           unroll_backend **backend, const unroll_backend_ops **out, unroll_error *err) {
  static unroll_backend_ops mine;
  inner_plugin = &unroll_plugin_v1_cpu;
  if (planter_plan.inner) {
    void *file = dlopen(planter_plan.inner, RTLD_NOW | RTLD_LOCAL);
    inner_plugin = file ? dlsym(file, UNROLL_PLUGIN_SYMBOL) : NULL;
    if (!inner_plugin)
      return UNROLL_E_NOT_FOUND;
  }
  const unroll_status status = inner_plugin->open(host, options, n_options, backend, &inner, err);
  if (status != UNROLL_OK)
    return status;
  mine = *inner;
  mine.claim = claim;
  mine.compile = compile;
  mine.exec_destroy = exec_destroy;
  mine.bind = bind_;
  mine.binding_destroy = binding_destroy;
  mine.run = run;
  *out = &mine;
  return UNROLL_OK;
}

UNROLL_PLUGIN_EXPORT("planter") = {UNROLL_PLUGIN_HEADER, 0, "planter", "1.0", "tests", score, open_, close_};
