/* SPDX-License-Identifier: Apache-2.0 */
/* graph.c: the graph as a container: tensors, nodes, names, run-time sizes, the first error. */
#include "graph/graph_private.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *graph_op_name(uint32_t op) {
  switch (op) {
#define CASE(code, value, text) \
  case code: return text;
    UNROLL_OPS(CASE)
#undef CASE
  default: return "?";
  }
}

uint32_t graph_attr_size(uint32_t op) {
  switch (op) {
  case UNROLL_OP_MATMUL: return sizeof(unroll_matmul_attr);
  case UNROLL_OP_UNARY: return sizeof(unroll_unary_attr);
  case UNROLL_OP_BINARY: return sizeof(unroll_binary_attr);
  case UNROLL_OP_REDUCE: return sizeof(unroll_reduce_attr);
  case UNROLL_OP_SLICE: return sizeof(unroll_slice_attr);
  case UNROLL_OP_PAD: return sizeof(unroll_pad_attr);
  case UNROLL_OP_CONCAT: return sizeof(unroll_axis_attr);
  case UNROLL_OP_TRANSPOSE: return sizeof(unroll_transpose_attr);
  case UNROLL_OP_CONSTANT: return sizeof(unroll_constant_attr);
  case UNROLL_OP_DROPOUT: return sizeof(unroll_dropout_attr);
  case UNROLL_OP_CATEGORICAL: return sizeof(unroll_categorical_attr);
  case UNROLL_OP_LENGTH_MASK: return sizeof(unroll_length_mask_attr);
  case UNROLL_OP_RANDOM: return sizeof(unroll_random_attr);
  case UNROLL_OP_TOP_K: return sizeof(unroll_top_k_attr);
  case UNROLL_OP_LINEAR_SCAN:
  case UNROLL_OP_LINEAR_SCAN_GRAD: return sizeof(unroll_linear_scan_attr);
  case UNROLL_OP_LAYER_NORM:
  case UNROLL_OP_LAYER_NORM_GRAD:
  case UNROLL_OP_LSTM_GATES:
  case UNROLL_OP_LSTM_GATES_GRAD: return sizeof(unroll_layer_norm_attr);
  case UNROLL_OP_OPTIMIZER: return sizeof(unroll_optimizer_attr);
  case UNROLL_OP_LAYER:
  case UNROLL_OP_LAYER_GRAD: return sizeof(unroll_layer_attr);
  case UNROLL_OP_SCAN: return sizeof(unroll_scan_attr);
  default: return 0;
  }
}

static bool has_input_from(const node *n, uint32_t first) {
  bool has = false;
  for (uint32_t i = first; i < n->n_in; i++)
    has = has || n->in[i] != GRAPH_NONE;
  return has;
}

uint32_t graph_op_version(const node *n) {
  enum { LAYER_INPUTS = 8, LAYER_GRAD_INPUTS = 13, LAYER_GRAD_SUMS = 17 }; /* of version 1, and of version 2 */
  bool newer = false;
  switch (n->op) {
  case UNROLL_OP_REDUCE: newer = n->n_in > 1 && n->in[1] != GRAPH_NONE; break;
  case UNROLL_OP_DROPOUT: newer = n->attr.dropout.t0 != 0; break;
  case UNROLL_OP_CATEGORICAL: newer = n->attr.categorical.top_p > 0 && n->attr.categorical.top_p < 1; break;
  case UNROLL_OP_LAYER: newer = has_input_from(n, LAYER_INPUTS); break;
  case UNROLL_OP_LSTM_GATES: newer = n->n_in > 2 && n->in[2] != GRAPH_NONE; break;
  case UNROLL_OP_LSTM_GATES_GRAD: newer = n->n_in > 4 && n->in[4] != GRAPH_NONE; break;
  case UNROLL_OP_LAYER_GRAD:
    if (has_input_from(n, LAYER_GRAD_SUMS))
      return 3;
    newer = has_input_from(n, LAYER_GRAD_INPUTS);
    break;
  default: break;
  }
  return newer ? 2 : 1;
}

