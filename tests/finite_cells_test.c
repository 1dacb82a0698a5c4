/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/finite.h: the names of gates, in cells whose steps are ops of their own. Which op makes which gate is said here by
 * its place among those of its kind, in the order in which nn.h has the formulas, and in the reverse order on the way back.
 */
#include "planting.h"

#include "graph/graph_private.h"

enum { P = 3 }; /* of a projection */

/* One result of a layer's steps, or of all steps at once. */
typedef struct spot {
  bool backward;
  uint32_t op;       /* 0: what becomes carry nth */
  int32_t kind, nth; /* of a unary or binary; the how many-th one */
  int32_t quantity;
  int32_t first, n; /* gates in its rows; first -1: none */
  const char *name; /* of gate `first` */
} spot;
enum { MOST_SPOTS = 10 };
typedef struct cell {
  const char *what;
  unroll_rnn_options o;
  spot spots[MOST_SPOTS];
} cell;

#define UNARY(k, i) 0, UNROLL_OP_UNARY, UNROLL_##k, i
#define BINARY(k, i) 0, UNROLL_OP_BINARY, UNROLL_##k, i
#define BACK(k, i) 1, UNROLL_OP_BINARY, UNROLL_##k##_GRAD, i
#define PRODUCT(i) 0, UNROLL_OP_MATMUL, -1, i
#define CARRY(i) 0, 0, -1, i
#define GATE(i, name) UNROLL_QUANTITY_GATE, i, 1, name
#define PRE(i, name) UNROLL_QUANTITY_PRE_ACTIVATION, i, 1, name
#define ALL(first, n, name) UNROLL_QUANTITY_PRE_ACTIVATION, first, n, name
#define HIDDEN UNROLL_QUANTITY_HIDDEN, -1, 1, ""
#define CELL UNROLL_QUANTITY_CELL, -1, 1, ""
#define IN "input gate"
#define FORGET "forget gate"
#define OUT "output gate"
#define NEW "candidate"
#define RESET "reset gate"
#define UPDATE "update gate"

/* i f g c, o, h; back from h: o, h(c), g, f, i */
#define LSTM_STEPS                                                                                                 \
  {UNARY(SIGMOID, 0), GATE(0, IN)}, {UNARY(SIGMOID, 1), GATE(1, FORGET)}, {UNARY(TANH, 0), GATE(2, NEW)},          \
      {UNARY(SIGMOID, 2), GATE(3, OUT)}, {CARRY(1), CELL}, {BACK(SIGMOID, 0), PRE(3, OUT)}, {BACK(TANH, 0), CELL}, \
      {BACK(TANH, 1), PRE(2, NEW)}, {BACK(SIGMOID, 1), PRE(1, FORGET)}, {                                          \
    BACK(SIGMOID, 2), PRE(0, IN)                                                                                   \
  }
#define COUPLED_STEPS                                                                                        \
  {UNARY(SIGMOID, 0), GATE(0, IN)}, {UNARY(TANH, 0), GATE(1, NEW)}, {UNARY(SIGMOID, 1), GATE(2, OUT)},       \
      {CARRY(1), CELL}, {PRODUCT(0), ALL(0, 3, IN)}, {BACK(SIGMOID, 0), PRE(2, OUT)}, {BACK(TANH, 0), CELL}, \
      {BACK(TANH, 1), PRE(1, NEW)}, {                                                                        \
    BACK(SIGMOID, 1), PRE(0, IN)                                                                             \
  }
#define GRU_STEPS                                                                                                  \
  {UNARY(SIGMOID, 0), GATE(0, RESET)}, {UNARY(SIGMOID, 1), GATE(1, UPDATE)}, {UNARY(TANH, 0), GATE(2, NEW)},       \
      {CARRY(0), HIDDEN}, {PRODUCT(0), ALL(0, 2, RESET)}, {PRODUCT(1), PRE(2, NEW)}, {BACK(TANH, 0), PRE(2, NEW)}, \
      {BACK(SIGMOID, 0), PRE(1, UPDATE)}, {                                                                        \
    BACK(SIGMOID, 1), PRE(0, RESET)                                                                                \
  }

