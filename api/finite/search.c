/* SPDX-License-Identifier: Apache-2.0 */
/* search.c: a probed graph compiled, given what the caller's binding holds, run and read. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "finite/finite_private.h"
#include "runtime/runtime_private.h"

struct search {
  unroll_device *const *devices;
  uint32_t n_devices;
  unroll_binding *values;
  const unroll_run_options *run;
  unroll_nonfinite *found;
  unroll_allocator allocator;
};

/* ---- what is given ---- */

static double number(const void *data, int32_t dtype, uint64_t i) {
  return dtype == UNROLL_F64 ? ((const double *)data)[i] : (double)((const float *)data)[i];
}

static uint64_t elements(const unroll_graph *g, const tensor_spec *s, const struct search *k) {
  uint64_t n = (uint64_t)probed_extent(g, s, k->run ? k->run->dims : NULL, k->run && k->run->dims ? k->run->n_dims : 0);
  for (int32_t i = 1; i < s->rank; i++)
    n *= (uint64_t)s->shape[i];
  return n;
}

/* Is the tensor read by a mask of lengths alone? Then what stands past them is not looked at: the name of the lengths. */
static const char *masked_by(const unroll_graph *g, uint32_t id) {
  const char *name = NULL;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const node *n = &g->nodes[i];
    if (!node_reads(n, id))
      continue;
    const uint32_t lengths = n->op == UNROLL_OP_LENGTH_MASK && n->in[0] == id && n->attr.length_mask.time_axis == 0 &&
                                     !n->attr.length_mask.invert
                                 ? n->in[n->n_in - 1]
                             : n->op == UNROLL_OP_LAYER && n->in[0] == id && n->n_in > 7 ? n->in[7]
                                                                                         : GRAPH_NONE;
    if (lengths == GRAPH_NONE || g->tensors[lengths].role != UNROLL_ROLE_INPUT)
      return NULL;
    name = g->tensors[lengths].name;
  }
  return name;
}

/* Does some arithmetic read it, perhaps moved about before? */
static unroll_status find_live(const unroll_graph *g, bool **live, unroll_error *err) {
  *live = mem_array(&g->allocator, (uint64_t)g->n_tensors + 1, sizeof **live);
  if (!*live)
    return fail(err, UNROLL_E_MEMORY, "no memory to look at a graph's values");
  for (uint32_t i = 0; i < g->n_tensors; i++)
    (*live)[i] = g->tensors[i].role == UNROLL_ROLE_OUTPUT && strncmp(g->tensors[i].name, "finite.", 7) == 0;
  for (uint32_t i = g->n_nodes; i-- > 0;) {
    const node *n = &g->nodes[i];
    bool used = false;
    for (uint32_t o = 0; o < n->n_out; o++)
      used = used || (n->out[o] != GRAPH_NONE && (*live)[n->out[o]]);
    for (uint32_t k = 0; used && k < n->n_in; k++)
      if (n->in[k] != GRAPH_NONE)
        (*live)[n->in[k]] = true;
  }
  return UNROLL_OK;
}

static void note_given(const struct search *k, const struct probed *p, const tensor *t, const void *data, uint64_t n,
                       const int32_t *lengths) {
  unroll_nonfinite *f = k->found;
  const int64_t B = t->spec.rank > 1 ? t->spec.shape[1] : 1;
  uint64_t width = 1; /* of a step of a sequence */
  for (int32_t i = 2; i < t->spec.rank; i++)
    width *= (uint64_t)t->spec.shape[i];
  for (uint64_t i = 0; i < n; i++) {
    const double value = number(data, t->spec.dtype, i);
    if (isfinite(value) || (lengths && (int64_t)(i / width / (uint64_t)B) >= lengths[i / width % (uint64_t)B]))
      continue;
    f->given++;
    if (f->found)
      continue;
    f->found = 1;
    f->phase = UNROLL_PHASE_GIVEN;
    f->quantity = t->role == UNROLL_ROLE_INPUT   ? UNROLL_QUANTITY_INPUT
                  : t->role == UNROLL_ROLE_STATE ? UNROLL_QUANTITY_STATE
                                                 : UNROLL_QUANTITY_PARAMETER;
    f->unit = (int64_t)i;
    f->value = value;
    snprintf(f->tensor, sizeof f->tensor, "%s", t->name);
    if (t->role != UNROLL_ROLE_INPUT)
      continue;
    if (lengths || probed_has_steps(p, &t->spec, false)) {
      f->step = (int64_t)(i / width) / B;
      f->sequence = (int64_t)(i / width) % B;
      f->unit = t->spec.rank > 2 ? (int64_t)(i % width) : -1;
    } else if (t->spec.rank == 2 && t->spec.shape[0] == p->B) {
      f->sequence = (int64_t)i / B; /* B: what a sequence has of numbers */
      f->unit = (int64_t)i % B;
    }
  }
}

