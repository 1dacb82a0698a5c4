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

/* What is multiplied with a value, or taken from one, has been through its activation, however many ops that has. */
static void mark_gate(const struct look *k, uint32_t id) {
  const uint32_t p = k->body->tensors[id].producer;
  struct label *l = &k->out->of[id];
  const bool activated =
      p != GRAPH_NONE && (k->body->nodes[p].op == UNROLL_OP_UNARY || k->body->nodes[p].op == UNROLL_OP_BINARY ||
                          k->body->nodes[p].op == UNROLL_OP_SELECT);
  if (activated && l->first >= 0 && l->quantity == UNROLL_QUANTITY_PRE_ACTIVATION)
    l->quantity = UNROLL_QUANTITY_GATE;
}

static struct label of_binary(const struct look *k, const node *n) {
  const struct label a = at(k, n->in[0]), b = at(k, n->in[1]), kept = a.first >= 0 ? a : b;
  const int32_t kind = n->attr.binary.kind;
  const bool sum = kind == UNROLL_ADD, given = is_given(k, n->in[0]) || is_given(k, n->in[1]);
  if (kind >= UNROLL_TANH_GRAD)
    return label(UNROLL_QUANTITY_PRE_ACTIVATION);
  if (kind == UNROLL_SUB && b.quantity == UNROLL_QUANTITY_GATE && is_given(k, n->in[0]))
    return NOTHING; /* 1 - i, where a cell has no gate of that name */
  if (given || (kind == UNROLL_DIV && a.first >= 0 && a.first == b.first)) /* x/(1 + |x|) */
    return kept;
  if (sum)
    return a.quantity == UNROLL_QUANTITY_PRE_ACTIVATION   ? a
           : b.quantity == UNROLL_QUANTITY_PRE_ACTIVATION ? b
                                                          : NOTHING;
  if (!k->scan->backward) {
    mark_gate(k, n->in[0]);
    mark_gate(k, n->in[1]);
  }
  return NOTHING;
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

/* Is it, of a reverse pass, the gradient of a slice of gates, padded to the width of those that stand together? */
static bool is_whole_gates(const struct look *k, const node *n) {
  const int64_t H = k->out->H, before = n->attr.pad.before;
  const tensor_spec *s = &k->body->tensors[n->out[0]].spec;
  if (H < 1 || n->attr.pad.axis != s->rank - 1 || before % H || width_of(k->body, n->in[0]) % H)
    return false;
  const int64_t width = s->shape[s->rank - 1];
  return width % H == 0 && width / H <= k->out->gates;
}
static struct label all_gates(const struct look *k, const node *n) {
  return gates(UNROLL_QUANTITY_PRE_ACTIVATION, 0, (int32_t)(width_of(k->body, n->out[0]) / k->out->H));
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
  case UNROLL_OP_SELECT: /* an activation by cases; of what is not one of those, nothing is known */
    l = at(k, n->in[1]).first >= 0 ? at(k, n->in[1]) : at(k, n->in[2]);
    return k->scan->backward ? NOTHING : l;
  case UNROLL_OP_PAD: return k->scan->backward && is_whole_gates(k, n) ? all_gates(k, n) : NOTHING;
  case UNROLL_OP_LAYER_NORM:
  case UNROLL_OP_LENGTH_MASK: return at(k, n->in[0]);
  default: return NOTHING;
  }
}

/* What becomes a carry, and what of it was before masks, bounds, zoneout, what is added, and a projection. */
static void label_next(const struct look *k, uint32_t id, struct label l) {
  const bool forward = !k->scan->backward;
  for (uint32_t p; id != GRAPH_NONE && (p = k->body->tensors[id].producer) != GRAPH_NONE;) {
    const node *n = &k->body->nodes[p];
    struct label *now = &k->out->of[id];
    if (k->out->gates > 1 && now->first >= 0 && now->quantity == UNROLL_QUANTITY_GATE)
      return; /* n of n + z⊙(h - n) */
    *now = l;
    switch (n->op) {
    case UNROLL_OP_SELECT: id = n->in[2]; break;
    case UNROLL_OP_LENGTH_MASK: id = n->in[0]; break;
    case UNROLL_OP_UNARY: id = n->attr.unary.kind == UNROLL_COPY ? n->in[0] : GRAPH_NONE; break;
    case UNROLL_OP_BINARY:
      id = n->attr.binary.kind == UNROLL_MIN || n->attr.binary.kind == UNROLL_MAX ||
                   (forward && n->attr.binary.kind == UNROLL_ADD)
               ? n->in[0]
               : GRAPH_NONE;
      break;
    case UNROLL_OP_MATMUL: id = forward && k->out->two ? n->in[0] : GRAPH_NONE; break;
    default: id = GRAPH_NONE;
    }
  }
}