/* ---- life ---- */

unroll_status unroll_graph_create(const unroll_allocator *allocator, unroll_graph **graph, unroll_error *err) {
  if (!graph)
    return fail(err, UNROLL_E_INVALID, "unroll_graph_create: graph is NULL");
  *graph = NULL;
  unroll_graph *g = mem_zalloc(allocator, sizeof *g);
  if (!g)
    return fail(err, UNROLL_E_MEMORY, "out of memory for a graph");
  if (allocator)
    g->allocator = *allocator;
  g->error.struct_size = sizeof g->error;
  g->layer = -1;
  g->direction = -1;
  g->steps_dim = -1;
  *graph = g;
  return UNROLL_OK;
}

unroll_graph *graph_create_body(unroll_graph *parent) {
  unroll_graph *body;
  if (unroll_graph_create(&parent->allocator, &body, NULL) != UNROLL_OK) {
    graph_fail(parent, UNROLL_E_MEMORY, "out of memory for the body of a scan");
    return NULL;
  }
  body->parent = parent;
  body->layer = parent->layer;
  return body;
}

void graph_node_free(unroll_graph *g, node *n) {
  mem_free(&g->allocator, n->in);
  mem_free(&g->allocator, n->out);
  mem_free(&g->allocator, n->name);
  unroll_graph_destroy(n->body);
}

void unroll_graph_destroy(unroll_graph *g) {
  if (!g)
    return;
  const unroll_allocator a = g->allocator;
  while (g->open_scans) {
    unroll_scan *s = g->open_scans;
    g->open_scans = s->next_open;
    unroll_graph_destroy(s->body);
    mem_free(&a, s);
  }
  while (g->cut) {
    unroll_graph *body = g->cut;
    g->cut = body->next_cut;
    unroll_graph_destroy(body);
  }
  for (uint32_t i = 0; i < g->n_nodes; i++)
    graph_node_free(g, &g->nodes[i]);
  for (uint32_t i = 0; i < g->n_tensors; i++)
    mem_free(&a, g->tensors[i].name);
  for (uint32_t i = 0; i < g->n_dims; i++)
    mem_free(&a, g->dims[i].name);
  mem_free(&a, g->nodes);
  mem_free(&a, g->tensors);
  mem_free(&a, g->dims);
  mem_free(&a, g->carries);
  mem_free(&a, g->inputs);
  mem_free(&a, g->captures);
  mem_free(&a, g->outputs);
  mem_free(&a, g->regions);
  mem_free(&a, g);
}

/* ---- errors: a body hands its own to the graph around it ---- */

unroll_tensor graph_fail(unroll_graph *g, unroll_status code, const char *format, ...) {
  g = g ? graph_root(g) : NULL;
  if (g && g->error.code == UNROLL_OK) {
    va_list args;
    va_start(args, format);
    g->error.code = code;
    vsnprintf(g->error.message, sizeof g->error.message, format, args);
    va_end(args);
  }
  return unroll_none();
}

bool graph_failed(const unroll_graph *g) { return graph_root_of(g)->error.code != UNROLL_OK; }

unroll_status unroll_graph_status(const unroll_graph *g, unroll_error *err) {
  if (!g)
    return fail(err, UNROLL_E_INVALID, "the graph is NULL");
  g = graph_root_of(g);
  if (g->error.code != UNROLL_OK)
    return fail(err, g->error.code, "%s", g->error.message);
  if (g->open_scans)
    return fail(err, UNROLL_E_GRAPH, "a scan was begun and not ended (unroll_scan_end)");
  if (g->region)
    return fail(err, UNROLL_E_GRAPH, "a region was begun and not ended (unroll_checkpoint_end)");
  return UNROLL_OK;
}

/* ---- tensors ---- */

unroll_tensor graph_handle(unroll_graph *g, uint32_t id) {
  unroll_tensor x = {id == GRAPH_NONE ? NULL : g, id == GRAPH_NONE ? 0 : id};
  return x;
}

