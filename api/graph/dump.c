/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dump.c: a graph as a listing for people, or as input of Graphviz.
 *
 * One walk makes both. It declares tensors and nodes and says what flows where: a listing names what flows on the
 * line where it arrives, DOT has an edge for it. Edges are held back till the end, since Graphviz draws what is
 * mentioned inside of a cluster inside of it.
 *
 * A listing has one line for each thing: `size`, `input`, `param`, `state`, then the nodes as `name = op(operands)
 * attributes t=.. layer=.. direction -> results`, then `output` and `update`. A scan has its body indented below, or,
 * laid out, the nodes of its steps in the order in which they run: scan/name@t is what a node of the body makes at
 * step t, x[t] is that step of a whole sequence x. Where two tensors have one name, the later one's is followed by
 * #number.
 */
#include "graph/graph_private.h"
#include <inttypes.h>
#include <string.h>

typedef struct dump {
  const unroll_graph *graph;
  int64_t steps; /* to lay scans out over; 0: bodies as they are */
  bool dot;
  int indent;
  struct text out, edges;
} dump;

/* Where something is written: in the graph around the scans, in a body, or in one time step of it. */
typedef struct place {
  const unroll_graph *graph;
  uint32_t scan; /* node of the body's scan; GRAPH_NONE outside */
  int64_t step;  /* -1: not laid out */
} place;

typedef struct value {
  place at;
  uint32_t id;
  int64_t element; /* the time step of a sequence that is meant; -1: all of it */
} value;

static place outside(const dump *d) { return (place){d->graph, GRAPH_NONE, -1}; }
static value value_of(place at, uint32_t id) { return (value){at, id, -1}; }
static value value_outside(const dump *d, uint32_t id) { return value_of(outside(d), id); }
static bool is_given(const tensor *t) { return t->role >= UNROLL_ROLE_INPUT && t->role <= UNROLL_ROLE_OUTPUT; }
static const tensor *tensor_of(const value *v) { return &v->at.graph->tensors[v->id]; }

static int64_t laid_out_steps(const dump *d, const unroll_graph *body) {
  return d->steps < body->steps ? d->steps : body->steps;
}

/* What a tensor of a place is. A step has no tensors of its own for what comes into it: a carry is what the step
 * before made. */
static value resolve(const dump *d, place at, uint32_t id) {
  const unroll_graph *b = at.graph;
  if (at.step < 0)
    return value_of(at, id);
  for (uint32_t i = 0; i < b->n_inputs; i++)
    if (b->inputs[i].inner == id)
      return (value){outside(d), b->inputs[i].outer, at.step};
  for (uint32_t i = 0; i < b->n_captures; i++)
    if (b->captures[i].inner == id)
      return value_outside(d, b->captures[i].outer);
  for (uint32_t i = 0; i < b->n_carries; i++)
    if (b->carries[i].in == id) {
      at.step += b->direction == UNROLL_FORWARD ? -1 : 1;
      const bool first = at.step < 0 || at.step >= laid_out_steps(d, b);
      return first ? value_outside(d, b->carries[i].init) : value_of(at, b->carries[i].next);
    }
  return value_of(at, id);
}

/* ---- words ---- */

#define WORD(code, number, word) [code] = word,
static const char *const unaries[] = {UNROLL_UNARIES(WORD)};
static const char *const binaries[] = {UNROLL_BINARIES(WORD)};
static const char *const reductions[] = {UNROLL_REDUCTIONS(WORD)};
static const char *const optimizers[] = {UNROLL_OPTIMIZERS(WORD)};
static const char *const randoms[] = {UNROLL_RANDOMS(WORD)};
static const char *const cells[] = {UNROLL_CELLS(WORD)};
#undef WORD
static const char *const directions[] = {"forward", "reverse"};

static void add_size(struct text *t, const dump *d, int64_t size, int32_t dim) {
  const int64_t unit = dim >= 0 ? d->graph->dims[dim].max : 1;
  text_add(t, "%s", dim >= 0 ? d->graph->dims[dim].name : "");
  if (dim < 0 || size != unit)
    text_add(t, "%s%" PRId64, dim >= 0 ? "*" : "", size / unit);
}

