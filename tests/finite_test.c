/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/finite.h: a number that is not finite is planted in a step of a device's work, by a backend that overwrites it
 * (plugins/planter.c), or comes of itself, and has to be found where it is.
 */
#include "planting.h"

#include <unroll/checkpoint.h>

#include "graph/graph_private.h"
#include "runs.h"

/* ---- planted ---- */

/* A result of a cell's step: its op, and what it is. */
struct target {
  int32_t cell;
  uint32_t op;
  int32_t kind;
  uint32_t output;
  int32_t phase, quantity, first, gates;
};
static const struct target targets[] = {
#define FORWARD(cell, op, kind, output, ...) \
  { cell, op, kind, output, UNROLL_PHASE_FORWARD, __VA_ARGS__ }
#define BACKWARD(cell, op, kind, output, ...) \
  { cell, op, kind, output, UNROLL_PHASE_GRADIENT, __VA_ARGS__ }
    FORWARD(UNROLL_CELL_LSTM, UNROLL_OP_MATMUL, 1, 0, UNROLL_QUANTITY_PRE_ACTIVATION, 0, 4),
    FORWARD(UNROLL_CELL_LSTM, UNROLL_OP_LSTM_GATES, -1, 2, UNROLL_QUANTITY_GATE, 0, 4),
    FORWARD(UNROLL_CELL_LSTM, UNROLL_OP_LSTM_GATES, -1, 1, UNROLL_QUANTITY_CELL, -1, 1),
    FORWARD(UNROLL_CELL_LSTM, UNROLL_OP_LSTM_GATES, -1, 0, UNROLL_QUANTITY_HIDDEN, -1, 1),
    BACKWARD(UNROLL_CELL_LSTM, UNROLL_OP_LSTM_GATES_GRAD, -1, 0, UNROLL_QUANTITY_PRE_ACTIVATION, 0, 4),
    BACKWARD(UNROLL_CELL_LSTM, UNROLL_OP_LSTM_GATES_GRAD, -1, 1, UNROLL_QUANTITY_CELL, -1, 1),
    FORWARD(UNROLL_CELL_GRU, UNROLL_OP_MATMUL, 1, 0, UNROLL_QUANTITY_PRE_ACTIVATION, 0, 2),
    FORWARD(UNROLL_CELL_GRU, UNROLL_OP_MATMUL, 1, 0, UNROLL_QUANTITY_PRE_ACTIVATION, 2, 1),
    FORWARD(UNROLL_CELL_GRU, UNROLL_OP_GRU_RESET, -1, 0, UNROLL_QUANTITY_GATE, 0, 2),
    FORWARD(UNROLL_CELL_GRU, UNROLL_OP_GRU_UPDATE, -1, 1, UNROLL_QUANTITY_GATE, 2, 1),
    FORWARD(UNROLL_CELL_GRU, UNROLL_OP_GRU_UPDATE, -1, 0, UNROLL_QUANTITY_HIDDEN, -1, 1),
    BACKWARD(UNROLL_CELL_GRU, UNROLL_OP_GRU_UPDATE_GRAD, -1, 0, UNROLL_QUANTITY_PRE_ACTIVATION, 2, 1),
    BACKWARD(UNROLL_CELL_GRU, UNROLL_OP_GRU_RESET_GRAD, -1, 0, UNROLL_QUANTITY_PRE_ACTIVATION, 0, 2),
    FORWARD(UNROLL_CELL_GRU_AFTER, UNROLL_OP_MATMUL, 1, 0, UNROLL_QUANTITY_PRE_ACTIVATION, 0, 3),
    FORWARD(UNROLL_CELL_GRU_AFTER, UNROLL_OP_GRU_AFTER_GATES, -1, 1, UNROLL_QUANTITY_GATE, 0, 4),
    FORWARD(UNROLL_CELL_GRU_AFTER, UNROLL_OP_GRU_AFTER_GATES, -1, 0, UNROLL_QUANTITY_HIDDEN, -1, 1),
    BACKWARD(UNROLL_CELL_GRU_AFTER, UNROLL_OP_GRU_AFTER_GATES_GRAD, -1, 0, UNROLL_QUANTITY_PRE_ACTIVATION, 0, 3),
    BACKWARD(UNROLL_CELL_GRU_AFTER, UNROLL_OP_GRU_AFTER_GATES_GRAD, -1, 1, UNROLL_QUANTITY_PRE_ACTIVATION, 0, 3),
    FORWARD(UNROLL_CELL_RNN, UNROLL_OP_MATMUL, 1, 0, UNROLL_QUANTITY_PRE_ACTIVATION, -1, 1),
    FORWARD(UNROLL_CELL_RNN, UNROLL_OP_UNARY, UNROLL_TANH, 0, UNROLL_QUANTITY_HIDDEN, -1, 1),
    BACKWARD(UNROLL_CELL_RNN, UNROLL_OP_BINARY, UNROLL_TANH_GRAD, 0, UNROLL_QUANTITY_PRE_ACTIVATION, -1, 1),
};
enum { N_TARGETS = sizeof targets / sizeof targets[0] };