const tensor_spec *graph_spec(unroll_tensor x) { return &x.graph->tensors[x.id].spec; }

tensor_spec graph_make_spec(int32_t dtype, int32_t rank, const int64_t *shape) {
  tensor_spec s = {.dtype = dtype, .rank = rank};
  for (int i = 0; i < UNROLL_MAX_RANK; i++) {
    s.shape[i] = i < rank ? shape[i] : 1;
    s.dim[i] = -1;
  }
  return s;
}

bool graph_same_shape(const tensor_spec *a, const tensor_spec *b) {
  if (a->rank != b->rank)
    return false;
  for (int i = 0; i < a->rank; i++)
    if (a->shape[i] != b->shape[i] || a->dim[i] != b->dim[i])
      return false;
  return true;
}

/* Takes over name. */
uint32_t graph_add_tensor(unroll_graph *g, const tensor_spec *spec, int32_t role, uint32_t producer, char *name) {
  if (!name || !mem_grow(&g->allocator, &g->tensors, &g->tensors_capacity, g->n_tensors + 1, sizeof *g->tensors)) {
    mem_free(&g->allocator, name);
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for tensor %u of a graph", g->n_tensors);
    return GRAPH_NONE;
  }
  tensor *t = &g->tensors[g->n_tensors];
  *t = (tensor){.spec = *spec, .name = name, .role = role, .producer = producer, .update = GRAPH_NONE};
  return g->n_tensors++;
}

const char *graph_describe(const unroll_graph *g, uint32_t id, char *buffer) {
  if (id == GRAPH_NONE)
    return "(none)";
  const tensor *t = &g->tensors[id];
  int n = snprintf(buffer, GRAPH_DESCRIBE, "%.60s %s [", t->name, unroll_dtype_name(t->spec.dtype));
  for (int i = 0; i < t->spec.rank && n < GRAPH_DESCRIBE; i++) {
    const char *comma = i ? "," : "";
    const int32_t dim = t->spec.dim[i];
    const unroll_graph *root = graph_root_of(g);
    const int64_t times = dim >= 0 ? t->spec.shape[i] / root->dims[dim].max : 0;
    if (dim >= 0 && times == 1)
      n += snprintf(buffer + n, (size_t)(GRAPH_DESCRIBE - n), "%s%.20s", comma, root->dims[dim].name);
    else if (dim >= 0)
      n += snprintf(buffer + n, (size_t)(GRAPH_DESCRIBE - n), "%s%.20s*%" PRId64, comma, root->dims[dim].name, times);
    else
      n += snprintf(buffer + n, (size_t)(GRAPH_DESCRIBE - n), "%s%" PRId64, comma, t->spec.shape[i]);
  }
  if (n < GRAPH_DESCRIBE)
    snprintf(buffer + n, (size_t)(GRAPH_DESCRIBE - n), "]");
  return buffer;
}

int64_t unroll_graph_dim(unroll_graph *g, const char *name, int64_t min, int64_t max) {
  if (!g || graph_failed(g))
    return 1;
  if (g->parent) {
    graph_fail(g, UNROLL_E_STATE, "run-time size %s: the body of a scan cannot have its own", name ? name : "(NULL)");
    return 1;
  }
  if (!name || !*name || min < 1 || max < min) {
    graph_fail(g, UNROLL_E_INVALID, "run-time size %s: %" PRId64 " to %" PRId64 ", expected 1 <= min <= max and a name",
               name ? name : "(NULL)", min, max);
    return 1;
  }
  for (uint32_t i = 0; i < g->n_dims; i++)
    if (strcmp(g->dims[i].name, name) == 0) {
      graph_fail(g, UNROLL_E_INVALID, "run-time size %s: the name is taken", name);
      return 1;
    }
  char *copy = mem_strdup(&g->allocator, name);
  if (!copy || !mem_grow(&g->allocator, &g->dims, &g->dims_capacity, g->n_dims + 1, sizeof *g->dims)) {
    mem_free(&g->allocator, copy);
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for run-time size %s", name);
    return 1;
  }
  g->dims[g->n_dims] = (graph_dim){copy, min, max};
  return -(int64_t)++g->n_dims;
}