static void add_type(struct text *t, const dump *d, const value *v) {
  const tensor_spec *s = &tensor_of(v)->spec;
  const int first = v->element >= 0;
  text_add(t, "%s [", unroll_dtype_name(s->dtype));
  for (int i = first; i < s->rank; i++) {
    text_add(t, i > first ? "," : "");
    add_size(t, d, s->shape[i], s->dim[i]);
  }
  text_add(t, "]");
}

static void add_node_name(struct text *t, const dump *d, place at, uint32_t index);

static void add_name(struct text *t, const dump *d, place at, const char *name, bool repeated, uint32_t number) {
  if (at.step >= 0) {
    add_node_name(t, d, outside(d), at.scan);
    text_add(t, "/");
  }
  text_add(t, "%s", name);
  if (repeated)
    text_add(t, "#%" PRIu32, number);
  if (at.step >= 0)
    text_add(t, "@%" PRId64, at.step);
}

static void add_node_name(struct text *t, const dump *d, place at, uint32_t index) {
  const node *n = at.graph->nodes;
  uint32_t same = 0;
  while (strcmp(n[same].name, n[index].name) != 0)
    same++;
  add_name(t, d, at, n[index].name, same < index, index);
}

/* Names mostly differ, and those that the caller gave always do. What is left of a node that was dropped does not
 * count. */
static void add_value_name(struct text *t, const dump *d, const value *v) {
  if (v->id == GRAPH_NONE) {
    text_add(t, "-");
    return;
  }
  const unroll_graph *g = v->at.graph;
  const tensor *x = tensor_of(v);
  bool repeated = false;
  for (uint32_t i = 0; i < g->n_tensors && !is_given(x) && !repeated; i++) {
    const tensor *other = &g->tensors[i];
    const bool dropped = other->role == UNROLL_ROLE_TEMP && other->producer == GRAPH_NONE;
    repeated = (is_given(other) || (i < v->id && !dropped)) && strcmp(other->name, x->name) == 0;
  }
  add_name(t, d, v->at, x->name, repeated, v->id);
  if (v->element >= 0)
    text_add(t, "[%" PRId64 "]", v->element);
}

static void add_typed(struct text *t, const dump *d, const value *v, const char *separator) {
  add_value_name(t, d, v);
  if (v->id != GRAPH_NONE) {
    text_add(t, "%s", separator);
    add_type(t, d, v);
  }
}

/* " trans_b t=2 layer=0 forward" */
static void add_properties(struct text *t, const dump *d, place at, const node *n) {
  const op_attr *a = &n->attr;
  switch (n->op) {
  case UNROLL_OP_MATMUL:
    text_add(t, a->matmul.trans_a ? " trans_a" : "");
    text_add(t, a->matmul.trans_b ? " trans_b" : "");
    break;
  case UNROLL_OP_UNARY: text_add(t, " %s", unaries[a->unary.kind]); break;
  case UNROLL_OP_BINARY: text_add(t, " %s", binaries[a->binary.kind]); break;
  case UNROLL_OP_REDUCE:
    text_add(t, " %s axes=", reductions[a->reduce.kind]);
    for (int i = 0, n_axes = 0; i < UNROLL_MAX_RANK; i++)
      if (a->reduce.axes >> i & 1u)
        text_add(t, "%s%d", n_axes++ ? "," : "", i);
    text_add(t, a->reduce.keep_dims ? " keep_dims" : "");
    break;
  case UNROLL_OP_SLICE: text_add(t, " axis=%d start=%" PRId64, a->slice.axis, a->slice.start); break;
  case UNROLL_OP_PAD:
    text_add(t, " axis=%d before=%" PRId64 " after=%" PRId64, a->pad.axis, a->pad.before, a->pad.after);
    break;
  case UNROLL_OP_CONCAT: text_add(t, " axis=%d", a->axis.axis); break;
  case UNROLL_OP_TRANSPOSE:
    text_add(t, " perm=");
    for (int i = 0; i < at.graph->tensors[n->in[0]].spec.rank; i++)
      text_add(t, "%s%d", i ? "," : "", a->transpose.perm[i]);
    break;
  case UNROLL_OP_CONSTANT: text_add(t, " value=%g", a->constant.value); break;
  case UNROLL_OP_DROPOUT: text_add(t, " p=%g site=%" PRIu32, a->dropout.p, a->dropout.site); break;
  case UNROLL_OP_CATEGORICAL:
    text_add(t, " site=%" PRIu32 " top_k=%" PRId64, a->categorical.site, a->categorical.top_k);
    if (a->categorical.top_p > 0)
      text_add(t, " top_p=%g", a->categorical.top_p);
    break;
  case UNROLL_OP_RANDOM: text_add(t, " %s site=%" PRIu32, randoms[a->random.kind], a->random.site); break;
  case UNROLL_OP_TOP_K: text_add(t, " k=%" PRId64, a->top_k.k); break;
  case UNROLL_OP_LINEAR_SCAN:
  case UNROLL_OP_LINEAR_SCAN_GRAD: text_add(t, a->linear_scan.direction == UNROLL_REVERSE ? " reverse" : ""); break;
  case UNROLL_OP_LAYER_NORM:
  case UNROLL_OP_LAYER_NORM_GRAD: text_add(t, " epsilon=%g", a->layer_norm.epsilon); break;
  case UNROLL_OP_LENGTH_MASK: text_add(t, a->length_mask.invert ? " invert" : ""); break;
  case UNROLL_OP_OPTIMIZER:
    text_add(t, " %s beta1=%g beta2=%g epsilon=%g weight_decay=%g", optimizers[a->optimizer.kind], a->optimizer.beta1,
             a->optimizer.beta2, a->optimizer.epsilon, a->optimizer.weight_decay);
    break;
  case UNROLL_OP_LAYER:
  case UNROLL_OP_LAYER_GRAD:
    text_add(t, " %s", cells[a->layer.cell]);
    if (a->layer.cell == UNROLL_CELL_RNN)
      text_add(t, " %s", unaries[a->layer.activation]);
    break;
  case UNROLL_OP_SCAN:
    if (a->scan.cell != UNROLL_CELL_NONE)
      text_add(t, " %s", cells[a->scan.cell]);
    text_add(t, " steps=");
    add_size(t, d, n->body->steps, n->body->steps_dim);
    break;
  default: break;
  }
  if (at.step >= 0)
    text_add(t, " t=%" PRId64, at.step);
  if (n->layer >= 0)
    text_add(t, " layer=%d", n->layer);
  if (n->direction >= 0)
    text_add(t, " %s", directions[n->direction]);
}