static unroll_status read_lengths(const struct search *k, const unroll_graph *g, uint32_t id, int32_t **lengths,
                                  unroll_error *err) {
  const char *name = masked_by(g, id);
  *lengths = NULL;
  if (!name)
    return UNROLL_OK;
  const uint64_t bytes = (uint64_t)g->tensors[id].spec.shape[1] * sizeof **lengths;
  *lengths = mem_alloc(&k->allocator, bytes);
  if (!*lengths)
    return fail(err, UNROLL_E_MEMORY, "no memory for the lengths %s", name);
  return unroll_binding_read(k->values, name, *lengths, bytes, err);
}

/* Every input, parameter and state goes from the caller's binding to b; those that are looked at are. */
static unroll_status give(const struct search *k, const struct probed *p, bool look, unroll_binding *b,
                          unroll_error *err) {
  const unroll_graph *g = p->graph;
  bool *live = NULL;
  unroll_status status = find_live(g, &live, err);
  for (uint32_t i = 0; i < g->n_tensors && status == UNROLL_OK; i++) {
    const tensor *t = &g->tensors[i];
    if ((t->role != UNROLL_ROLE_INPUT && t->role != UNROLL_ROLE_PARAM && t->role != UNROLL_ROLE_STATE) || !live[i])
      continue;
    const uint64_t n = elements(g, &t->spec, k), bytes = n * unroll_dtype_size(t->spec.dtype);
    int32_t *lengths = NULL;
    void *data = mem_alloc(&k->allocator, bytes);
    if (!data)
      status = fail(err, UNROLL_E_MEMORY, "no memory for %s, %llu bytes", t->name, (unsigned long long)bytes);
    if (status == UNROLL_OK)
      status = unroll_binding_read(k->values, t->name, data, bytes, err);
    if (status == UNROLL_OK && look && gradient_is_real(&t->spec))
      status = read_lengths(k, g, i, &lengths, err);
    if (status == UNROLL_OK && look && gradient_is_real(&t->spec))
      note_given(k, p, t, data, n, lengths);
    if (status == UNROLL_OK)
      status = unroll_binding_write(b, t->name, data, bytes, err);
    if (status == UNROLL_OK)
      status = unroll_binding_sync(b, err);
    mem_free(&k->allocator, lengths);
    mem_free(&k->allocator, data);
  }
  mem_free(&g->allocator, live);
  return status;
}

/* ---- a run ---- */

struct program {
  unroll_executable *exe;
  unroll_binding *binding;
};

static void program_free(struct program *x) {
  if (x->binding)
    unroll_binding_destroy(x->binding);
  if (x->exe)
    unroll_executable_destroy(x->exe);
}

static unroll_status program_run(const struct search *k, const struct probed *p, bool look, struct program *x,
                                 unroll_error *err) {
  *x = (struct program){NULL, NULL};
  unroll_status status = unroll_compile(p->graph, k->devices, k->n_devices, NULL, &x->exe, err);
  if (status != UNROLL_OK) {
    x->exe = NULL;
    return status;
  }
  if ((status = unroll_binding_create(x->exe, &x->binding, err)) != UNROLL_OK)
    x->binding = NULL;
  if (status == UNROLL_OK)
    status = give(k, p, look, x->binding, err);
  if (status == UNROLL_OK)
    status = unroll_run(x->binding, k->run, err);
  if (status == UNROLL_OK)
    status = unroll_binding_sync(x->binding, err);
  return status;
}