unroll_status graph_spec_of_shape(unroll_graph *g, const char *what, int32_t dtype, int32_t rank, const int64_t *shape,
                                  tensor_spec *spec) {
  const unroll_graph *root = graph_root_of(g);
  if (unroll_dtype_size(dtype) == 0) {
    graph_fail(g, UNROLL_E_DTYPE, "%s: %d is no element type", what, dtype);
    return UNROLL_E_DTYPE;
  }
  if (rank < 0 || rank > UNROLL_MAX_RANK || (rank > 0 && !shape)) {
    graph_fail(g, UNROLL_E_SHAPE, "%s: rank %d, expected 0 to %d and a shape", what, rank, UNROLL_MAX_RANK);
    return UNROLL_E_SHAPE;
  }
  *spec = graph_make_spec(dtype, rank, shape);
  int64_t elements = 1;
  for (int i = 0; i < rank; i++) {
    const bool run_time = shape[i] < 0 && shape[i] >= -(int64_t)root->n_dims;
    if (run_time && i == 0) {
      spec->dim[i] = (int32_t)(-shape[i] - 1);
      spec->shape[i] = root->dims[spec->dim[i]].max;
    } else if (run_time) {
      graph_fail(g, UNROLL_E_UNSUPPORTED, "%s: axis %d has the run-time size %s, only axis 0 can have one", what, i,
                 root->dims[-shape[i] - 1].name);
      return UNROLL_E_UNSUPPORTED;
    } else if (shape[i] < 1) {
      graph_fail(g, UNROLL_E_SHAPE, "%s: axis %d has extent %" PRId64 ", expected at least 1", what, i, shape[i]);
      return UNROLL_E_SHAPE;
    }
    if (elements > (INT64_MAX / 16) / spec->shape[i]) {
      graph_fail(g, UNROLL_E_SHAPE, "%s: its number of elements does not fit into 64 bits", what);
      return UNROLL_E_SHAPE;
    }
    elements *= spec->shape[i];
  }
  return UNROLL_OK;
}

static unroll_tensor outside_tensor(unroll_graph *g, const char *name, int32_t dtype, int32_t rank,
                                    const int64_t *shape, int32_t role) {
  tensor_spec spec;
  if (!g || graph_failed(g))
    return unroll_none();
  if (!name || !*name)
    return graph_fail(g, UNROLL_E_INVALID, "a tensor that lives outside of a run needs a name");
  if (g->parent)
    return graph_fail(g, UNROLL_E_STATE, "%s: make it in the graph around the scan, the body captures it", name);
  if (unroll_graph_find(g, name).graph)
    return graph_fail(g, UNROLL_E_INVALID, "%s: the name is taken", name);
  if (graph_spec_of_shape(g, name, dtype, rank, shape, &spec) != UNROLL_OK)
    return unroll_none();
  return graph_handle(g, graph_add_tensor(g, &spec, role, GRAPH_NONE, mem_strdup(&g->allocator, name)));
}

unroll_tensor unroll_input(unroll_graph *g, const char *name, int32_t dtype, int32_t rank, const int64_t *shape) {
  return outside_tensor(g, name, dtype, rank, shape, UNROLL_ROLE_INPUT);
}
unroll_tensor unroll_param(unroll_graph *g, const char *name, int32_t dtype, int32_t rank, const int64_t *shape) {
  return outside_tensor(g, name, dtype, rank, shape, UNROLL_ROLE_PARAM);
}
unroll_tensor unroll_state(unroll_graph *g, const char *name, int32_t dtype, int32_t rank, const int64_t *shape) {
  return outside_tensor(g, name, dtype, rank, shape, UNROLL_ROLE_STATE);
}