static const cell cells[] = {
    {"lstm, peepholes", {.cell = UNROLL_CELL_LSTM, .peepholes = 1}, {LSTM_STEPS}},
    {"lstm, peepholes, projection", {.cell = UNROLL_CELL_LSTM, .peepholes = 1, .projection = P}, {LSTM_STEPS}},
    {"lstm, peepholes, layer norm, zoneout, skip",
     {.cell = UNROLL_CELL_LSTM, .peepholes = 1, .layer_norm = 1, .zoneout_c = 0.1, .zoneout_h = 0.1, .skip = 0.5},
     {LSTM_STEPS}},
    {"lstm, bounds", {.cell = UNROLL_CELL_LSTM, .clip = 2, .cell_clip = 3}, {LSTM_STEPS}},
    {"lstm, bound of c, standard gates",
     {.cell = UNROLL_CELL_LSTM, .cell_clip = 3},
     {{UNARY(SIGMOID, 0), GATE(3, OUT)}, {CARRY(1), CELL}, {PRODUCT(0), ALL(0, 4, IN)}}},
    {"lstm, projection", {.cell = UNROLL_CELL_LSTM, .projection = P}, {{CARRY(0), HIDDEN}, {PRODUCT(1), HIDDEN}}},
    {"lstm, projection, skip, states",
     {.cell = UNROLL_CELL_LSTM, .projection = P, .skip = 0.5, .residual = UNROLL_RESIDUAL_STATES},
     {{CARRY(0), HIDDEN}, {PRODUCT(1), HIDDEN}}},
    {"lstm, other activations",
     {.cell = UNROLL_CELL_LSTM,
      .f = {.kind = UNROLL_ACTIVATION_HARD_SIGMOID, .alpha = 0.2, .beta = 0.5},
      .g = {.kind = UNROLL_ACTIVATION_SOFTSIGN}},
     {{BINARY(MIN, 0), GATE(0, IN)},
      {BINARY(MIN, 1), GATE(1, FORGET)},
      {BINARY(DIV, 0), GATE(2, NEW)},
      {BINARY(MIN, 2), GATE(3, OUT)},
      {CARRY(0), HIDDEN},
      {CARRY(1), CELL}}},
    {"coupled lstm", {.cell = UNROLL_RNN_COUPLED_LSTM}, {COUPLED_STEPS}},
    {"coupled lstm, projection", {.cell = UNROLL_RNN_COUPLED_LSTM, .projection = P}, {COUPLED_STEPS}},
    {"coupled lstm, layer norm, masks",
     {.cell = UNROLL_RNN_COUPLED_LSTM, .layer_norm = 1, .zoneout_c = 0.2, .state_dropout = 0.1},
     {COUPLED_STEPS}},
    {"gru, bounds", {.cell = UNROLL_CELL_GRU, .clip = 2}, {GRU_STEPS}},
    {"gru, bounds, layer norm, skip", {.cell = UNROLL_CELL_GRU, .clip = 2, .layer_norm = 1, .skip = 0.5}, {GRU_STEPS}},
    {"gru after, bounds", {.cell = UNROLL_CELL_GRU_AFTER, .clip = 2}, {GRU_STEPS}},
    {"gru after, bounds, states",
     {.cell = UNROLL_CELL_GRU_AFTER, .clip = 2, .residual = UNROLL_RESIDUAL_STATES, .zoneout_h = 0.2},
     {GRU_STEPS}},
    {"gru, other activations",
     {.cell = UNROLL_CELL_GRU,
      .f = {.kind = UNROLL_ACTIVATION_HARD_SIGMOID, .alpha = 0.2, .beta = 0.5},
      .g = {.kind = UNROLL_ACTIVATION_SOFTSIGN}},
     {{BINARY(MIN, 0), GATE(0, RESET)},
      {BINARY(MIN, 1), GATE(1, UPDATE)},
      {BINARY(DIV, 0), GATE(2, NEW)},
      {CARRY(0), HIDDEN}}},
    {"gru, layer norm",
     {.cell = UNROLL_CELL_GRU, .layer_norm = 1},
     {{0, UNROLL_OP_LAYER_NORM, -1, 0, ALL(0, 2, RESET)},
      {0, UNROLL_OP_LAYER_NORM, -1, 1, PRE(2, NEW)},
      {0, UNROLL_OP_GRU_RESET, -1, 0, UNROLL_QUANTITY_GATE, 0, 2, RESET},
      {1, UNROLL_OP_GRU_RESET_GRAD, -1, 0, ALL(0, 2, RESET)},
      {1, UNROLL_OP_GRU_UPDATE_GRAD, -1, 0, PRE(2, NEW)}}},
    {"rnn, skip", {.cell = UNROLL_CELL_RNN, .skip = 0.5}, {{UNARY(TANH, 0), HIDDEN}, {CARRY(0), HIDDEN}}},
    {"rnn, states",
     {.cell = UNROLL_CELL_RNN, .residual = UNROLL_RESIDUAL_STATES, .layer_norm = 1},
     {{UNARY(TANH, 0), HIDDEN}, {CARRY(0), HIDDEN}}},
    {"rnn, softplus",
     {.cell = UNROLL_CELL_RNN, .f = {.kind = UNROLL_ACTIVATION_SOFTPLUS}},
     {{CARRY(0), HIDDEN}, {PRODUCT(0), UNROLL_QUANTITY_PRE_ACTIVATION, -1, 1, ""}}},
    {"min gru",
     {.cell = UNROLL_RNN_MIN_GRU},
     {{PRODUCT(0), PRE(0, UPDATE)},
      {PRODUCT(1), PRE(1, NEW)},
      {UNARY(SIGMOID, 0), GATE(0, UPDATE)},
      {UNARY(SIGMOID, 1), GATE(0, UPDATE)},
      {0, UNROLL_OP_LINEAR_SCAN, -1, 0, HIDDEN}}},
    {"min lstm",
     {.cell = UNROLL_RNN_MIN_LSTM, .g = {.kind = UNROLL_ACTIVATION_TANH}},
     {{PRODUCT(0), PRE(0, FORGET)},
      {PRODUCT(1), PRE(1, IN)},
      {PRODUCT(2), PRE(2, NEW)},
      {UNARY(SIGMOID, 0), GATE(0, FORGET)},
      {UNARY(SIGMOID, 1), GATE(1, IN)},
      {UNARY(TANH, 0), GATE(2, NEW)},
      {0, UNROLL_OP_LINEAR_SCAN, -1, 0, HIDDEN}}},
};