/* An output, as much of it as the run has made. */
static unroll_status read_output(const struct search *k, unroll_binding *b, const char *what, uint32_t i,
                                 uint64_t bytes, void **data, unroll_error *err) {
  char name[48];
  snprintf(name, sizeof name, "finite.%s.%u", what, i);
  *data = mem_alloc(&k->allocator, bytes);
  if (!*data)
    return fail(err, UNROLL_E_MEMORY, "no memory for %llu bytes of a graph's values", (unsigned long long)bytes);
  return unroll_binding_read(b, name, *data, bytes, err);
}

/* ---- the place ---- */

/* Row and column of the first number of a step that is not finite: by gate, then row, then unit. */
static bool first_in_step(const struct order *o, const struct probe *x, const void *data, int32_t dtype, int64_t step,
                          uint64_t *row, int64_t *column) {
  const uint64_t rows = order_rows(o, x);
  const int64_t width = x->reduced ? x->spec.shape[x->spec.rank - 1] : 1;
  const int64_t n = x->label.first >= 0 && x->label.n > 0 && width % x->label.n == 0 ? x->label.n : 1, H = width / n;
  for (int64_t gate = 0; gate < n; gate++)
    for (uint64_t r = 0; r < rows; r++)
      for (int64_t u = 0; u < H; u++) {
        const uint64_t at = ((uint64_t)step * rows + r) * (uint64_t)width + (uint64_t)(gate * H + u);
        if (isfinite(number(data, dtype, at)) || order_is_past(o, x, step, r))
          continue;
        *row = r;
        *column = gate * H + u;
        return true;
      }
  return false;
}

/* May rows stand for sequences? Not those of a weight's gradient, of which there are as many now and then. */
static bool is_of_batch(const struct order *o, const struct probe *x) {
  const unroll_graph *g = o->p->graph;
  const node *n = &g->nodes[x->node];
  if (x->phase == UNROLL_PHASE_FORWARD)
    return x->spec.rank <= 2;
  if (x->param != GRAPH_NONE || x->phase == UNROLL_PHASE_UPDATE || x->spec.rank != 2 ||
      (n->op == UNROLL_OP_MATMUL && n->attr.matmul.trans_a))
    return false;
  for (uint32_t i = 0; i < g->n_tensors; i++)
    if (g->tensors[i].role == UNROLL_ROLE_PARAM && graph_same_shape(&g->tensors[i].spec, &x->spec))
      return false;
  return true;
}

static void name_place(const struct search *k, const struct order *o, const struct probe *x, int64_t step, uint64_t row,
                       int64_t column, double value) {
  unroll_nonfinite *f = k->found;
  const unroll_graph *g = o->p->graph;
  const node *n = &g->nodes[x->node], *m = x->inner == GRAPH_NONE ? n : &n->body->nodes[x->inner];
  const uint64_t rows = order_rows(o, x);
  const bool batched = is_of_batch(o, x);
  const int64_t B = o->p->B, width = x->reduced ? x->spec.shape[x->spec.rank - 1] : 1;
  f->found = 1;
  f->phase = x->phase;
  f->quantity = x->label.quantity;
  f->layer = x->layer;
  f->direction = x->direction;
  f->value = value;
  f->unit = column;
  if (x->stepwise) {
    f->step = x->t0 + step;
    if (x->spec.rank >= 2 && B > 0 && x->spec.shape[1] == B) {
      const uint64_t of_sequence = rows / (uint64_t)B;
      f->sequence = (int64_t)(row / of_sequence);
      if (!x->reduced)
        f->unit = -1;
      else
        f->unit = (int64_t)(row % of_sequence) * width + column;
    } else if (!x->reduced)
      f->unit = (int64_t)row;
  } else if (batched && probed_has_steps(o->p, &x->spec, true)) {
    f->step = (int64_t)row / B; /* time and batch in one axis */
    f->sequence = (int64_t)row % B;
    f->unit = x->spec.rank == 2 ? column : -1;
  } else if (batched && x->spec.rank == 2 && probed_has_steps(o->p, &x->spec, false)) {
    f->step = (int64_t)row;
    f->sequence = column;
    f->unit = -1;
  } else if (batched && x->spec.rank == 2 && B > 0 && x->spec.shape[0] == B)
    f->sequence = (int64_t)row;
  else
    f->unit = x->spec.rank == 0 ? -1 : (int64_t)row * width + column;
  if (x->label.first >= 0 && x->label.n > 0 && width % x->label.n == 0) {
    const int64_t H = width / x->label.n;
    f->gate = x->label.first + (int32_t)(column / H);
    f->unit = column % H;
    char name[LABEL_NAME];
    label_gate_name(x->family, f->gate, name);
    snprintf(f->gate_name, sizeof f->gate_name, "%s", name);
    if (x->family == FAMILY_RNN)
      f->gate = -1;
  }
  snprintf(f->tensor, sizeof f->tensor, "%s", x->param == GRAPH_NONE ? m->name : g->tensors[x->param].name);
  snprintf(f->op, sizeof f->op, "%s", graph_op_name(m->op));
}