/* Plants at a random place of that kind. Found there? */
static bool plant_and_find(const struct rig *r, unroll_graph *g, const model *m, const struct target *k) {
  static const float values[] = {(float)NAN, (float)INFINITY, -(float)INFINITY};
  const int32_t layer = (int32_t)draw(LAYERS), direction = (int32_t)draw(2);
  const int64_t b = draw(B), t = draw((uint32_t)lengths[b]), unit = draw(H), gate = draw((uint32_t)k->gates);
  const float value = values[draw(3)];
  const char *inner = r->plan->inner;
  *r->plan = (planter){.inner = inner,
                       .armed = 1,
                       .op = k->op,
                       .kind = k->kind,
                       .width = k->gates * H,
                       .output = k->output,
                       .layer = layer,
                       .direction = k->phase == UNROLL_PHASE_GRADIENT ? !direction : direction,
                       .t = t,
                       .element = (b * k->gates + gate) * H + unit,
                       .value = value,
                       .update = UINT64_MAX};
  const unroll_nonfinite at = find(g, r->device, m);
  r->plan->armed = 0;
  const int32_t want_gate = k->first < 0 ? -1 : k->first + (int32_t)gate;
  const bool found = r->plan->hits > 0 && at.found && at.phase == k->phase && at.quantity == k->quantity &&
                     at.layer == layer && at.direction == direction && at.step == t && at.sequence == b &&
                     at.gate == want_gate && at.unit == unit && !at.fused &&
                     (isnan(value) ? isnan(at.value) : at.value == (double)value);
  if (!found) {
    char text[UNROLL_NONFINITE_TEXT];
    print_message(
        "planted in cell %d, op %u output %u of layer %d, direction %d, step %d, sequence %d, gate %d, unit %d "
        "(%d times); found: %s\n",
        k->cell, k->op, k->output, layer, direction, (int)t, (int)b, want_gate, (int)unit, r->plan->hits,
        unroll_nonfinite_text(&at, text, sizeof text));
  }
  return found;
}

static void planted(void **state) {
  const char *inner = *state;
  struct rig r = {.ctx = NULL};
  if (!rig_open(&r, inner))
    skip();
  int found = 0, places = 0;
  noise = 20261123;
  for (int32_t cell = UNROLL_CELL_RNN; cell < UNROLL_CELL_COUNT; cell++) {
    unroll_graph *g = network((unroll_rnn_options){.cell = cell});
    model m = filled(g, r.cpu);
    assert_false(find(g, r.device, &m).found); /* nothing is planted yet */
    for (int i = 0; i < N_TARGETS; i++)
      for (int k = 0; k < 3 && targets[i].cell == cell; k++, places++)
        found += plant_and_find(&r, g, &m, &targets[i]);
    model_close(&m);
    unroll_graph_destroy(g);
  }
  rig_close(&r);
  print_message("%d of %d places found\n", found, places);
  assert_true(places >= 50);
  assert_int_equal(found, places);
}

/* In the result of a layer that the device runs as one node: what it is spelled out as knows nothing of it. */
static void planted_in_a_whole_layer(void **state) {
  (void)state;
  struct rig r = {.ctx = NULL};
  if (!rig_open(&r, "opencl"))
    skip();
  unroll_graph *g = network((unroll_rnn_options){.cell = UNROLL_CELL_LSTM});
  model m = filled(g, r.cpu);
  const char *inner = r.plan->inner;
  *r.plan = (planter){.inner = inner,
                      .armed = 1,
                      .op = UNROLL_OP_LAYER,
                      .kind = -1,
                      .layer = 1,
                      .direction = UNROLL_REVERSE,
                      .element = ((int64_t)6 * B + 2) * H + 4,
                      .value = (float)NAN,
                      .update = UINT64_MAX};
  const unroll_nonfinite at = find(g, r.device, &m);
  assert_true(r.plan->hits > 0 && at.found && at.fused && at.phase == UNROLL_PHASE_FORWARD);
  assert_int_equal(at.quantity, UNROLL_QUANTITY_HIDDEN);
  assert_int_equal(at.layer, 1);
  assert_int_equal(at.direction, UNROLL_REVERSE);
  assert_int_equal(at.step, 6);
  assert_int_equal(at.sequence, 2);
  assert_int_equal(at.unit, 4);
  char text[UNROLL_NONFINITE_TEXT];
  assert_string_equal(
      unroll_nonfinite_text(&at, text, sizeof text),
      "the hidden state of layer 1, reverse, step 6, sequence 2, unit 4 became NaN; only where the layer "
      "runs as one node");
  *r.plan = (planter){.inner = inner};
  model_close(&m);
  unroll_graph_destroy(g);
  rig_close(&r);
}