unroll_tensor unroll_constant(unroll_graph *g, int32_t dtype, int32_t rank, const int64_t *shape, double value) {
  tensor_spec spec;
  if (!g || graph_failed(g) || graph_spec_of_shape(g, "constant", dtype, rank, shape, &spec) != UNROLL_OK)
    return unroll_none();
  return graph_zeros_like(g, &spec, value);
}

unroll_tensor unroll_reshape(unroll_tensor x, int32_t rank, const int64_t *shape) {
  unroll_graph *g = x.graph;
  if (!g || graph_failed(g))
    return unroll_none();
  const tensor_spec *s = graph_spec(x);
  int64_t given[UNROLL_MAX_RANK] = {0}, known = 1, all = 1;
  int inferred = -1;
  for (int i = 0; i < s->rank; i++)
    all *= s->shape[i];
  for (int i = 0; i < rank && i < UNROLL_MAX_RANK; i++) {
    given[i] = shape[i];
    if (shape[i] == 0 && inferred < 0) {
      inferred = i;
      given[i] = 1;
    } else if (shape[i] < 0 && i == 0 && s->dim[0] >= 0 && shape[i] == -(int64_t)s->dim[0] - 1)
      known *= graph_root(g)->dims[s->dim[0]].max;
    else if (shape[i] > 0 && !extent_mul(known, shape[i], &known))
      return graph_fail(g, UNROLL_E_SHAPE, "reshape: its number of elements does not fit into 64 bits");
  }
  tensor_spec spec;
  if (graph_spec_of_shape(g, "reshape", s->dtype, rank, given, &spec) != UNROLL_OK)
    return unroll_none();
  if (inferred >= 0) {
    spec.shape[inferred] = all / known;
    if (inferred == 0 && s->rank > 0)
      spec.dim[0] = s->dim[0];
  }
  return graph_reshape(x, &spec);
}

/* ---- outside tensors, as the caller sees them ---- */

static bool is_outside(const tensor *t) {
  return t->role == UNROLL_ROLE_INPUT || t->role == UNROLL_ROLE_PARAM || t->role == UNROLL_ROLE_STATE ||
         t->role == UNROLL_ROLE_OUTPUT;
}

unroll_tensor unroll_output(unroll_tensor x, const char *name) {
  unroll_graph *g = x.graph;
  if (!g || graph_failed(g))
    return unroll_none();
  if (g->parent)
    return graph_fail(g, UNROLL_E_STATE, "output %s: give it out of the scan first (unroll_scan_output)",
                      name ? name : "(NULL)");
  if (!name || !*name || unroll_graph_find(g, name).graph)
    return graph_fail(g, UNROLL_E_INVALID, "output %s: the name is missing or taken", name ? name : "(NULL)");
  if (g->tensors[x.id].role != UNROLL_ROLE_TEMP || g->tensors[x.id].pending)
    x = unroll_unary(x, UNROLL_COPY);
  char *copy = mem_strdup(&g->allocator, name);
  if (!copy || !x.graph) {
    mem_free(&g->allocator, copy);
    return graph_fail(g, UNROLL_E_MEMORY, "out of memory for output %s", name);
  }
  tensor *t = &g->tensors[x.id];
  mem_free(&g->allocator, t->name);
  t->name = copy;
  t->role = UNROLL_ROLE_OUTPUT;
  return x;
}

void unroll_update(unroll_tensor target, unroll_tensor value) {
  unroll_graph *g = target.graph;
  if (!g || !value.graph || graph_failed(g))
    return;
  char a[GRAPH_DESCRIBE], b[GRAPH_DESCRIBE];
  tensor *t = &g->tensors[target.id];
  if (t->role != UNROLL_ROLE_PARAM && t->role != UNROLL_ROLE_STATE)
    graph_fail(g, UNROLL_E_GRAPH, "update of %s: only a parameter or a state can be updated",
               graph_describe(g, target.id, a));
  else if (value.graph != g || g->tensors[value.id].pending)
    graph_fail(g, UNROLL_E_GRAPH, "update of %s: the new value stands in another graph",
               graph_describe(g, target.id, a));
  else if (t->update != GRAPH_NONE)
    graph_fail(g, UNROLL_E_GRAPH, "update of %s: it has been given already", graph_describe(g, target.id, a));
  else if (!graph_same_shape(&t->spec, graph_spec(value)) || t->spec.dtype != graph_spec(value)->dtype)
    graph_fail(g, UNROLL_E_SHAPE, "update of %s: the new value is %s", graph_describe(g, target.id, a),
               graph_describe(g, value.id, b));
  else
    t->update = value.id;
}