/* ---- why ---- */

struct beside { /* a value of the same body, given out whole */
  tensor_spec spec;
  struct label label;
  bool before; /* a carry, as the step finds it */
};
enum { MOST_BESIDE = 8 };

static unroll_status add_beside(struct probed *p, uint32_t scan, uint32_t id, struct label label, bool before,
                                struct beside *all, uint32_t *n, unroll_error *err) {
  if (*n == MOST_BESIDE)
    return UNROLL_OK;
  all[*n].label = label;
  all[*n].before = before;
  TRY(probed_add_value(p, scan, id, 1 + *n, &all[*n].spec, err));
  ++*n;
  return UNROLL_OK;
}

/* The gates and the carries of the step. */
static unroll_status give_out_beside(struct probed *p, const struct probe *x, struct beside *all, uint32_t *n,
                                     unroll_error *err) {
  if (x->inner == GRAPH_NONE || x->layer < 0)
    return UNROLL_OK;
  const unroll_graph *b = p->graph->nodes[x->node].body;
  const uint32_t n_carries = b->n_carries;
  for (uint32_t i = 0; i < p->n; i++) {
    const struct probe *y = &p->probes[i];
    if (y->node == x->node && y->inner != GRAPH_NONE && y->tensor != x->tensor && y->label.first >= 0 &&
        y->label.quantity == UNROLL_QUANTITY_GATE && x->label.quantity >= UNROLL_QUANTITY_CELL)
      TRY(add_beside(p, x->node, y->tensor, y->label, false, all, n, err));
  }
  for (uint32_t i = 0; i < n_carries && i < 2; i++) {
    const bool cell = i == 1;
    if (cell && x->family != FAMILY_LSTM && x->family != FAMILY_COUPLED)
      continue;
    if (p->graph->nodes[x->node].body->tensors[b->carries[i].in].spec.rank != 2)
      continue;
    const struct label l = {cell ? UNROLL_QUANTITY_CELL : UNROLL_QUANTITY_HIDDEN, -1, 0};
    TRY(add_beside(p, x->node, b->carries[i].in, l, true, all, n, err));
  }
  return UNROLL_OK;
}

static void add_text(unroll_nonfinite *f, const char *what, const char *more, double value) {
  const size_t used = strlen(f->context);
  char number[32] = "NaN"; /* which printf has with a sign, now and then */
  if (!isnan(value))
    snprintf(number, sizeof number, "%.4g", value);
  snprintf(f->context + used, sizeof f->context - used, "%s%s%s %s", used ? ", " : "", what, more, number);
}