/* Cells whose layer is a scan of ops: the place of a pre-activation's gate. */
static void planted_in_options(void **state) {
  (void)state;
  struct rig r = {.ctx = NULL};
  if (!rig_open(&r, NULL))
    skip();
  noise = 5;
  const struct {
    unroll_rnn_options o;
    struct target k;
  } all[] = {
#define PRE(n) UNROLL_OP_MATMUL, 1, 0, UNROLL_PHASE_FORWARD, UNROLL_QUANTITY_PRE_ACTIVATION, 0, n
      {{.cell = UNROLL_CELL_LSTM, .peepholes = 1}, {0, PRE(4)}},
      {{.cell = UNROLL_CELL_LSTM, .layer_norm = 1}, {0, PRE(4)}},
      {{.cell = UNROLL_CELL_LSTM, .cell_clip = 3, .zoneout_c = 0.1, .skip = 0.5}, {0, PRE(4)}},
      {{.cell = UNROLL_CELL_LSTM, .projection = 3}, {0, PRE(4)}},
      {{.cell = UNROLL_RNN_COUPLED_LSTM}, {0, PRE(3)}},
      {{.cell = UNROLL_CELL_LSTM, .zoneout_h = 0.2, .state_dropout = 0.3}, {0, PRE(4)}},
      {{.cell = UNROLL_CELL_GRU, .clip = 2}, {0, PRE(2)}},
      {{.cell = UNROLL_CELL_GRU_AFTER, .layer_norm = 1}, {0, PRE(2)}},
#undef PRE
  };
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    unroll_graph *g = network(all[i].o);
    model m = filled(g, r.cpu);
    assert_false(find(g, r.device, &m).found);
    for (int k = 0; k < 2; k++)
      assert_true(plant_and_find(&r, g, &m, &all[i].k));
    model_close(&m);
    unroll_graph_destroy(g);
  }
  rig_close(&r);
}

/* ---- come of itself: the network of golden/overflow.py, and what its NumPy loop says ---- */

enum { LONG = 140, WIDE = 6, MOST_SEQUENCES = 96, FIRST_STEP = 88, FIRST_SEQUENCE = 2, FIRST_UNIT = 2 };

/* batch: the three sequences once, or over and over. */
static unroll_graph *overflowing(int64_t longest, int64_t batch, const unroll_checkpoint_policy *checkpoint) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const int64_t steps = longest > LONG ? unroll_graph_dim(g, "T", 1, longest) : LONG;
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){steps, batch, 2});
  const unroll_rnn_options o = {.struct_size = sizeof o,
                                .cell = UNROLL_CELL_RNN,
                                .activation = UNROLL_RELU,
                                .layers = 1,
                                .hidden = WIDE,
                                .lengths = unroll_input(g, "lengths", UNROLL_I32, 1, (int64_t[]){batch}),
                                .checkpoint = checkpoint};
  const unroll_tensor y = unroll_output(unroll_rnn(x, "rnn", &o, NULL, NULL), "y");
  unroll_tensor W = unroll_graph_find(g, "rnn.W_h.0.0"), d;
  unroll_gradient(unroll_reduce(y, UNROLL_SUM, 0, 0), &W, 1, &d);
  unroll_output(d, "d");
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  return g;
}

static void fill_overflowing(model *m, int batch) {
  double W_h[WIDE * WIDE], W_x[WIDE * 2], b[WIDE], x[LONG * MOST_SEQUENCES * 2];
  int32_t n[MOST_SEQUENCES];
  for (int i = 0; i < WIDE; i++) {
    for (int j = 0; j < WIDE; j++)
      W_h[i * WIDE + j] = ((7 * i + 3 * j) % 11 - 3) / 4.0;
    for (int j = 0; j < 2; j++)
      W_x[i * 2 + j] = ((5 * i + 2 * j) % 7 - 3) / 4.0;
    b[i] = (i % 3 - 1) / 4.0;
  }
  for (int i = 0; i < LONG * batch * 2; i++)
    x[i] = ((5 * (i / 2 / batch) + 3 * (i / 2 % batch % 3) + 2 * (i % 2)) % 9 - 4) / 4.0;
  for (int i = 0; i < batch; i++)
    n[i] = i % 3 == 1 ? 60 : LONG;
  model_put(m, "rnn.W_h.0.0", W_h, WIDE * WIDE);
  model_put(m, "rnn.W_x.0.0", W_x, WIDE * 2);
  model_put(m, "rnn.b.0.0", b, WIDE);
  model_put(m, "x", x, LONG * batch * 2);
  model_put_i32(m, "lengths", n, batch);
}

static void assert_first_overflow(const unroll_nonfinite *at) {
  assert_true(at->found && !at->fused && at->phase == UNROLL_PHASE_FORWARD);
  assert_int_equal(at->quantity, UNROLL_QUANTITY_PRE_ACTIVATION);
  assert_int_equal(at->layer, 0);
  assert_int_equal(at->direction, UNROLL_FORWARD);
  assert_int_equal(at->step, FIRST_STEP);
  assert_int_equal(at->sequence, FIRST_SEQUENCE);
  assert_int_equal(at->unit, FIRST_UNIT);
  assert_int_equal(at->gate, -1);
  assert_true(at->value == (double)INFINITY);
}

