/* SPDX-License-Identifier: Apache-2.0 */
/* label.c: what the values of a recurrence are, told from the ops that make and read them. */
#include "finite/finite_private.h"
#include <stdio.h>
#include <string.h>
#include <unroll/nn.h>

static const struct label NOTHING = {UNROLL_QUANTITY_VALUE, -1, 0};

static struct label label(int32_t quantity) { return (struct label){quantity, -1, 0}; }
static struct label gates(int32_t quantity, int32_t first, int32_t n) { return (struct label){quantity, first, n}; }

static int64_t width_of(const unroll_graph *g, uint32_t id) {
  const tensor_spec *s = &g->tensors[id].spec;
  return s->rank ? s->shape[s->rank - 1] : 1;
}

/* ---- labels that an op gives, whatever stands around it ---- */

static bool by_op(const unroll_graph *g, const node *n, uint32_t output, struct label *out) {
  static const struct {
    uint32_t op;
    struct label of[3];
  } all[] = {
      {UNROLL_OP_LSTM_GATES,
       {{UNROLL_QUANTITY_HIDDEN, -1, 0}, {UNROLL_QUANTITY_CELL, -1, 0}, {UNROLL_QUANTITY_GATE, 0, 4}}},
      {UNROLL_OP_GRU_RESET, {{UNROLL_QUANTITY_GATE, 0, 2}, {UNROLL_QUANTITY_VALUE, -1, 0}}},
      {UNROLL_OP_GRU_UPDATE, {{UNROLL_QUANTITY_HIDDEN, -1, 0}, {UNROLL_QUANTITY_GATE, 2, 1}}},
      {UNROLL_OP_GRU_AFTER_GATES, {{UNROLL_QUANTITY_HIDDEN, -1, 0}, {UNROLL_QUANTITY_GATE, 0, 4}}},
      {UNROLL_OP_LSTM_GATES_GRAD, {{UNROLL_QUANTITY_PRE_ACTIVATION, 0, 4}, {UNROLL_QUANTITY_CELL, -1, 0}}},
      {UNROLL_OP_GRU_RESET_GRAD, {{UNROLL_QUANTITY_PRE_ACTIVATION, 0, 2}, {UNROLL_QUANTITY_HIDDEN, -1, 0}}},
      {UNROLL_OP_GRU_UPDATE_GRAD,
       {{UNROLL_QUANTITY_PRE_ACTIVATION, 2, 1}, {UNROLL_QUANTITY_GATE, 0, 2}, {UNROLL_QUANTITY_HIDDEN, -1, 0}}},
      {UNROLL_OP_GRU_AFTER_GATES_GRAD,
       {{UNROLL_QUANTITY_PRE_ACTIVATION, 0, 3},
        {UNROLL_QUANTITY_PRE_ACTIVATION, 0, 3},
        {UNROLL_QUANTITY_HIDDEN, -1, 0}}},
      {UNROLL_OP_LINEAR_SCAN, {{UNROLL_QUANTITY_HIDDEN, -1, 0}, {UNROLL_QUANTITY_HIDDEN, -1, 0}}},
      {UNROLL_OP_LAYER,
       {{UNROLL_QUANTITY_HIDDEN, -1, 0}, {UNROLL_QUANTITY_HIDDEN, -1, 0}, {UNROLL_QUANTITY_CELL, -1, 0}}},
      {UNROLL_OP_LAYER_GRAD,
       {{UNROLL_QUANTITY_INPUT, -1, 0}, {UNROLL_QUANTITY_VALUE, -1, 0}, {UNROLL_QUANTITY_VALUE, -1, 0}}},
      {UNROLL_OP_CROSS_ENTROPY, {{UNROLL_QUANTITY_LOSS, -1, 0}}},
  };
  (void)g;
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
    if (all[i].op == n->op && output < 3) {
      *out = all[i].of[output];
      return true;
    }
  return false;
}

/* ---- gates told by the rows of the weight ---- */