/* ---- DOT: identifiers are numbers, names stand in labels ---- */

static void add_id(struct text *t, place at, char kind, uint32_t number) {
  if (at.scan != GRAPH_NONE)
    text_add(t, "b%" PRIu32 "_", at.scan);
  if (at.step >= 0)
    text_add(t, "s%" PRId64 "_", at.step);
  text_add(t, "%c%" PRIu32, kind, number);
}

/* Takes over label. */
static void add_label(struct text *t, struct text *label) {
  text_add(t, "label=\"");
  for (const char *c = text_peek(label); *c; c++) {
    if (*c == '"' || *c == '\\' || *c == '\n')
      text_add_bytes(t, "\\", 1);
    text_add_bytes(t, *c == '\n' ? "n" : c, 1);
  }
  text_add(t, "\"");
  t->failed = t->failed || label->failed;
  text_free(label);
}

/* To tensor 't' or node 'n' of a number. What a node makes comes out of its box; a scan's results have ellipses. */
static void add_edge(dump *d, const value *from, place at, char kind, uint32_t number, int64_t element) {
  struct text label, *t = &d->edges;
  text_init(&label, NULL);
  if (element >= 0)
    text_add(&label, "[%" PRId64 "] ", element);
  add_type(&label, d, from);
  const uint32_t p = tensor_of(from)->producer;
  const bool box = p != GRAPH_NONE && from->at.graph->nodes[p].op != UNROLL_OP_SCAN;
  text_add(t, "  ");
  add_id(t, from->at, box ? 'n' : 't', box ? p : from->id);
  text_add(t, " -> ");
  add_id(t, at, kind, number);
  text_add(t, " [");
  add_label(t, &label);
  text_add(t, "];\n");
}

static void add_node_label(struct text *t, const dump *d, place at, uint32_t index) {
  struct text label;
  text_init(&label, NULL);
  add_node_name(&label, d, at, index);
  text_add(&label, "\n%s", graph_op_name(at.graph->nodes[index].op));
  add_properties(&label, d, at, &at.graph->nodes[index]);
  add_label(t, &label);
}

/* ---- both ---- */