/* The gradient of one gate, which is padded to the width of all: by way of bounds and factors up to that of its activation. */
static void label_padded(const struct look *k) {
  const unroll_graph *b = k->body;
  for (uint32_t i = 0; i < b->n_nodes; i++) {
    const node *n = &b->nodes[i];
    if (n->op != UNROLL_OP_PAD || n->in[0] == GRAPH_NONE || !is_whole_gates(k, n))
      continue;
    const int64_t H = k->out->H;
    const struct label l =
        gates(UNROLL_QUANTITY_PRE_ACTIVATION, (int32_t)(n->attr.pad.before / H), (int32_t)(width_of(b, n->in[0]) / H));
    for (uint32_t id = n->in[0]; id != GRAPH_NONE && k->out->of[id].first < 0;) {
      const uint32_t p = b->tensors[id].producer;
      k->out->of[id] = l;
      if (p == GRAPH_NONE)
        break;
      const node *m = &b->nodes[p];
      const bool scales = m->op == UNROLL_OP_BINARY && m->attr.binary.kind == UNROLL_MUL && is_given(k, m->in[1]);
      id = m->op == UNROLL_OP_SELECT ? m->in[is_given(k, m->in[1]) ? 2 : 1] : scales ? m->in[0] : GRAPH_NONE;
    }
  }
  /* What else goes back through an activation is the way from h to the cell state; of a GRU its candidate stands alone. */
  for (uint32_t i = 0; i < b->n_nodes && k->out->gates > 1; i++) {
    const node *n = &b->nodes[i];
    struct label *l = n->op == UNROLL_OP_BINARY ? &k->out->of[n->out[0]] : NULL;
    if (l && n->attr.binary.kind >= UNROLL_TANH_GRAD && l->quantity == UNROLL_QUANTITY_PRE_ACTIVATION && l->first < 0)
      *l = k->out->two ? label(UNROLL_QUANTITY_CELL) : gates(UNROLL_QUANTITY_PRE_ACTIVATION, 2, 1);
  }
}

static bool has_op(const unroll_graph *b, uint32_t op) {
  for (uint32_t i = 0; i < b->n_nodes; i++)
    if (b->nodes[i].op == op)
      return true;
  return false;
}

static int family_of(const unroll_graph *b) {
  if (has_op(b, UNROLL_OP_LSTM_GATES))
    return FAMILY_LSTM;
  if (has_op(b, UNROLL_OP_GRU_UPDATE) || has_op(b, UNROLL_OP_GRU_AFTER_GATES))
    return FAMILY_GRU;
  return b->n_carries == 2 ? FAMILY_LSTM : FAMILY_RNN;
}

/* What a scan that goes back through a layer takes of the layer's own, its cell above all. */
static void take_cell(const unroll_graph *b, const struct body_labels *of, struct body_labels *out) {
  out->two = of->two && b->n_carries > 1;
  out->family = of->family;
  out->gates = of->gates;
  out->H = of->H;
}

static void find_cell(const struct look *k, const unroll_graph *g, struct label *top) {
  const unroll_graph *b = k->body;
  struct body_labels *out = k->out;
  out->family = family_of(b);
  out->two = out->family == FAMILY_LSTM && b->n_carries > 1;
  out->H = width_of(b, b->carries[out->two ? 1 : 0].in);
  for (uint32_t i = 0; i < b->n_inputs; i++) {
    const struct label l = label_input(g, k->scan, b->inputs[i].outer, out->H, top);
    out->of[b->inputs[i].inner] = l;
    out->gates = l.first >= 0 && l.first + l.n > out->gates ? l.first + l.n : out->gates;
  }
  if (out->gates == 3 && out->family != FAMILY_GRU)
    out->family = out->two ? FAMILY_COUPLED : FAMILY_GRU;
}