static void overflows(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_graph *g = overflowing(LONG, 3, NULL);
    model m = model_open(g, dev, false);
    fill_overflowing(&m, 3);
    const unroll_nonfinite at = find(g, dev, &m);
    assert_first_overflow(&at);
    assert_string_equal(at.context, "hidden state before up to 1.438e+38");
    assert_true(at.values > 0 && at.gradients > 0);
    /* The layer as the device runs it leaves float32 at the same step. */
    model_run(&m);
    double *y = model_get(&m, "y", LONG * 3 * WIDE);
    int first = 0;
    while (first < LONG * 3 * WIDE && isfinite(y[first]))
      first++;
    assert_int_equal(first / WIDE, FIRST_STEP * 3 + FIRST_SEQUENCE);
    free(y);
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

static void overflows_in_a_segment(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_graph *g =
        overflowing(LONG, MOST_SEQUENCES,
                    &(unroll_checkpoint_policy){
                        .struct_size = sizeof(unroll_checkpoint_policy), .kind = UNROLL_CHECKPOINT_EVERY, .every = 40});
    model m = model_open(g, dev, false);
    fill_overflowing(&m, MOST_SEQUENCES);
    const unroll_nonfinite at = find(g, dev, &m);
    assert_first_overflow(&at);
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

static void overflows_in_a_run_of_fewer_steps(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_error err = UNROLL_ERROR_INIT;
    unroll_graph *g = overflowing(LONG + 20, 3, NULL);
    model m = model_open(g, dev, false);
    fill_overflowing(&m, 3);
    int64_t steps = LONG;
    const unroll_run_options run = {.struct_size = sizeof run, .n_dims = 1, .dims = &steps};
    unroll_nonfinite at = {.struct_size = sizeof at};
    assert_status(UNROLL_OK, unroll_nonfinite_find(g, &dev, 1, m.binding, &run, &at, &err));
    assert_first_overflow(&at);
    steps = FIRST_STEP;
    model_put_i32(&m, "lengths", (int32_t[]){FIRST_STEP, 60, FIRST_STEP}, 3);
    assert_status(UNROLL_OK, unroll_nonfinite_find(g, &dev, 1, m.binding, &run, &at, &err));
    assert_int_equal(at.values, 0);
    /* Forward is finite up to there; ρ^88 is not, summed over steps and sequences. */
    assert_true(!at.found || at.phase == UNROLL_PHASE_GRADIENT);
    for (int k = 0; k < 2; k++) {
      steps = k ? -(INT64_C(1) << 62) : LONG + 21;
      assert_status(UNROLL_E_RANGE, unroll_nonfinite_find(g, &dev, 1, m.binding, &run, &at, &err));
      assert_non_null(strstr(err.message, "run-time size T is"));
    }
    steps = FIRST_STEP;
    double x[FIRST_STEP * 3 * 2] = {0};
    x[(10 * 3 + 2) * 2 + 1] = (double)NAN;
    model_put(&m, "x", x, FIRST_STEP * 3 * 2);
    assert_status(UNROLL_OK, unroll_nonfinite_find(g, &dev, 1, m.binding, &run, &at, &err));
    assert_true(at.found && at.quantity == UNROLL_QUANTITY_INPUT);
    assert_int_equal(at.given, 1);
    assert_int_equal(at.step, 10);
    assert_int_equal(at.sequence, 2);
    assert_int_equal(at.unit, 1);
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

/* What was not finite first is found first: step by step, also where products with all inputs come before; and of a step its
 * first gate, whichever sequence has it. */
static void first_of_several(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_graph *g = overflowing(LONG, 3, NULL);
    model m = model_open(g, dev, false);
    fill_overflowing(&m, 3);
    double x[LONG * 3 * 2];
    for (int i = 0; i < LONG * 3 * 2; i++)
      x[i] = i / 6 == FIRST_STEP + 10 ? (i % 2 ? 3.4e38 : -3.4e38)
                                      : ((5 * (i / 2 / 3) + 3 * (i / 2 % 3) + 2 * (i % 2)) % 9 - 4) / 4.0;
    model_put(&m, "x", x, LONG * 3 * 2);
    unroll_nonfinite at = find(g, dev, &m);
    assert_first_overflow(&at);
    /* Past its end a sequence's state stands still, and the product that nobody reads overflows. */
    fill_overflowing(&m, 3);
    model_put_i32(&m, "lengths", (int32_t[]){FIRST_STEP, 60, FIRST_STEP}, 3);
    at = find(g, dev, &m);
    assert_int_equal(at.values, 0);
    /* Products of what stands there, 0, with an infinite weight are not looked at either. */
    double W[WIDE * WIDE] = {0}, W_x[WIDE * 2] = {[2] = (double)INFINITY};
    model_put(&m, "rnn.W_h.0.0", W, WIDE * WIDE);
    model_put(&m, "rnn.W_x.0.0", W_x, WIDE * 2);
    for (int i = 0; i < LONG * 3 * 2; i++)
      x[i] = -1;
    model_put(&m, "x", x, LONG * 3 * 2);
    at = find(g, dev, &m);
    assert_int_equal(at.given, 1);
    assert_int_equal(at.values, 2 * (FIRST_STEP + 60 + FIRST_STEP)); /* x·W, + W·h; the relu of -inf is 0 */
    model_close(&m);
    unroll_graph_destroy(g);

    g = network((unroll_rnn_options){.cell = UNROLL_CELL_LSTM});
    m = filled(g, dev);
    double gates[4 * H * I] = {[2 * I] = 3e38, [(H + 1) * I + 1] = 3e38}, y[T * B * I];
    for (int i = 0; i < T * B * I; i++)
      y[i] = i / I / B < lengths[i / I % B] ? 0 : (double)NAN;
    y[2 * I] = 2;     /* of sequence 2, into the input gate; */
    y[1 * I + 1] = 2; /* of sequence 1, into the forget gate */
    model_put(&m, "rnn.W_x.0.0", gates, 4 * H * I);
    model_put(&m, "x", y, T * B * I);
    at = find(g, dev, &m);
    assert_true(at.found && at.layer == 0 && at.direction == UNROLL_FORWARD && at.step == 0);
    assert_int_equal(at.gate, 0);
    assert_int_equal(at.sequence, 2);
    assert_int_equal(at.unit, 2);
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

/* A recurrence of the caller's own, in no layer, which goes backwards. */
static void reverse_linear_scan(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    enum { N = 8 };
    unroll_error err = UNROLL_ERROR_INIT;
    unroll_graph *g;
    assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
    const int64_t shape[3] = {N, 2, 1};
    const unroll_tensor a = unroll_input(g, "a", UNROLL_F32, 3, shape), b = unroll_input(g, "b", UNROLL_F32, 3, shape);
    unroll_output(unroll_linear_scan(a, b, unroll_none(), unroll_none(), UNROLL_REVERSE, NULL), "h");
    model m = model_open(g, dev, false);
    double ones[2 * N], u[2 * N] = {[2 * 6] = 3e38, [2 * 5] = 3e38, [2 * 3 + 1] = 3e38, [2 * 2 + 1] = 3e38};
    for (int i = 0; i < 2 * N; i++)
      ones[i] = 1;
    model_put(&m, "a", ones, 2 * N);
    model_put(&m, "b", u, 2 * N);
    const unroll_nonfinite at = find(g, dev, &m);
    assert_true(at.found && at.value == (double)INFINITY);
    assert_int_equal(at.step, 5);
    assert_int_equal(at.sequence, 0);
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

/* ---- given ---- */

static void given(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_graph *g = network((unroll_rnn_options){.cell = UNROLL_CELL_GRU});
    model m = filled(g, dev);
    assert_false(find(g, dev, &m).found);
    double W[3 * H * H] = {0};
    W[17] = (double)INFINITY;
    model_put(&m, "rnn.W_h.0.1", W, 3 * H * H);
    unroll_nonfinite at = find(g, dev, &m);
    assert_true(at.found && at.phase == UNROLL_PHASE_GIVEN && at.quantity == UNROLL_QUANTITY_PARAMETER);
    assert_string_equal(at.tensor, "rnn.W_h.0.1");
    assert_int_equal(at.unit, 17);
    assert_int_equal(at.given, 1);
    assert_true(at.values > 0 && at.gradients > 0);
    W[17] = 0;
    model_put(&m, "rnn.W_h.0.1", W, 3 * H * H);
    double x[T * B * I];
    for (int i = 0; i < T * B * I; i++)
      x[i] = i / I / B < lengths[i / I % B] ? 0.25 : (double)NAN;
    x[(3 * B + 1) * I + 2] = -(double)INFINITY; /* sequence 1 has 4 steps: this is its last one */
    model_put(&m, "x", x, T * B * I);
    at = find(g, dev, &m);
    assert_true(at.found && at.quantity == UNROLL_QUANTITY_INPUT);
    assert_int_equal(at.given, 1);
    assert_int_equal(at.step, 3);
    assert_int_equal(at.sequence, 1);
    assert_int_equal(at.unit, 2);
    char text[UNROLL_NONFINITE_TEXT];
    assert_string_equal(unroll_nonfinite_text(&at, text, sizeof text), "input x, step 3, sequence 1, unit 2 is -inf");
    const unroll_run_options chunk = {.struct_size = sizeof chunk, .t0 = 100, .row0 = 16};
    unroll_error err = UNROLL_ERROR_INIT;
    assert_status(UNROLL_OK, unroll_nonfinite_find(g, &dev, 1, m.binding, &chunk, &at, &err));
    assert_int_equal(at.step, 103);
    assert_int_equal(at.sequence, 17);
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

/* Numbers from -0.5 to 0.5 wherever there are real ones. */
static model filled_whole(unroll_graph *g, unroll_device *device) {
  model m = model_open(g, device, false);
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor_info t = unroll_tensor_describe(unroll_graph_tensor(g, i));
    if ((t.role != UNROLL_ROLE_PARAM && t.role != UNROLL_ROLE_INPUT) || t.dtype == UNROLL_I32)
      continue;
    double v[256];
    int64_t n = 1;
    for (int32_t k = 0; k < t.rank; k++)
      n *= t.shape[k];
    assert_true(n <= 256);
    for (int64_t k = 0; k < n; k++)
      v[k] = (double)draw(1001) / 1000 - 0.5;
    model_put(&m, t.name, v, n);
  }
  return m;
}

/* Static features and numbers of each step, beside a sequence. */
static void given_of_other_shapes(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_error err = UNROLL_ERROR_INIT;
    unroll_graph *g;
    assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
    const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){T, B, I});
    const unroll_tensor features = unroll_input(g, "features", UNROLL_F32, 2, (int64_t[]){B, H});
    const unroll_tensor weights = unroll_input(g, "weights", UNROLL_F32, 2, (int64_t[]){T, B});
    const unroll_tensor table = unroll_input(g, "table", UNROLL_F32, 2, (int64_t[]){7, H});
    const unroll_rnn_options o = {.struct_size = sizeof o, .cell = UNROLL_CELL_RNN, .layers = 1, .hidden = H};
    const unroll_tensor y = unroll_rnn(x, "rnn", &o, NULL, NULL);
    unroll_output(unroll_mul(unroll_reduce(unroll_mul(y, features), UNROLL_SUM, 1u << 2, 0), weights), "z");
    unroll_output(unroll_scale(table, 2), "t");
    model m = filled_whole(g, dev);
    const struct {
      const char *name, *words;
      int at, n;
    } all[] = {{"features", "input features, sequence 2, unit 3 is NaN", 2 * H + 3, B * H},
               {"weights", "input weights, step 5, sequence 1 is NaN", 5 * B + 1, T * B},
               {"table", "input table, element 9 is NaN", 9, 7 * H}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
      char text[UNROLL_NONFINITE_TEXT];
      double v[B * H + T * B + 7 * H] = {0}; /* room for any of them */
      v[all[i].at] = (double)NAN;
      model_put(&m, all[i].name, v, all[i].n);
      const unroll_nonfinite at = find(g, dev, &m);
      assert_string_equal(unroll_nonfinite_text(&at, text, sizeof text), all[i].words);
      v[all[i].at] = 0;
      model_put(&m, all[i].name, v, all[i].n);
    }
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

/* Plants in a node of no step: the one of that op, and phase, in layer 0 or in none. */
static unroll_nonfinite planted_at_the_top(const struct rig *r, unroll_graph *g, const model *m, uint32_t op,
                                           bool backward, int64_t element) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *lowered;
  char name[64] = "";
  assert_status(UNROLL_OK, graph_lower(g, NULL, &lowered, &err));
  int32_t layer = -1, direction = -1, kind = -1;
  for (uint32_t i = 0; i < lowered->n_nodes; i++) {
    const node *n = &lowered->nodes[i];
    if (n->op != op || n->backward != backward)
      continue;
    snprintf(name, sizeof name, "%s", n->name);
    layer = n->layer;
    direction = n->direction;
    kind = op == UNROLL_OP_MATMUL ? n->attr.matmul.trans_b : op == UNROLL_OP_BINARY ? n->attr.binary.kind : -1;
  }
  unroll_graph_destroy(lowered);
  assert_true(name[0]);
  const char *inner = r->plan->inner;
  *r->plan = (planter){.inner = inner,
                       .armed = 1,
                       .name = name,
                       .top = 1,
                       .op = op,
                       .kind = kind,
                       .layer = layer,
                       .direction = direction,
                       .element = element,
                       .value = (float)NAN,
                       .update = UINT64_MAX};
  const unroll_nonfinite at = find(g, r->device, m);
  assert_true(r->plan->hits > 1);
  *r->plan = (planter){.inner = inner, .update = UINT64_MAX};
  return at;
}

/* As many sequences as units, as steps: a weight's rows are no sequences, and the loss of each step has both. */
static void as_many_sequences_as_units(void **state) {
  (void)state;
  struct rig r = {.ctx = NULL};
  if (!rig_open(&r, NULL))
    skip();
  enum { N = 4 };
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  char text[UNROLL_NONFINITE_TEXT];
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){N, N, N});
  const unroll_tensor next = unroll_input(g, "targets", UNROLL_I32, 2, (int64_t[]){N, N});
  const unroll_rnn_options o = {.struct_size = sizeof o, .cell = UNROLL_CELL_RNN, .layers = 1, .hidden = N};
  const unroll_tensor y = unroll_rnn(x, "rnn", &o, NULL, NULL);
  const unroll_tensor twice = unroll_scale(unroll_param(g, "V", UNROLL_F32, 2, (int64_t[]){N, N}), 2);
  const unroll_tensor loss =
      unroll_cross_entropy(unroll_linear(unroll_matmul(y, twice), "head", 3, 0), next, UNROLL_LOSS_MEAN);
  unroll_tensor W[2] = {unroll_graph_find(g, "rnn.W_h.0.0"), unroll_graph_find(g, "V")}, d[2];
  unroll_output(loss, "loss");
  unroll_gradient(loss, W, 2, d);
  unroll_output(d[0], "d of W");
  unroll_output(d[1], "d of V");
  model m = filled_whole(g, r.cpu);
  model_put_i32(&m, "targets", (int32_t[N * N]){0}, N * N);
  assert_false(find(g, r.device, &m).found);
  unroll_nonfinite at = planted_at_the_top(&r, g, &m, UNROLL_OP_MATMUL, true, 2 * N + 1);
  assert_int_equal(at.phase, UNROLL_PHASE_GRADIENT);
  assert_int_equal(at.step, -1);
  assert_int_equal(at.sequence, -1);
  assert_int_equal(at.unit, 2 * N + 1);
  at = planted_at_the_top(&r, g, &m, UNROLL_OP_BINARY, true, 3 * N + 2); /* by 2, on the way back to V */
  assert_int_equal(at.sequence, -1);
  assert_int_equal(at.unit, 3 * N + 2);
  at = planted_at_the_top(&r, g, &m, UNROLL_OP_CROSS_ENTROPY, false, 3 * N + 1);
  assert_string_equal(unroll_nonfinite_text(&at, text, sizeof text), "the loss, step 3, sequence 1 became NaN");
  model_close(&m);
  unroll_graph_destroy(g);
  rig_close(&r);
}

/* The layers' second segment, run whole. */
static void planted_in_a_whole_segment(void **state) {
  (void)state;
  struct rig r = {.ctx = NULL};
  if (!rig_open(&r, "opencl"))
    skip();
  unroll_graph *g =
      overflowing(LONG, MOST_SEQUENCES,
                  &(unroll_checkpoint_policy){
                      .struct_size = sizeof(unroll_checkpoint_policy), .kind = UNROLL_CHECKPOINT_EVERY, .every = 40});
  model m = model_open(g, r.cpu, false);
  fill_overflowing(&m, MOST_SEQUENCES);
  double W[WIDE * WIDE] = {0};
  model_put(&m, "rnn.W_h.0.0", W, WIDE * WIDE);
  assert_false(find(g, r.device, &m).found);
  const char *inner = r.plan->inner;
  char name[64] = "";
  int64_t start = 0;
  int segments = 0;
  for (uint32_t i = 0; i < g->n_nodes && segments < 2; i++)
    if (g->nodes[i].op == UNROLL_OP_LAYER) {
      segments++;
      snprintf(name, sizeof name, "%s", g->nodes[i].name);
      const uint32_t p = g->tensors[g->nodes[i].in[0]].producer;
      start = p == GRAPH_NONE ? 0 : g->nodes[p].attr.slice.start;
    }
  assert_int_equal(segments, 2);
  assert_true(start > 0);
  *r.plan = (planter){.inner = inner,
                      .armed = 1,
                      .name = name,
                      .op = UNROLL_OP_LAYER,
                      .layer = 0,
                      .element = ((int64_t)3 * MOST_SEQUENCES + 7) * WIDE + 5,
                      .value = (float)NAN,
                      .update = UINT64_MAX};
  const unroll_nonfinite at = find(g, r.device, &m);
  assert_true(at.found && at.fused);
  assert_int_equal(at.step, start + 3);
  assert_int_equal(at.sequence, 7);
  assert_int_equal(at.unit, 5);
  *r.plan = (planter){.inner = inner};
  model_close(&m);
  unroll_graph_destroy(g);
  rig_close(&r);
}

/* Forward all is 0; the gradient, sums of columns, and what an optimizer makes of it are not. */
static void of_a_parameter(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_error err = UNROLL_ERROR_INIT;
    unroll_graph *g;
    assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
    const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 2, (int64_t[]){4, 3});
    const unroll_tensor W = unroll_param(g, "some.W", UNROLL_F32, 2, (int64_t[]){3, 2});
    unroll_tensor d;
    unroll_gradient(unroll_reduce(unroll_matmul(x, W), UNROLL_SUM, 0, 0), &W, 1, &d);
    const unroll_tensor lr = unroll_input(g, "lr", UNROLL_F32, 0, NULL),
                        step = unroll_input(g, "step", UNROLL_I32, 0, NULL);
    unroll_optimize(W, d, lr, step, unroll_none(), &(unroll_optimizer_attr){.kind = UNROLL_SGD, .beta1 = 0.5});
    model m = model_open(g, dev, false);
    model_put(&m, "x", (double[]){1, 3e38, 1, 1, 3e38, 1, 1, 3e38, 1, 1, 3e38, 1}, 12);
    model_put(&m, "lr", (double[]){1}, 1);
    model_put_i32(&m, "step", (int32_t[]){1}, 1);
    unroll_nonfinite at = find(g, dev, &m);
    char text[UNROLL_NONFINITE_TEXT];
    assert_string_equal(unroll_nonfinite_text(&at, text, sizeof text),
                        "the gradient of parameter some.W, element 2 became inf");
    assert_int_equal(at.values, 0);
    assert_int_equal(at.gradients, 2);
    /* Now the step is too long. */
    model_put(&m, "x", (double[]){1, 1e30, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1}, 12);
    model_put(&m, "lr", (double[]){1e30}, 1);
    at = find(g, dev, &m);
    assert_string_equal(unroll_nonfinite_text(&at, text, sizeof text),
                        "the new value or moment of parameter some.W, element 2 became -inf");
    assert_int_equal(at.gradients, 0);
    /* Nothing of that has changed the parameter. */
    double *now = model_get(&m, "some.W", 6);
    for (int i = 0; i < 6; i++)
      assert_true(now[i] == 0);
    free(now);
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

/* ---- words ---- */

static void words(void **state) {
  (void)state;
  char text[UNROLL_NONFINITE_TEXT];
  unroll_nonfinite at = {.struct_size = sizeof at,
                         .found = 1,
                         .phase = UNROLL_PHASE_FORWARD,
                         .quantity = UNROLL_QUANTITY_CELL,
                         .layer = 1,
                         .direction = UNROLL_REVERSE,
                         .step = 37,
                         .sequence = 5,
                         .unit = 12,
                         .gate = -1,
                         .value = (double)INFINITY,
                         .context = "input gate 1, forget gate 1"};
  assert_string_equal(unroll_nonfinite_text(&at, text, sizeof text),
                      "the cell state of layer 1, reverse, step 37, sequence 5, unit 12 became inf (input gate 1, "
                      "forget gate 1)");
  at.phase = UNROLL_PHASE_GRADIENT;
  at.quantity = UNROLL_QUANTITY_PRE_ACTIVATION;
  at.gate = 1;
  at.value = (double)NAN;
  at.context[0] = '\0';
  strcpy(at.gate_name, "forget gate");
  assert_string_equal(unroll_nonfinite_text(&at, text, sizeof text),
                      "the gradient of the pre-activation of the forget gate of layer 1, reverse, step 37, sequence 5, "
                      "unit 12 became NaN");
  at.found = 0;
  assert_string_equal(unroll_nonfinite_text(&at, text, sizeof text), "all numbers are finite");
  assert_string_equal(unroll_nonfinite_text(&at, text, 8), "all num");
  assert_string_equal(unroll_quantity_name(UNROLL_QUANTITY_HIDDEN), "hidden state");
  assert_string_equal(unroll_phase_name(UNROLL_PHASE_GIVEN), "given");
  assert_null(unroll_quantity_name(UNROLL_QUANTITY_COUNT));
  assert_null(unroll_phase_name(-1));
}

static void refused(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_nonfinite at = {.struct_size = sizeof at};
  assert_status(UNROLL_E_INVALID, unroll_nonfinite_find(NULL, NULL, 0, NULL, NULL, &at, &err));
  assert_string_equal(err.message, "unroll_nonfinite_find: graph is NULL");
  FOR_EACH_DEVICE(dev, "cpu", UNROLL_F32) {
    unroll_graph *g = network((unroll_rnn_options){.cell = UNROLL_CELL_RNN});
    unroll_graph *other = network((unroll_rnn_options){.cell = UNROLL_CELL_GRU});
    model m = filled(other, dev);
    at.struct_size = 4;
    assert_status(UNROLL_E_INVALID, unroll_nonfinite_find(g, &dev, 1, m.binding, NULL, &at, &err));
    at.struct_size = sizeof at;
    assert_status(UNROLL_E_INVALID, unroll_nonfinite_find(g, &dev, 1, NULL, NULL, &at, &err));
    assert_string_equal(err.message, "unroll_nonfinite_find: values is NULL");
    assert_status(UNROLL_E_SHAPE, unroll_nonfinite_find(g, &dev, 1, m.binding, NULL, &at, &err));
    const unroll_run_options one = {.struct_size = sizeof one, .n_dims = 1, .dims = (int64_t[]){1}};
    assert_status(UNROLL_E_INVALID, unroll_nonfinite_find(g, &dev, 1, m.binding, &one, &at, &err));
    assert_string_equal(err.message, "1 run-time sizes, the graph has 0");
    model_close(&m);
    unroll_graph_destroy(g);
    unroll_graph_destroy(other);
  }
}

/* Wherever memory ends, that is said, and nothing is left over. */
static void out_of_memory(void **state) {
  (void)state;
  FOR_EACH_DEVICE(dev, "cpu", UNROLL_F32) {
    run_memory memory = {0};
    const unroll_allocator allocator = runs_allocator(&memory);
    unroll_graph *g = network_of((unroll_rnn_options){.cell = UNROLL_CELL_GRU}, &allocator);
    model m = filled(g, dev);
    double W[3 * H * H] = {0};
    W[3] = 3e38;
    W[4] = 3e38;
    model_put(&m, "rnn.W_h.1.0", W, 3 * H * H);
    const long live = memory.live;
    int refusals = 0;
    unroll_status status = UNROLL_E_MEMORY;
    for (long fail_at = 1; status != UNROLL_OK; fail_at += 1 + fail_at / 40) {
      unroll_error err = UNROLL_ERROR_INIT;
      unroll_nonfinite at = {.struct_size = sizeof at};
      memory.calls = 0;
      memory.fail_at = fail_at;
      status = unroll_nonfinite_find(g, &dev, 1, m.binding, NULL, &at, &err);
      assert_true(status == UNROLL_OK || (status == UNROLL_E_MEMORY && err.message[0]));
      assert_int_equal(memory.live, live);
      refusals += status != UNROLL_OK;
    }
    assert_true(refusals > 100);
    memory.fail_at = 0;
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      {"planted_cpu", planted, NULL, NULL, NULL},
      {"planted_opencl", planted, NULL, NULL, "opencl"},
      cmocka_unit_test(planted_in_a_whole_layer),
      cmocka_unit_test(planted_in_options),
      DEVICE_TESTS(overflows),
      {"overflows_onednn", overflows, NULL, NULL, "onednn"},
      DEVICE_TESTS(overflows_in_a_segment),
      DEVICE_TESTS(overflows_in_a_run_of_fewer_steps),
      DEVICE_TESTS(first_of_several),
      DEVICE_TESTS(reverse_linear_scan),
      DEVICE_TESTS(given),
      DEVICE_TESTS(given_of_other_shapes),
      cmocka_unit_test(as_many_sequences_as_units),
      cmocka_unit_test(planted_in_a_whole_segment),
      DEVICE_TESTS(of_a_parameter),
      cmocka_unit_test(words),
      cmocka_unit_test(refused),
      cmocka_unit_test(out_of_memory),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