unroll_tensor_info unroll_tensor_describe(unroll_tensor x) {
  unroll_tensor_info info = {.struct_size = sizeof info, .rank = -1, .name = ""};
  if (!x.graph || x.id >= x.graph->n_tensors)
    return info;
  const tensor *t = &x.graph->tensors[x.id];
  info.dtype = t->spec.dtype;
  info.rank = t->spec.rank;
  info.role = t->role;
  memcpy(info.shape, t->spec.shape, sizeof info.shape);
  info.name = t->name;
  return info;
}

unroll_tensor unroll_graph_find(unroll_graph *g, const char *name) {
  for (uint32_t i = 0; g && name && i < g->n_tensors; i++)
    if (is_outside(&g->tensors[i]) && strcmp(g->tensors[i].name, name) == 0)
      return graph_handle(g, i);
  return unroll_none();
}

uint32_t unroll_graph_count(const unroll_graph *g) {
  uint32_t n = 0;
  for (uint32_t i = 0; g && i < g->n_tensors; i++)
    n += is_outside(&g->tensors[i]);
  return n;
}

unroll_tensor unroll_graph_tensor(unroll_graph *g, uint32_t i) {
  for (uint32_t k = 0; g && k < g->n_tensors; k++)
    if (is_outside(&g->tensors[k]) && i-- == 0)
      return graph_handle(g, k);
  return unroll_none();
}

/* ---- nodes ---- */

bool node_reads(const node *n, uint32_t tensor_id) {
  for (uint32_t k = 0; k < n->n_in; k++)
    if (n->in[k] == tensor_id)
      return true;
  return false;
}

void node_keep_edges(node *n, uint32_t *edges) {
  for (uint32_t i = 0; i < n->n_in; i++)
    edges[i] = n->in[i];
  for (uint32_t i = 0; i < n->n_out; i++)
    edges[n->n_in + i] = n->out[i];
  n->in = edges;
  n->out = edges + n->n_in;
}

unroll_graph *graph_common(const unroll_tensor *x, uint32_t n) {
  unroll_graph *g = NULL;
  for (uint32_t i = 0; i < n; i++)
    if (x[i].graph && (!g || x[i].graph->parent == g))
      g = x[i].graph;
  return g;
}

static uint32_t capture(unroll_graph *body, uint32_t outer) {
  for (uint32_t i = 0; i < body->n_captures; i++)
    if (body->captures[i].outer == outer)
      return body->captures[i].inner;
  const tensor *t = &body->parent->tensors[outer];
  if (!mem_grow(&body->allocator, &body->captures, &body->captures_capacity, body->n_captures + 1,
                sizeof *body->captures)) {
    graph_fail(body, UNROLL_E_MEMORY, "out of memory to capture %s", t->name);
    return GRAPH_NONE;
  }
  const uint32_t inner =
      graph_add_tensor(body, &t->spec, UNROLL_ROLE_CAPTURE, GRAPH_NONE, mem_strdup(&body->allocator, t->name));
  if (inner != GRAPH_NONE)
    body->captures[body->n_captures++] = (scan_edge){inner, outer};
  return inner;
}