/* A tensor, with its type where it is told for the first time, and, unless NULL, whose value it gets. */
static void write_tensor(dump *d, const char *word, const value *v, bool first, const value *from) {
  struct text *t = &d->out;
  if (d->dot && from)
    add_edge(d, from, v->at, 't', v->id, v->element);
  if (d->dot && first) {
    struct text label;
    text_init(&label, NULL);
    add_typed(&label, d, v, "\n");
    text_add(t, "%*s", d->indent, "");
    add_id(t, v->at, 't', v->id);
    text_add(t, " [shape=ellipse, ");
    add_label(t, &label);
    text_add(t, "];\n");
  }
  if (d->dot)
    return;
  text_add(t, "%*s%s ", d->indent, "", word);
  if (first)
    add_typed(t, d, v, " ");
  else
    add_value_name(t, d, v);
  if (from) {
    text_add(t, " <- ");
    add_value_name(t, d, from);
  }
  text_add(t, "\n");
}

static void write_node(dump *d, place at, uint32_t index) {
  const node *n = &at.graph->nodes[index];
  struct text *t = &d->out;
  text_add(t, "%*s", d->indent, "");
  if (d->dot) {
    add_id(t, at, 'n', index);
    text_add(t, " [");
    add_node_label(t, d, at, index);
    text_add(t, "];\n");
  } else {
    add_node_name(t, d, at, index);
    text_add(t, " = %s(", graph_op_name(n->op));
  }
  for (uint32_t i = 0; i < n->n_in; i++) {
    const value v = resolve(d, at, n->in[i]);
    if (!d->dot) {
      text_add(t, i ? ", " : "");
      add_value_name(t, d, &v);
    } else if (v.id != GRAPH_NONE)
      add_edge(d, &v, at, 'n', index, v.element);
  }
  if (d->dot)
    return;
  text_add(t, ")");
  add_properties(t, d, at, n);
  for (uint32_t i = 0; i < n->n_out; i++) {
    const value v = value_of(at, n->out[i]);
    text_add(t, i ? ", " : " -> ");
    add_typed(t, d, &v, " ");
  }
  text_add(t, "\n");
}

static void write_scan(dump *d, uint32_t index);

static void write_nodes(dump *d, place at) {
  for (uint32_t i = 0; i < at.graph->n_nodes; i++)
    if (at.graph->nodes[i].op == UNROLL_OP_SCAN)
      write_scan(d, i);
    else
      write_node(d, at, i);
}

/* Around a body, or around one step of it; a listing does not set steps apart. */
static void open_cluster(dump *d, place at) {
  if (d->dot) {
    text_add(&d->out, "%*ssubgraph cluster_", d->indent, "");
    add_id(&d->out, at, 'c', 0);
    text_add(&d->out, " { ");
    if (at.step < 0)
      add_node_label(&d->out, d, outside(d), at.scan);
    else
      text_add(&d->out, "label=\"t=%" PRId64 "\"", at.step);
    text_add(&d->out, ";\n");
  } else if (at.step < 0)
    write_node(d, outside(d), at.scan);
  d->indent += d->dot || at.step < 0 ? 2 : 0;
}
static void close_cluster(dump *d, place at) {
  d->indent -= d->dot || at.step < 0 ? 2 : 0;
  if (d->dot)
    text_add(&d->out, "%*s}\n", d->indent, "");
}

static void write_edges(dump *d, place at, const char *word, const scan_edge *edges, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    const value inner = value_of(at, edges[i].inner), outer = value_outside(d, edges[i].outer);
    write_tensor(d, word, &inner, true, &outer);
  }
}

/* A body, or one time step of it. */
static void write_body(dump *d, place at) {
  const unroll_graph *b = at.graph;
  const bool whole = at.step < 0;
  for (uint32_t i = 0; whole && i < b->n_carries; i++)
    write_edges(d, at, "carry", &(scan_edge){b->carries[i].in, b->carries[i].init}, 1);
  if (whole) {
    write_edges(d, at, "input", b->inputs, b->n_inputs);
    write_edges(d, at, "capture", b->captures, b->n_captures);
  } else
    open_cluster(d, at);
  write_nodes(d, at);
  for (uint32_t i = 0; whole && i < b->n_carries; i++) {
    const value in = value_of(at, b->carries[i].in), next = value_of(at, b->carries[i].next);
    write_tensor(d, "next", &in, false, &next);
  }
  if (!whole)
    close_cluster(d, at);
  for (uint32_t i = 0; i < b->n_outputs; i++) {
    const value inner = resolve(d, at, b->outputs[i].inner), outer = {outside(d), b->outputs[i].outer, at.step};
    write_tensor(d, "output", &outer, false, &inner);
  }
}