/* In the graph around a body: the first row of its parameter that a weight has. */
static int64_t first_row(const unroll_graph *g, uint32_t id) {
  int64_t row = 0;
  for (uint32_t p; (p = g->tensors[id].producer) != GRAPH_NONE;) {
    const node *n = &g->nodes[p];
    if (n->op == UNROLL_OP_SLICE && n->attr.slice.axis == 0)
      row += n->attr.slice.start;
    if (n->n_in == 0 || n->in[0] == GRAPH_NONE)
      break;
    id = n->in[0];
  }
  return row;
}

static uint32_t outer_of(const unroll_graph *body, uint32_t inner) {
  for (uint32_t i = 0; i < body->n_captures; i++)
    if (body->captures[i].inner == inner)
      return body->captures[i].outer;
  return GRAPH_NONE;
}

/* x·Wᵀ of the rows of W that are whole gates of H. */
static struct label of_product(int64_t row, int64_t width, int64_t H) {
  if (H < 1 || width % H || row % H)
    return NOTHING;
  return gates(UNROLL_QUANTITY_PRE_ACTIVATION, (int32_t)(row / H), (int32_t)(width / H));
}

/* The product behind what a scan's steps read, of the same layer and direction, and what is made of it on the way. */
static struct label label_input(const unroll_graph *g, const node *scan, uint32_t id, int64_t H, struct label *top) {
  uint32_t way[8], n_way = 0;
  struct label found = NOTHING;
  while (n_way < 8) {
    const uint32_t p = g->tensors[id].producer;
    if (p == GRAPH_NONE)
      return NOTHING;
    const node *n = &g->nodes[p];
    if (n->layer != scan->layer || n->direction != scan->direction || n->backward != scan->backward)
      return NOTHING;
    way[n_way++] = id;
    if (n->op == UNROLL_OP_MATMUL) {
      found = of_product(first_row(g, n->in[1]), width_of(g, id), H);
      break;
    }
    if (n->op != UNROLL_OP_LAYER_NORM && n->op != UNROLL_OP_LENGTH_MASK && n->op != UNROLL_OP_RESHAPE &&
        n->op != UNROLL_OP_BINARY && n->op != UNROLL_OP_UNARY)
      return NOTHING;
    id = n->in[0];
  }
  for (uint32_t i = 0; i < n_way; i++)
    top[way[i]] = found;
  return found;
}

/* ---- bodies ---- */

struct look {
  const unroll_graph *body;
  const node *scan;
  struct body_labels *out;
};

static struct label at(const struct look *k, uint32_t id) { return id == GRAPH_NONE ? NOTHING : k->out->of[id]; }

static bool is_given(const struct look *k, uint32_t id) {
  const tensor *t = &k->body->tensors[id];
  if (t->role == UNROLL_ROLE_CAPTURE)
    return true;
  return t->producer != GRAPH_NONE && k->body->nodes[t->producer].op == UNROLL_OP_CONSTANT;
}

static struct label of_binary(const struct look *k, const node *n) {
  const struct label a = at(k, n->in[0]), b = at(k, n->in[1]);
  const struct label kept = a.first >= 0 ? a : b;
  if (n->attr.binary.kind >= UNROLL_TANH_GRAD)
    return label(UNROLL_QUANTITY_PRE_ACTIVATION);
  if (a.quantity == UNROLL_QUANTITY_PRE_ACTIVATION)
    return a;
  if (kept.quantity == UNROLL_QUANTITY_PRE_ACTIVATION)
    return n->attr.binary.kind == UNROLL_MUL && !is_given(k, n->in[0]) ? NOTHING : kept;
  return is_given(k, n->in[0]) || is_given(k, n->in[1]) ? kept : NOTHING;
}