/* The node in the lowered graph, or in the body of a scan. */
static const node *nth_of(const unroll_graph *g, const spot *k, int32_t layer, int32_t direction) {
  int32_t seen = 0;
  if (g->parent && k->op == 0) { /* before what moves numbers alone */
    const node *n = &g->nodes[g->tensors[g->carries[k->nth].next].producer];
    while (n->op == UNROLL_OP_LENGTH_MASK || n->op == UNROLL_OP_SELECT)
      n = &g->nodes[g->tensors[n->in[n->op == UNROLL_OP_SELECT ? 2 : 0]].producer];
    return n;
  }
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const node *n = &g->nodes[i];
    if (!g->parent && (n->layer != layer || n->direction != direction || n->backward != k->backward))
      continue;
    if (n->op == k->op && (k->kind < 0 || n->attr.unary.kind == k->kind) && seen++ == k->nth)
      return n;
  }
  return NULL;
}

static const node *find_node(const unroll_graph *lowered, const spot *k, int32_t layer, int32_t direction, bool *top) {
  const unroll_graph *body = NULL;
  for (uint32_t i = 0; i < lowered->n_nodes; i++) {
    const node *n = &lowered->nodes[i];
    if (n->op == UNROLL_OP_SCAN && n->layer == layer && n->backward == k->backward &&
        (n->body->direction != direction) == k->backward)
      body = n->body;
  }
  *top = !body;
  return nth_of(body ? body : lowered, k, layer, direction);
}