static void write_scan(dump *d, uint32_t index) {
  const node *n = &d->graph->nodes[index];
  const unroll_graph *b = n->body;
  place at = {b, index, -1};
  for (uint32_t i = 0; d->dot && i < n->n_out; i++) {
    const value v = value_outside(d, n->out[i]);
    if (tensor_of(&v)->role == UNROLL_ROLE_TEMP)
      write_tensor(d, "", &v, true, NULL);
  }
  open_cluster(d, at);
  const int64_t steps = laid_out_steps(d, b);
  if (steps == 0)
    write_body(d, at);
  for (int64_t k = 0; k < steps; k++) {
    at.step = b->direction == UNROLL_FORWARD ? k : steps - 1 - k;
    write_body(d, at);
  }
  for (uint32_t i = 0; i < b->n_carries; i++) {
    const value last = value_outside(d, b->carries[i].last), next = value_of(at, b->carries[i].next);
    write_tensor(d, "last", &last, false, &next);
  }
  close_cluster(d, (place){b, index, -1});
}

static void write_role(dump *d, int32_t role, const char *word) {
  for (uint32_t i = 0; i < d->graph->n_tensors; i++)
    if (d->graph->tensors[i].role == role) {
      const value v = value_outside(d, i);
      write_tensor(d, word, &v, true, NULL);
    }
}

static void write_graph(dump *d) {
  const unroll_graph *g = d->graph;
  if (d->dot)
    text_add(&d->out, "digraph unroll {\n  node [shape=box];\n");
  d->indent = d->dot ? 2 : 0;
  for (uint32_t i = 0; !d->dot && i < g->n_dims; i++)
    text_add(&d->out, "size %s %" PRId64 " to %" PRId64 "\n", g->dims[i].name, g->dims[i].min, g->dims[i].max);
  write_role(d, UNROLL_ROLE_INPUT, "input");
  write_role(d, UNROLL_ROLE_PARAM, "param");
  write_role(d, UNROLL_ROLE_STATE, "state");
  write_nodes(d, outside(d));
  write_role(d, UNROLL_ROLE_OUTPUT, "output");
  for (uint32_t i = 0; i < g->n_tensors; i++) {
    const value to = value_outside(d, i), from = value_outside(d, g->tensors[i].update);
    if (d->dot && g->tensors[i].role == UNROLL_ROLE_OUTPUT && g->nodes[g->tensors[i].producer].op != UNROLL_OP_SCAN)
      write_tensor(d, "", &to, false, &to);
    if (from.id != GRAPH_NONE)
      write_tensor(d, "update", &to, false, &from);
  }
  if (d->dot)
    text_add(&d->out, "%s}\n", text_peek(&d->edges));
}

/* The string comes from the C library whatever the graph's allocator is: unroll_string_free knows no graph. */
unroll_status unroll_graph_dump(const unroll_graph *graph, int32_t format, int64_t steps, char **text,
                                unroll_error *err) {
  if (!text)
    return fail(err, UNROLL_E_INVALID, "unroll_graph_dump: text is NULL");
  *text = NULL;
  TRY(unroll_graph_status(graph, err));
  if (graph->parent)
    return fail(err, UNROLL_E_INVALID, "the body of a scan is dumped with the graph around it");
  if ((format != UNROLL_DUMP_TEXT && format != UNROLL_DUMP_DOT) || steps < 0)
    return fail(err, UNROLL_E_INVALID, "dump in format %d over %" PRId64 " steps, expected 0 or 1 and at least 0",
                format, steps);
  unroll_graph *lowered = NULL;
  if (steps > 0)
    TRY(graph_lower(graph, NULL, &lowered, err));
  dump d = {.graph = lowered ? lowered : graph, .steps = steps, .dot = format == UNROLL_DUMP_DOT};
  text_init(&d.out, NULL);
  text_init(&d.edges, NULL);
  write_graph(&d);
  d.out.failed = d.out.failed || d.edges.failed;
  text_free(&d.edges);
  *text = text_take(&d.out);
  unroll_graph_destroy(lowered);
  return *text ? UNROLL_OK : fail(err, UNROLL_E_MEMORY, "out of memory for the dump of a graph");
}

void unroll_string_free(char *text) { mem_free(NULL, text); }