static struct label of_slice(const struct look *k, const node *n) {
  struct label l = at(k, n->in[0]);
  const int64_t H = k->out->H, width = width_of(k->body, n->out[0]);
  const int32_t last = k->body->tensors[n->in[0]].spec.rank - 1;
  if (l.first < 0 || n->attr.slice.axis != last || H < 1 || n->attr.slice.start % H || width % H)
    return l;
  l.first += (int32_t)(n->attr.slice.start / H);
  l.n = (int32_t)(width / H);
  return l;
}

static struct label of_node(const struct look *k, const node *n, const unroll_graph *g) {
  struct label l;
  switch (n->op) {
  case UNROLL_OP_MATMUL:
    if (k->scan->backward)
      return label(UNROLL_QUANTITY_HIDDEN);
    l = at(k, n->n_in > 2 ? n->in[2] : GRAPH_NONE);
    if (l.first >= 0)
      return l;
    const uint32_t weight = outer_of(k->body, n->in[1]);
    return weight == GRAPH_NONE ? NOTHING : of_product(first_row(g, weight), width_of(k->body, n->out[0]), k->out->H);
  case UNROLL_OP_SLICE: return of_slice(k, n);
  case UNROLL_OP_BINARY: return of_binary(k, n);
  case UNROLL_OP_UNARY:
    l = at(k, n->in[0]);
    const int32_t kind = n->attr.unary.kind;
    if (l.quantity == UNROLL_QUANTITY_PRE_ACTIVATION &&
        (kind == UNROLL_TANH || kind == UNROLL_SIGMOID || kind == UNROLL_RELU))
      l.quantity = UNROLL_QUANTITY_GATE;
    return l;
  case UNROLL_OP_LAYER_NORM:
  case UNROLL_OP_LENGTH_MASK: return at(k, n->in[0]);
  default: return NOTHING;
  }
}

/* What becomes a carry, and what of it was before masks, bounds and zoneout. */
static void label_next(const struct look *k, uint32_t id, struct label l) {
  for (uint32_t p; id != GRAPH_NONE; id = k->body->nodes[p].in[k->body->nodes[p].op == UNROLL_OP_SELECT ? 2 : 0]) {
    if ((p = k->body->tensors[id].producer) == GRAPH_NONE)
      return;
    k->out->of[id] = l;
    const node *n = &k->body->nodes[p];
    const bool bounds =
        n->op == UNROLL_OP_BINARY && (n->attr.binary.kind == UNROLL_MIN || n->attr.binary.kind == UNROLL_MAX);
    const bool copies = n->op == UNROLL_OP_UNARY && n->attr.unary.kind == UNROLL_COPY;
    if (n->op != UNROLL_OP_LENGTH_MASK && n->op != UNROLL_OP_SELECT && !bounds && !copies)
      return;
  }
}

/* The gate of a gradient that goes into the rows of several: it is padded to their width. */
static void label_padded(const struct look *k) {
  const int64_t H = k->out->H;
  for (uint32_t i = 0; i < k->body->n_nodes; i++) {
    const node *n = &k->body->nodes[i];
    if (n->op != UNROLL_OP_PAD || n->in[0] == GRAPH_NONE || H < 1 || n->attr.pad.before % H)
      continue;
    struct label *l = &k->out->of[n->in[0]];
    const int64_t width = width_of(k->body, n->in[0]);
    if (l->quantity == UNROLL_QUANTITY_PRE_ACTIVATION && l->first < 0 && width % H == 0)
      *l = gates(l->quantity, (int32_t)(n->attr.pad.before / H), (int32_t)(width / H));
  }
}

static bool has_op(const unroll_graph *b, uint32_t op) {
  for (uint32_t i = 0; i < b->n_nodes; i++)
    if (b->nodes[i].op == op)
      return true;
  return false;
}

static int family_of(const unroll_graph *b, bool backward) {
  if (has_op(b, UNROLL_OP_LSTM_GATES) || has_op(b, UNROLL_OP_LSTM_GATES_GRAD))
    return FAMILY_LSTM;
  if (has_op(b, UNROLL_OP_GRU_UPDATE) || has_op(b, UNROLL_OP_GRU_AFTER_GATES) || has_op(b, UNROLL_OP_GRU_UPDATE_GRAD) ||
      has_op(b, UNROLL_OP_GRU_AFTER_GATES_GRAD))
    return FAMILY_GRU;
  return !backward && b->n_carries == 2 ? FAMILY_LSTM : FAMILY_RNN;
}

