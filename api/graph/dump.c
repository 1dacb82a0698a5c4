/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dump.c: a graph as a listing for people, or as input of Graphviz.
 *
 * One walk makes both. It declares tensors and nodes and says what flows where: a listing names what flows on the line where
 * it arrives, DOT has an edge for it. Edges are held back till the end, since Graphviz draws what is mentioned inside of a
 * cluster inside of it.
 *
 * A listing has one line for each thing: `size`, `input`, `param`, `state`, then the nodes as `name = op(operands)
 * attributes -> results {t=.. layer=.. direction}`, then `output` and `update`. A scan has its body indented below, or, laid
 * out, the nodes of its steps in the order in which they run: scan/name@t is what a node of the body makes at step t, x[t]
 * is that step of a whole sequence x. A name that two tensors have is followed by #number in the later one.
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
static value value_outside(const dump *d, uint32_t id) { return (value){outside(d), id, -1}; }
static const tensor *tensor_of(const value *v) { return &v->at.graph->tensors[v->id]; }

static int64_t laid_out_steps(const dump *d, const unroll_graph *body) {
  return d->steps < body->steps ? d->steps : body->steps;
}

static uint32_t find_edge(const scan_edge *edges, uint32_t n, uint32_t inner) {
  for (uint32_t i = 0; i < n; i++)
    if (edges[i].inner == inner)
      return edges[i].outer;
  return GRAPH_NONE;
}

/* What a tensor of a place is. A step has no tensors of its own for what comes into it: a carry is what the step before made. */
static value resolve(const dump *d, place at, uint32_t id) {
  const unroll_graph *b = at.graph;
  const int32_t role = b->tensors[id].role;
  value v = {at, id, -1};
  if (at.step < 0)
    return v;
  if (role == UNROLL_ROLE_STEP) {
    v = value_outside(d, find_edge(b->inputs, b->n_inputs, id));
    v.element = at.step;
  } else if (role == UNROLL_ROLE_CAPTURE)
    v = value_outside(d, find_edge(b->captures, b->n_captures, id));
  else if (role == UNROLL_ROLE_CARRY) {
    uint32_t i = 0;
    while (b->carries[i].in != id)
      i++;
    v.at.step += b->direction == UNROLL_FORWARD ? -1 : 1;
    v.id = b->carries[i].next;
    if (v.at.step < 0 || v.at.step >= laid_out_steps(d, b))
      v = value_outside(d, b->carries[i].init);
  }
  return v;
}

/* ---- words ---- */

#define WORD(code, number, word) [code] = word,
static const char *const unaries[] = {UNROLL_UNARIES(WORD)};
static const char *const binaries[] = {UNROLL_BINARIES(WORD)};
static const char *const reductions[] = {UNROLL_REDUCTIONS(WORD)};
static const char *const optimizers[] = {UNROLL_OPTIMIZERS(WORD)};
static const char *const cells[] = {UNROLL_CELLS(WORD)};
#undef WORD
static const char *const directions[] = {"forward", "reverse"};