bool label_body(const unroll_graph *g, uint32_t index, const struct body_labels *forward, struct label *top,
                struct body_labels *out) {
  const node *scan = &g->nodes[index];
  const unroll_graph *b = scan->body;
  const struct look k = {b, scan, out};
  *out = (struct body_labels){.family = FAMILY_NONE};
  out->of = mem_array(&g->allocator, (uint64_t)b->n_tensors + 1, sizeof *out->of);
  if (!out->of)
    return false;
  for (uint32_t i = 0; i < b->n_tensors; i++)
    out->of[i] = NOTHING;
  const bool recurrent = scan->layer >= 0 && b->n_carries > 0 && (!scan->backward || forward);
  if (recurrent && scan->backward)
    take_cell(b, forward, out);
  else if (recurrent)
    find_cell(&k, g, top);
  for (uint32_t i = 0; i < b->n_nodes; i++) {
    const node *n = &b->nodes[i];
    for (uint32_t o = 0; o < n->n_out; o++)
      if (n->out[o] != GRAPH_NONE && !by_op(g, n, o, &out->of[n->out[o]]) && o == 0 && recurrent)
        out->of[n->out[0]] = of_node(&k, n, g);
  }
  if (!recurrent)
    return true;
  label_next(&k, b->carries[0].next, label(UNROLL_QUANTITY_HIDDEN));
  if (out->two)
    label_next(&k, b->carries[1].next, label(UNROLL_QUANTITY_CELL));
  if (scan->backward)
    label_padded(&k);
  else if (out->family == FAMILY_RNN && out->gates <= 1) /* one block is no gate */
    for (uint32_t i = 0; i < b->n_tensors; i++)
      out->of[i].first = -1;
  return true;
}

/* ---- cells without steps ---- */

static struct label of_min_node(const unroll_graph *g, const node *n, const struct label *top, int64_t H) {
  const struct label a = n->in[0] == GRAPH_NONE ? NOTHING : top[n->in[0]],
                     b = n->n_in < 2 || n->in[1] == GRAPH_NONE ? NOTHING : top[n->in[1]];
  struct label l = a.first >= 0 ? a : b;
  switch (n->op) {
  case UNROLL_OP_MATMUL: return of_product(first_row(g, n->in[1]), width_of(g, n->out[0]), H);
  case UNROLL_OP_UNARY:
    if (n->attr.unary.kind == UNROLL_SIGMOID || n->attr.unary.kind == UNROLL_TANH || n->attr.unary.kind == UNROLL_RELU)
      l.quantity = l.first >= 0 ? UNROLL_QUANTITY_GATE : l.quantity;
    return l;
  case UNROLL_OP_BINARY: return a.first >= 0 && b.first >= 0 && a.first != b.first ? NOTHING : l;
  case UNROLL_OP_SELECT: return b;
  default: return NOTHING;
  }
}

int label_linear_scan(const unroll_graph *g, uint32_t index, struct label *top) {
  const node *scan = &g->nodes[index];
  const int64_t H = width_of(g, scan->in[0]);
  const uint32_t keep = scan->in[0];
  int32_t G = 0;
  uint32_t first = index;
  while (first > 0 && g->nodes[first - 1].layer == scan->layer && g->nodes[first - 1].direction == scan->direction &&
         g->nodes[first - 1].backward == scan->backward)
    first--;
  for (uint32_t i = first; i < index; i++) {
    const node *n = &g->nodes[i];
    if (n->n_in == 0 || n->n_out == 0 || n->out[0] == GRAPH_NONE)
      continue;
    const struct label l = top[n->out[0]] = of_min_node(g, n, top, H);
    G = l.first >= 0 && l.first + l.n > G ? l.first + l.n : G;
  }
  if (G != 2 && G != 3)
    return FAMILY_NONE;
  /* Of minLSTM the quotients f/(f+i) and i/(f+i), which are made of both; of both cells what a candidate was multiplied with. */
  top[keep] = gates(UNROLL_QUANTITY_GATE, 0, 1);
  for (uint32_t i = first; i < index; i++) {
    const node *n = &g->nodes[i];
    if (n->op != UNROLL_OP_BINARY || n->attr.binary.kind != UNROLL_MUL || n->in[0] == n->in[1])
      continue;
    const struct label a = top[n->in[0]], b = top[n->in[1]];
    if (b.first != G - 1 || (G == 3 ? a.first >= 0 : a.first != 0))
      continue;
    top[n->in[0]] = gates(UNROLL_QUANTITY_GATE, G - 2, 1);
    if (g->nodes[g->tensors[n->in[1]].producer].op != UNROLL_OP_MATMUL) /* else it has no activation */
      top[n->in[1]].quantity = UNROLL_QUANTITY_GATE;
    top[n->out[0]] = NOTHING;
  }
  return G == 2 ? FAMILY_MIN_GRU : FAMILY_MIN_LSTM;
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
  static const int32_t cells[FAMILY_COUNT] = {[FAMILY_LSTM] = UNROLL_CELL_LSTM,
                                              [FAMILY_COUPLED] = UNROLL_RNN_COUPLED_LSTM,
                                              [FAMILY_GRU] = UNROLL_CELL_GRU,
                                              [FAMILY_MIN_GRU] = UNROLL_RNN_MIN_GRU,
                                              [FAMILY_MIN_LSTM] = UNROLL_RNN_MIN_LSTM};
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