bool label_body(const unroll_graph *g, uint32_t index, struct label *top, struct body_labels *out) {
  const node *scan = &g->nodes[index];
  const unroll_graph *b = scan->body;
  const struct look k = {b, scan, out};
  out->of = mem_array(&g->allocator, (uint64_t)b->n_tensors + 1, sizeof *out->of);
  if (!out->of)
    return false;
  for (uint32_t i = 0; i < b->n_tensors; i++)
    out->of[i] = NOTHING;
  const bool recurrent = scan->layer >= 0 && b->n_carries > 0;
  out->family = recurrent ? family_of(b, scan->backward) : FAMILY_NONE;
  const bool two = out->family == FAMILY_LSTM && b->n_carries > 1;
  out->H = recurrent ? width_of(b, b->carries[two ? 1 : 0].in) : 0;
  int32_t G = 0;
  for (uint32_t i = 0; i < b->n_inputs && recurrent && !scan->backward; i++) {
    const struct label l = label_input(g, scan, b->inputs[i].outer, out->H, top);
    out->of[b->inputs[i].inner] = l;
    G = l.first >= 0 && l.first + l.n > G ? l.first + l.n : G;
  }
  for (uint32_t i = 0; i < b->n_nodes; i++) {
    const node *n = &b->nodes[i];
    for (uint32_t o = 0; o < n->n_out; o++)
      if (n->out[o] != GRAPH_NONE && !by_op(g, n, o, &out->of[n->out[o]]) && o == 0 && recurrent)
        out->of[n->out[0]] = of_node(&k, n, g);
  }
  if (!recurrent)
    return true;
  label_next(&k, b->carries[0].next, label(UNROLL_QUANTITY_HIDDEN));
  if (two)
    label_next(&k, b->carries[1].next, label(UNROLL_QUANTITY_CELL));
  if (scan->backward)
    label_padded(&k);
  else if (out->family == FAMILY_LSTM && G == 3)
    out->family = FAMILY_COUPLED;
  else if (out->family == FAMILY_RNN && G == 3)
    out->family = FAMILY_GRU;
  else if (out->family == FAMILY_RNN && G <= 1) /* one block is no gate */
    for (uint32_t i = 0; i < b->n_tensors; i++)
      out->of[i].first = -1;
  return true;
}

struct label label_of_top(const unroll_graph *g, const node *n, uint32_t output) {
  struct label l = NOTHING;
  if (by_op(g, n, output, &l))
    return l;
  const uint32_t id = n->out[output];
  if (!n->backward && n->layer < 0 && id != GRAPH_NONE && g->tensors[id].spec.rank == 0)
    l.quantity = UNROLL_QUANTITY_LOSS;
  return l;
}

void label_gate_name(int family, int32_t gate, char name[LABEL_NAME]) {
  static const int32_t cells[] = {
      [FAMILY_LSTM] = UNROLL_CELL_LSTM, [FAMILY_COUPLED] = UNROLL_RNN_COUPLED_LSTM, [FAMILY_GRU] = UNROLL_CELL_GRU};
  const unroll_rnn_options o = {.struct_size = sizeof o, .cell = cells[family]};
  unroll_gate what = {.struct_size = sizeof what};
  const bool named = cells[family] && unroll_gate_of(&o, gate, &what, NULL) == UNROLL_OK;
  const bool inner = family == FAMILY_GRU && gate == unroll_gate_count(UNROLL_CELL_GRU); /* of gru_after, behind them */
  snprintf(name, LABEL_NAME, "%s%s",
           named   ? what.name
           : inner ? "candidate's h part"
                   : "",
           named && strcmp(what.name, "candidate") != 0 ? " gate" : "");
}