static void say_beside(const struct search *k, const struct probe *x, int64_t step, const struct beside *y,
                       const void *data) {
  unroll_nonfinite *f = k->found;
  const int64_t B = y->spec.shape[1], width = y->spec.shape[y->spec.rank - 1];
  if (y->spec.rank != 3 || f->sequence < 0 || f->sequence >= B || f->unit < 0)
    return;
  const uint64_t row = ((uint64_t)step * (uint64_t)B + (uint64_t)f->sequence) * (uint64_t)width;
  if (y->before && x->label.quantity != y->label.quantity) { /* what products have read: the largest of it */
    double most = 0;
    for (int64_t u = 0; u < width; u++)
      most = fmax(most, fabs(number(data, y->spec.dtype, row + (uint64_t)u)));
    add_text(f, unroll_quantity_name(y->label.quantity),
             f->phase == UNROLL_PHASE_GRADIENT ? "'s gradient that came in up to" : " before up to", most);
  } else if (y->before && f->unit < width)
    add_text(f, unroll_quantity_name(y->label.quantity),
             f->phase == UNROLL_PHASE_GRADIENT ? "'s gradient that came in" : " before",
             number(data, y->spec.dtype, row + (uint64_t)f->unit));
  for (int32_t g = 0; !y->before && g < y->label.n; g++) {
    const int64_t H = width / y->label.n;
    char name[LABEL_NAME];
    label_gate_name(x->family, y->label.first + g, name);
    if (f->unit < H && name[0])
      add_text(f, name, f->phase == UNROLL_PHASE_GRADIENT ? "'s gradient" : "",
               number(data, y->spec.dtype, row + (uint64_t)(g * H + f->unit)));
  }
}

/* ---- both runs ---- */

static const int64_t *run_dims(const struct search *k, uint32_t *n) {
  *n = k->run && k->run->dims ? k->run->n_dims : 0;
  return *n ? k->run->dims : NULL;
}

/* The second run, of the same graph: the value itself. */
static unroll_status look_closer(const struct search *k, const unroll_graph *from, bool keep_layers,
                                 const struct order *seen, struct where at, unroll_error *err) {
  const struct probe *x = &seen->p->probes[at.probe];
  struct probed p;
  struct program program = {NULL, NULL};
  struct beside beside[MOST_BESIDE];
  uint32_t n = 0;
  tensor_spec spec;
  void *data = NULL;
  uint64_t row = 0;
  int64_t column = 0;
  unroll_status status = probed_make(from, keep_layers, &p, err);
  if (status == UNROLL_OK)
    status = probed_add_value(&p, x->inner == GRAPH_NONE ? GRAPH_NONE : x->node, x->tensor, 0, &spec, err);
  if (status == UNROLL_OK)
    status = give_out_beside(&p, x, beside, &n, err);
  if (status == UNROLL_OK)
    status = program_run(k, &p, false, &program, err);
  if (status == UNROLL_OK)
    status = read_output(k, program.binding, "value", 0, elements(p.graph, &spec, k) * unroll_dtype_size(spec.dtype),
                         &data, err);
  if (status == UNROLL_OK) {
    if (first_in_step(seen, x, data, spec.dtype, at.step, &row, &column)) {
      const uint64_t width = x->reduced ? (uint64_t)spec.shape[spec.rank - 1] : 1;
      const uint64_t i = ((uint64_t)at.step * order_rows(seen, x) + row) * width + (uint64_t)column;
      name_place(k, seen, x, at.step, row, column, number(data, spec.dtype, i));
    } else { /* it is another one each time: a device that is not deterministic */
      name_place(k, seen, x, at.step, 0, 0, (double)NAN);
      k->found->sequence = k->found->unit = k->found->gate = -1;
      k->found->gate_name[0] = '\0';
    }
  }
  for (uint32_t i = 0; i < n && status == UNROLL_OK; i++) {
    mem_free(&k->allocator, data);
    status = read_output(k, program.binding, "value", 1 + i,
                         elements(p.graph, &beside[i].spec, k) * unroll_dtype_size(beside[i].spec.dtype), &data, err);
    if (status == UNROLL_OK)
      say_beside(k, x, at.step, &beside[i], data);
  }
  mem_free(&k->allocator, data);
  program_free(&program);
  probed_free(&p);
  return status;
}

static unroll_status read_marks(const struct search *k, struct order *o, unroll_binding *b, unroll_error *err) {
  for (uint32_t i = 0; i < o->p->n; i++) {
    const struct probe *x = &o->p->probes[i];
    const uint64_t rows = (uint64_t)order_steps(o, x) * order_rows(o, x);
    void *data = NULL;
    const unroll_status status = read_output(k, b, "mark", i, rows * sizeof(float), &data, err);
    o->marks[i] = data;
    TRY(status);
  }
  for (uint32_t i = 0; i < o->p->n_lengths; i++) {
    const tensor_spec *s = &o->p->graph->tensors[o->p->lengths[i]].spec;
    void *data = NULL;
    const unroll_status status = read_output(k, b, "lengths", i, (uint64_t)s->shape[0] * sizeof(int32_t), &data, err);
    o->lengths[i] = data;
    TRY(status);
  }
  return UNROLL_OK;
}