/* Plants once in it at a random place. Found there? */
static bool plant_and_find(const struct rig *r, unroll_graph *g, const model *m, const cell *c, const spot *k) {
  static const float values[] = {(float)NAN, (float)INFINITY, -(float)INFINITY};
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *lowered;
  bool top;
  const int32_t layer = (int32_t)draw(LAYERS), direction = (int32_t)draw(2);
  const int64_t b = draw(B), t = draw((uint32_t)lengths[b]), gate = draw((uint32_t)k->n);
  assert_status(UNROLL_OK, graph_lower(g, NULL, &lowered, &err));
  const node *n = find_node(lowered, k, layer, direction, &top);
  if (!n)
    fail_msg("%s: no such op", c->what);
  const int64_t W = c->o.projection && k->quantity == UNROLL_QUANTITY_HIDDEN ? P : H, unit = draw((uint32_t)W);
  char name[64];
  snprintf(name, sizeof name, "%s", n->name);
  *r->plan = (planter){.armed = 1,
                       .name = name,
                       .top = top,
                       .op = n->op,
                       .kind = n->op == UNROLL_OP_MATMUL                               ? n->attr.matmul.trans_b
                               : n->op == UNROLL_OP_UNARY || n->op == UNROLL_OP_BINARY ? n->attr.unary.kind
                                                                                       : -1,
                       .layer = layer,
                       .direction = k->backward ? !direction : direction,
                       .t = t,
                       .element = ((top ? t * B : 0) * W + b * k->n * W) + gate * W + unit,
                       .value = values[draw(3)],
                       .update = UINT64_MAX};
  unroll_graph_destroy(lowered);
  const unroll_nonfinite at = find(g, r->device, m);
  r->plan->armed = 0;
  const int32_t want_gate = k->first < 0 ? -1 : k->first + (int32_t)gate;
  const bool found = r->plan->hits > 1 && at.found && !at.fused && at.quantity == k->quantity && at.layer == layer &&
                     at.phase == (k->backward ? UNROLL_PHASE_GRADIENT : UNROLL_PHASE_FORWARD) &&
                     at.direction == direction && at.step == t && at.sequence == b && at.gate == want_gate &&
                     at.unit == unit && (gate > 0 || strcmp(at.gate_name, k->name) == 0);
  if (!found) {
    char text[UNROLL_NONFINITE_TEXT];
    print_message(
        "%s: planted in %s of layer %d, direction %d, step %d, sequence %d, gate %d, unit %d (%d times); found: "
        "gate %d, %s\n",
        c->what, name, layer, direction, (int)t, (int)b, want_gate, (int)unit, r->plan->hits, at.gate,
        unroll_nonfinite_text(&at, text, sizeof text));
  }
  return found;
}

static void gates_of_every_cell(void **state) {
  (void)state;
  struct rig r = {.ctx = NULL};
  if (!rig_open(&r, NULL))
    skip();
  noise = 7;
  int found = 0, places = 0;
  for (size_t i = 0; i < sizeof cells / sizeof *cells; i++) {
    unroll_graph *g = network(cells[i].o);
    model m = filled(g, r.cpu);
    assert_false(find(g, r.device, &m).found);
    for (int k = 0; k < MOST_SPOTS && cells[i].spots[k].name; k++)
      for (int again = 0; again < 3; again++, places++)
        found += plant_and_find(&r, g, &m, &cells[i], &cells[i].spots[k]);
    model_close(&m);
    unroll_graph_destroy(g);
  }
  rig_close(&r);
  print_message("%d of %d places found\n", found, places);
  assert_int_equal(found, places);
}

/* Cells without steps, whose layer is a linear scan over all of them at once. */
static void min_cells(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    const int32_t both[] = {UNROLL_RNN_MIN_GRU, UNROLL_RNN_MIN_LSTM};
    for (int i = 0; i < 2; i++) {
      unroll_graph *g = network((unroll_rnn_options){.cell = both[i]});
      model m = filled(g, dev);
      assert_false(find(g, dev, &m).found);
      double b[3 * H] = {0}, W[3 * H * I] = {0};
      const int64_t rows = unroll_tensor_describe(unroll_graph_find(g, "rnn.b.0.1")).shape[0];
      for (int k = 0; k < I; k++)
        W[(rows - 2) * I + k] = 3e38;
      b[rows - 2] = 3e38;
      double x[T * B * I];
      for (int k = 0; k < T * B * I; k++)
        x[k] = k / I / B < lengths[k / I % B] ? 0.01 : (double)NAN;
      x[(4 * B + 2) * I + 1] = x[(6 * B + 0) * I + 1] = 0.5; /* 3e38·(1 + 0.52): the reverse layer sees step 6 first */
      model_put(&m, "x", x, T * B * I);
      model_put(&m, "rnn.b.0.1", b, rows);
      model_put(&m, "rnn.W_x.0.1", W, rows * I);
      const unroll_nonfinite at = find(g, dev, &m);
      assert_true(at.found && at.phase == UNROLL_PHASE_FORWARD && at.value == (double)INFINITY);
      assert_int_equal(at.layer, 0);
      assert_int_equal(at.direction, UNROLL_REVERSE);
      assert_int_equal(at.step, 6);
      assert_int_equal(at.sequence, 0);
      model_close(&m);
      unroll_graph_destroy(g);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(gates_of_every_cell), DEVICE_TESTS(min_cells)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