uint32_t graph_resolve(unroll_graph *g, unroll_tensor x, const char *op) {
  if (x.graph == g || (g->parent && x.graph == g->parent)) {
    if (x.id >= x.graph->n_tensors) {
      graph_fail(g, UNROLL_E_INVALID, "%s: %u is no tensor of its graph", op, x.id);
      return GRAPH_NONE;
    }
    if (x.graph->tensors[x.id].pending) {
      graph_fail(g, UNROLL_E_STATE, "%s: %s is a result of a scan that has not ended (unroll_scan_end)", op,
                 x.graph->tensors[x.id].name);
      return GRAPH_NONE;
    }
    return x.graph == g ? x.id : capture(g, x.id);
  }
  graph_fail(g, UNROLL_E_GRAPH, "%s: its operands stand in different graphs%s", op,
             x.graph && x.graph->parent ? "; a step of a scan is used outside of it (unroll_scan_output gives it out)"
                                        : "");
  return GRAPH_NONE;
}

uint32_t graph_add_node(unroll_graph *g, uint32_t op, const op_attr *attr, const unroll_tensor *in, uint32_t n_in,
                        const tensor_spec *want, unroll_tensor *out, uint32_t n_out) {
  for (uint32_t i = 0; i < n_out; i++)
    out[i] = unroll_none();
  if (!g || graph_failed(g))
    return GRAPH_NONE;
  if (g->ended) {
    graph_fail(g, UNROLL_E_STATE, "%s: a step of a scan that has ended (unroll_scan_output gives it out)",
               graph_op_name(op));
    return GRAPH_NONE;
  }
  const unroll_allocator *a = &g->allocator;
  if (!mem_grow(a, &g->nodes, &g->nodes_capacity, g->n_nodes + 1, sizeof *g->nodes)) {
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for node %u of a graph", g->n_nodes);
    return GRAPH_NONE;
  }
  const uint32_t index = g->n_nodes;
  node n = {.op = op,
            .n_in = n_in,
            .n_out = n_out,
            .layer = g->layer,
            .direction = g->direction,
            .region = g->region,
            .backward = g->backward,
            .only = GRAPH_NONE};
  if (attr)
    n.attr = *attr;
  n.in = mem_array(a, n_in ? n_in : 1, sizeof *n.in);
  n.out = mem_array(a, n_out ? n_out : 1, sizeof *n.out);
  n.name = mem_printf(a, "%s_%u", graph_op_name(op), index);
  tensor_spec *specs = mem_array(a, n_out ? n_out : 1, sizeof *specs);
  if (!n.in || !n.out || !n.name || !specs) {
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for node %u of a graph", index);
    goto failed;
  }
  if (want)
    specs[0] = *want; /* before anything moves: it may point into a graph */
  for (uint32_t i = 0; i < n_in; i++) {
    n.in[i] = GRAPH_NONE;
    if (in[i].graph && (n.in[i] = graph_resolve(g, in[i], n.name)) == GRAPH_NONE)
      goto failed;
  }
  unroll_error err = UNROLL_ERROR_INIT;
  if (infer_node(g, op, &n.attr, n.in, n_in, specs, n_out, &err) != UNROLL_OK) {
    graph_fail(g, err.code, "%s: %s", n.name, err.message);
    goto failed;
  }
  for (uint32_t i = 0; i < n_out; i++) {
    char *name = n_out == 1 ? mem_strdup(a, n.name) : mem_printf(a, "%s.%u", n.name, i);
    n.out[i] = graph_add_tensor(g, &specs[i], UNROLL_ROLE_TEMP, index, name);
    if (n.out[i] == GRAPH_NONE)
      goto failed;
    out[i] = graph_handle(g, n.out[i]);
  }
  mem_free(a, specs);
  g->nodes[g->n_nodes++] = n;
  return index;
failed:
  for (uint32_t i = 0; i < n_out; i++)
    out[i] = unroll_none();
  mem_free(a, specs);
  graph_node_free(g, &n);
  return GRAPH_NONE;
}

unroll_tensor graph_op(uint32_t op, const op_attr *attr, const unroll_tensor *in, uint32_t n_in,
                       const tensor_spec *want) {
  unroll_tensor out;
  graph_add_node(graph_common(in, n_in), op, attr, in, n_in, want, &out, 1);
  return out;
}