static unroll_status search(const struct search *k, const unroll_graph *from, bool keep_layers, unroll_error *err) {
  struct probed p;
  struct program program = {NULL, NULL};
  struct order o = {.p = &p};
  uint64_t counts[UNROLL_PHASE_COUNT] = {0};
  const unroll_allocator *a = &k->allocator;
  o.dims = run_dims(k, &o.n_dims);
  unroll_status status = probed_make(from, keep_layers, &p, err);
  if (status == UNROLL_OK)
    status = probed_add_marks(&p, err);
  if (status == UNROLL_OK)
    status = program_run(k, &p, !keep_layers, &program, err);
  if (status == UNROLL_OK) {
    o.marks = mem_array(a, (uint64_t)p.n + 1, sizeof *o.marks);
    o.lengths = mem_array(a, (uint64_t)p.n_lengths + 1, sizeof *o.lengths);
    if (!o.marks || !o.lengths)
      status = fail(err, UNROLL_E_MEMORY, "no memory to look at a graph's values");
  }
  if (status == UNROLL_OK)
    status = read_marks(k, &o, program.binding, err);
  program_free(&program);
  if (status == UNROLL_OK) {
    const struct where first = order_first(&o, counts);
    k->found->values = counts[UNROLL_PHASE_FORWARD];
    k->found->gradients = counts[UNROLL_PHASE_GRADIENT];
    if (first.probe != GRAPH_NONE && !k->found->found) {
      status = look_closer(k, from, keep_layers, &o, first, err);
      k->found->fused = keep_layers;
    }
  }
  for (uint32_t i = 0; o.marks && i < p.n; i++)
    mem_free(a, o.marks[i]);
  for (uint32_t i = 0; o.lengths && i < p.n_lengths; i++)
    mem_free(a, o.lengths[i]);
  mem_free(a, o.marks);
  mem_free(a, o.lengths);
  probed_free(&p);
  return status;
}

static bool has_layers(const unroll_graph *g) {
  for (uint32_t i = 0; i < g->n_nodes; i++)
    if (g->nodes[i].op == UNROLL_OP_LAYER)
      return true;
  return false;
}

unroll_status unroll_nonfinite_find(const unroll_graph *graph, unroll_device *const *devices, uint32_t n_devices,
                                    unroll_binding *values, const unroll_run_options *run, unroll_nonfinite *found,
                                    unroll_error *err) {
  if (!graph || !devices || n_devices == 0 || !values || !found)
    return fail(err, UNROLL_E_INVALID, "unroll_nonfinite_find: %s",
                !graph    ? "graph is NULL"
                : !values ? "values is NULL"
                : !found  ? "found is NULL"
                          : "no device was given");
  if (found->struct_size < sizeof *found)
    return fail(err, UNROLL_E_INVALID, "unroll_nonfinite: struct_size %u, it must be at least %zu", found->struct_size,
                sizeof *found);
  TRY(unroll_graph_status(graph, err));
  TRY(run_check(graph, run, err));
  *found = (unroll_nonfinite){.struct_size = found->struct_size,
                              .layer = -1,
                              .direction = -1,
                              .step = -1,
                              .sequence = -1,
                              .unit = -1,
                              .gate = -1};
  const struct search k = {.devices = devices,
                           .n_devices = n_devices,
                           .values = values,
                           .run = run,
                           .found = found,
                           .allocator = graph->allocator};
  TRY(search(&k, graph, false, err));
  if (!found->found && has_layers(graph))
    TRY(search(&k, graph, true, err));
  if (found->step >= 0 && run)
    found->step += run->t0;
  if (found->sequence >= 0 && run)
    found->sequence += run->row0;
  return UNROLL_OK;
}