static void add_size(struct text *t, const dump *d, int64_t size, int32_t dim) {
  const graph_dim *s = dim >= 0 ? &d->graph->dims[dim] : NULL;
  if (!s)
    text_add(t, "%" PRId64, size);
  else if (size == s->max)
    text_add(t, "%s", s->name);
  else
    text_add(t, "%s*%" PRId64, s->name, size / s->max);
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

/* Names of nodes and tensors inside of one graph mostly differ; where they don't, the later one is numbered. */
static void add_node_name(struct text *t, const dump *d, place at, uint32_t index) {
  const node *n = at.graph->nodes;
  uint32_t same = 0;
  while (strcmp(n[same].name, n[index].name) != 0)
    same++;
  if (at.step >= 0) {
    add_node_name(t, d, outside(d), at.scan);
    text_add(t, "/");
  }
  text_add(t, "%s", n[index].name);
  if (same < index)
    text_add(t, "#%" PRIu32, index);
  if (at.step >= 0)
    text_add(t, "@%" PRId64, at.step);
}

static void add_name(struct text *t, const dump *d, const value *v) {
  const tensor *all = v->at.graph->tensors, *x = tensor_of(v);
  uint32_t same = 0; /* what is left of a node that was dropped does not count */
  while (strcmp(all[same].name, x->name) != 0 ||
         (all[same].role == UNROLL_ROLE_TEMP && all[same].producer == GRAPH_NONE && same != v->id))
    same++;
  if (v->at.step >= 0) {
    add_node_name(t, d, outside(d), v->at.scan);
    text_add(t, "/");
  }
  text_add(t, "%s", x->name);
  if (same < v->id)
    text_add(t, "#%" PRIu32, v->id);
  if (v->at.step >= 0)
    text_add(t, "@%" PRId64, v->at.step);
  if (v->element >= 0)
    text_add(t, "[%" PRId64 "]", v->element);
}

static void add_attributes(struct text *t, const dump *d, const node *n) {
  const op_attr *a = &n->attr;
  switch (n->op) {
  case UNROLL_OP_MATMUL:
    text_add(t, "%s%s", a->matmul.trans_a ? " trans_a" : "", a->matmul.trans_b ? " trans_b" : "");
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
    for (int i = 0; i < d->graph->tensors[0].spec.rank; i++)
      text_add(t, "%s%d", i ? "," : "", a->transpose.perm[i]);
    break;
  case UNROLL_OP_CONSTANT: text_add(t, " value=%g", a->constant.value); break;
  case UNROLL_OP_DROPOUT: text_add(t, " p=%g site=%" PRIu32, a->dropout.p, a->dropout.site); break;
  case UNROLL_OP_CATEGORICAL:
    text_add(t, " site=%" PRIu32 " top_k=%" PRId64, a->categorical.site, a->categorical.top_k);
    break;
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
}

static void add_tags(struct text *t, const node *n, int64_t step) {
  const char *space = "";
  if (step < 0 && n->layer < 0 && n->direction < 0)
    return;
  text_add(t, " {");
  if (step >= 0)
    text_add(t, "t=%" PRId64, step);
  if (n->layer >= 0)
    text_add(t, "%slayer=%d", step >= 0 ? " " : "", n->layer);
  space = step >= 0 || n->layer >= 0 ? " " : "";
  text_add(t, "%s%s}", n->direction >= 0 ? space : "", n->direction >= 0 ? directions[n->direction] : "");
}

/* ---- DOT: identifiers are numbers, names stand in labels ---- */

static void add_id(struct text *t, place at, char kind, uint32_t number) {
  if (at.scan != GRAPH_NONE)
    text_add(t, "b%" PRIu32 "_", at.scan);
  if (at.step >= 0)
    text_add(t, "s%" PRId64 "_", at.step);
  text_add(t, "%c%" PRIu32, kind, number);
}

/* Consumes label. */
static void add_label(struct text *t, struct text *label) {
  text_add(t, "label=\"");
  for (const char *c = text_peek(label); *c; c++)
    if (*c == '\n')
      text_add(t, "\\n");
    else
      text_add(t, *c == '"' || *c == '\\' ? "\\%c" : "%c", *c);
  text_add(t, "\"");
  t->failed = t->failed || label->failed;
  text_free(label);
}

/* To tensor or node `number`. A tensor that a node makes comes from the node's box; the results of a scan have ellipses. */
static void add_edge(dump *d, const value *from, place at, char kind, uint32_t number, int64_t element) {
  struct text label;
  text_init(&label, NULL);
  if (element >= 0)
    text_add(&label, "[%" PRId64 "] ", element);
  add_type(&label, d, from);
  const uint32_t p = tensor_of(from)->producer;
  const bool box = p != GRAPH_NONE && from->at.graph->nodes[p].op != UNROLL_OP_SCAN;
  text_add(&d->edges, "  ");
  add_id(&d->edges, from->at, box ? 'n' : 't', box ? p : from->id);
  text_add(&d->edges, " -> ");
  add_id(&d->edges, at, kind, number);
  text_add(&d->edges, " [");
  add_label(&d->edges, &label);
  text_add(&d->edges, "];\n");
}

static void add_ellipse(dump *d, const value *v) {
  struct text label;
  text_init(&label, NULL);
  add_name(&label, d, v);
  text_add(&label, "\n");
  add_type(&label, d, v);
  text_add(&d->out, "%*s", d->indent, "");
  add_id(&d->out, v->at, 't', v->id);
  text_add(&d->out, " [shape=ellipse, ");
  add_label(&d->out, &label);
  text_add(&d->out, "];\n");
}

/* ---- both ---- */

static void begin_line(dump *d, const char *word) { text_add(&d->out, "%*s%s ", d->indent, "", word); }

/* What `from` holds goes to `to`. */
static void write_flow(dump *d, const char *word, const value *to, const value *from) {
  if (d->dot) {
    add_edge(d, from, to->at, 't', to->id, to->element);
    return;
  }
  begin_line(d, word);
  add_name(&d->out, d, to);
  text_add(&d->out, " <- ");
  add_name(&d->out, d, from);
  text_add(&d->out, "\n");
}

/* A tensor that no node makes, and, unless NULL, where it comes from. */
static void write_tensor(dump *d, const char *word, const value *v, const value *from) {
  if (d->dot) {
    add_ellipse(d, v);
    if (from)
      add_edge(d, from, v->at, 't', v->id, -1);
    return;
  }
  begin_line(d, word);
  add_name(&d->out, d, v);
  text_add(&d->out, " ");
  add_type(&d->out, d, v);
  if (from) {
    text_add(&d->out, " <- ");
    add_name(&d->out, d, from);
  }
  text_add(&d->out, "\n");
}

static void add_node_label(struct text *t, const dump *d, place at, uint32_t index) {
  const node *n = &at.graph->nodes[index];
  add_node_name(t, d, at, index);
  text_add(t, "\n%s", graph_op_name(n->op));
  add_attributes(t, d, n);
  add_tags(t, n, at.step);
}

static void write_box(dump *d, place at, uint32_t index) {
  const node *n = &at.graph->nodes[index];
  struct text label;
  text_init(&label, NULL);
  add_node_label(&label, d, at, index);
  text_add(&d->out, "%*s", d->indent, "");
  add_id(&d->out, at, 'n', index);
  text_add(&d->out, " [");
  add_label(&d->out, &label);
  text_add(&d->out, "];\n");
  for (uint32_t i = 0; i < n->n_in; i++)
    if (n->in[i] != GRAPH_NONE) {
      const value from = resolve(d, at, n->in[i]);
      add_edge(d, &from, at, 'n', index, from.element);
    }
}

static void write_line(dump *d, place at, uint32_t index) {
  const node *n = &at.graph->nodes[index];
  struct text *t = &d->out;
  text_add(t, "%*s", d->indent, "");
  add_node_name(t, d, at, index);
  text_add(t, " = %s(", graph_op_name(n->op));
  for (uint32_t i = 0; i < n->n_in; i++) {
    text_add(t, i ? ", " : "");
    if (n->in[i] == GRAPH_NONE)
      text_add(t, "-");
    else {
      const value v = resolve(d, at, n->in[i]);
      add_name(t, d, &v);
    }
  }
  text_add(t, ")");
  add_attributes(t, d, n);
  for (uint32_t i = 0; i < n->n_out; i++) {
    const value v = {at, n->out[i], -1};
    text_add(t, i ? ", " : " -> ");
    add_name(t, d, &v);
    text_add(t, " ");
    add_type(t, d, &v);
  }
  add_tags(t, n, at.step);
  text_add(t, "\n");
}

static void write_nodes(dump *d, place at) {
  for (uint32_t i = 0; i < at.graph->n_nodes; i++)
    if (d->dot)
      write_box(d, at, i);
    else
      write_line(d, at, i);
}

static void open_cluster(dump *d, place at, struct text *label) {
  text_add(&d->out, "%*ssubgraph cluster_", d->indent, "");
  add_id(&d->out, at, 'c', at.scan);
  text_add(&d->out, " { ");
  add_label(&d->out, label);
  text_add(&d->out, ";\n");
  d->indent += 2;
}
static void close_cluster(dump *d) {
  d->indent -= 2;
  text_add(&d->out, "%*s}\n", d->indent, "");
}

static void write_body(dump *d, place at) {
  const unroll_graph *b = at.graph;
  for (uint32_t i = 0; i < b->n_carries; i++) {
    const value in = {at, b->carries[i].in, -1}, init = value_outside(d, b->carries[i].init);
    write_tensor(d, "carry", &in, &init);
  }
  for (uint32_t i = 0; i < b->n_inputs; i++) {
    const value inner = {at, b->inputs[i].inner, -1}, outer = value_outside(d, b->inputs[i].outer);
    write_tensor(d, "input", &inner, &outer);
  }
  for (uint32_t i = 0; i < b->n_captures; i++) {
    const value inner = {at, b->captures[i].inner, -1}, outer = value_outside(d, b->captures[i].outer);
    write_tensor(d, "capture", &inner, &outer);
  }
  write_nodes(d, at);
  for (uint32_t i = 0; i < b->n_carries; i++) {
    const value in = {at, b->carries[i].in, -1}, next = {at, b->carries[i].next, -1};
    write_flow(d, "next", &in, &next);
  }
}

static void write_outputs(dump *d, place at) {
  for (uint32_t i = 0; i < at.graph->n_outputs; i++) {
    value all = value_outside(d, at.graph->outputs[i].outer);
    const value step = resolve(d, at, at.graph->outputs[i].inner);
    all.element = at.step;
    write_flow(d, "output", &all, &step);
  }
}

static void write_step(dump *d, place at) {
  if (d->dot) {
    struct text label;
    text_init(&label, NULL);
    text_add(&label, "t=%" PRId64, at.step);
    open_cluster(d, at, &label);
  }
  write_nodes(d, at);
  if (d->dot)
    close_cluster(d);
  write_outputs(d, at);
}

static void write_scan(dump *d, uint32_t index) {
  const node *n = &d->graph->nodes[index];
  place at = {n->body, index, -1};
  if (d->dot) {
    struct text label;
    for (uint32_t i = 0; i < n->n_out; i++) {
      const value v = value_outside(d, n->out[i]);
      add_ellipse(d, &v);
    }
    text_init(&label, NULL);
    add_node_label(&label, d, outside(d), index);
    open_cluster(d, at, &label);
  } else {
    write_line(d, outside(d), index);
    d->indent += 2;
  }
  const int64_t steps = laid_out_steps(d, n->body);
  for (int64_t k = 0; k < steps; k++) {
    at.step = n->body->direction == UNROLL_FORWARD ? k : steps - 1 - k;
    write_step(d, at);
  }
  if (steps == 0) {
    write_body(d, at);
    write_outputs(d, at);
  }
  for (uint32_t i = 0; i < n->body->n_carries; i++) {
    const value last = value_outside(d, n->body->carries[i].last), next = {at, n->body->carries[i].next, -1};
    write_flow(d, "last", &last, &next);
  }
  if (d->dot)
    close_cluster(d);
  else
    d->indent -= 2;
}

static void write_graph(dump *d) {
  const unroll_graph *g = d->graph;
  if (d->dot) {
    text_add(&d->out, "digraph unroll {\n  node [shape=box];\n");
    d->indent = 2;
  }
  for (uint32_t i = 0; !d->dot && i < g->n_dims; i++)
    text_add(&d->out, "size %s %" PRId64 " to %" PRId64 "\n", g->dims[i].name, g->dims[i].min, g->dims[i].max);
  static const struct {
    int32_t role;
    const char *word;
  } given[] = {{UNROLL_ROLE_INPUT, "input"}, {UNROLL_ROLE_PARAM, "param"}, {UNROLL_ROLE_STATE, "state"}};
  for (size_t k = 0; k < sizeof given / sizeof *given; k++)
    for (uint32_t i = 0; i < g->n_tensors; i++)
      if (g->tensors[i].role == given[k].role) {
        const value v = value_outside(d, i);
        write_tensor(d, given[k].word, &v, NULL);
      }
  for (uint32_t i = 0; i < g->n_nodes; i++)
    if (g->nodes[i].op == UNROLL_OP_SCAN)
      write_scan(d, i);
    else if (d->dot)
      write_box(d, outside(d), i);
    else
      write_line(d, outside(d), i);
  for (uint32_t i = 0; i < g->n_tensors; i++) {
    const value v = value_outside(d, i);
    const bool drawn = g->tensors[i].producer != GRAPH_NONE && g->nodes[g->tensors[i].producer].op == UNROLL_OP_SCAN;
    if (g->tensors[i].role == UNROLL_ROLE_OUTPUT && !(d->dot && drawn))
      write_tensor(d, "output", &v, d->dot ? &v : NULL);
  }
  for (uint32_t i = 0; i < g->n_tensors; i++)
    if (g->tensors[i].update != GRAPH_NONE) {
      const value to = value_outside(d, i), from = value_outside(d, g->tensors[i].update);
      write_flow(d, "update", &to, &from);
    }
  if (d->dot)
    text_add(&d->out, "%s}\n", text_peek(&d->edges));
}

/* The string is of the C library's malloc, whatever the graph's allocator: unroll_string_free knows no graph. */
unroll_status unroll_graph_dump(const unroll_graph *graph, int32_t format, int64_t steps, char **text, unroll_error *err) {
  if (!text)
    return fail(err, UNROLL_E_INVALID, "unroll_graph_dump: text is NULL");
  *text = NULL;
  TRY(unroll_graph_status(graph, err));
  if (graph->parent)
    return fail(err, UNROLL_E_INVALID, "the body of a scan is dumped with the graph around it");
  if ((format != UNROLL_DUMP_TEXT && format != UNROLL_DUMP_DOT) || steps < 0)
    return fail(err, UNROLL_E_INVALID, "dump of a graph: format %d over %" PRId64 " steps, expected UNROLL_DUMP_TEXT or "
                "UNROLL_DUMP_DOT and at least 0", format, steps);
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
