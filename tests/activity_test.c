/* SPDX-License-Identifier: Apache-2.0 */
/* Gates and states: what is refused and what isn't, and names of gates. insides_golden_test has the numbers. And the
 * departure from normality against NumPy's. */
#include "statuses.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/activity.h>
#include <unroll/diagnose.h>

static unroll_error err = UNROLL_ERROR_INIT;

/* ---- names ---- */

static void gates_have_names(void **state) {
  (void)state;
  const double none = (double)INFINITY;
  static const struct {
    int32_t cell, keeps[4];
    const char *names[5];
  } all[] = {
      {UNROLL_CELL_RNN, {0}, {"state"}},
      {UNROLL_CELL_LSTM, {0, UNROLL_KEEPS, 0, 0}, {"input", "forget", "candidate", "output"}},
      {UNROLL_CELL_GRU, {0, UNROLL_KEEPS, 0}, {"reset", "update", "candidate"}},
      {UNROLL_CELL_GRU_AFTER, {0, UNROLL_KEEPS, 0}, {"reset", "update", "candidate"}},
      {UNROLL_RNN_COUPLED_LSTM, {UNROLL_KEEPS_REST, 0, 0}, {"input", "candidate", "output"}},
      {UNROLL_RNN_MIN_GRU, {UNROLL_KEEPS_REST, 0}, {"update", "candidate"}},
      {UNROLL_RNN_MIN_LSTM, {UNROLL_KEEPS, 0, 0}, {"forget", "input", "candidate"}},
  };
  unroll_rnn_options o = {.struct_size = sizeof o, .layers = 1, .hidden = 1};
  unroll_gate gate = {.struct_size = sizeof gate};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    o.cell = all[i].cell;
    const bool minimal = o.cell == UNROLL_RNN_MIN_GRU || o.cell == UNROLL_RNN_MIN_LSTM;
    const int64_t n = unroll_gate_count(o.cell);
    assert_null(all[i].names[n]);
    for (int64_t k = 0; k < n; k++) {
      assert_ok(unroll_gate_of(&o, k, &gate, &err));
      assert_string_equal(gate.name, all[i].names[k]);
      assert_int_equal(gate.keeps, all[i].keeps[k]);
      const bool tanh = strcmp(gate.name, "candidate") == 0 || strcmp(gate.name, "state") == 0;
      assert_true(gate.low == (tanh ? minimal ? -none : -1 : 0) && gate.high == (tanh && minimal ? none : 1));
    }
  }
  o.cell = UNROLL_CELL_RNN;
  o.activation = UNROLL_RELU;
  assert_ok(unroll_gate_of(&o, 0, &gate, &err));
  assert_true(gate.low == 0 && gate.high == none);
  o.activation = 0;
  o.f = (unroll_activation){.kind = UNROLL_ACTIVATION_SCALED_TANH, .alpha = -1.5, .beta = 1};
  assert_ok(unroll_gate_of(&o, 0, &gate, &err));
  assert_true(gate.low == -1.5 && gate.high == 1.5);
  o.f.kind = UNROLL_ACTIVATION_ELU;
  o.f.alpha = 0.3;
  assert_ok(unroll_gate_of(&o, 0, &gate, &err));
  assert_true(gate.low == -0.3 && gate.high == none);
  assert_error(unroll_gate_of(&o, 1, &gate, &err), UNROLL_E_RANGE, "gate 1 of cell 1, which has 1");
  o.f.kind = 99;
  assert_error(unroll_gate_of(&o, 0, &gate, &err), UNROLL_E_RANGE, "its activation is 99");
  assert_error(unroll_gate_of(NULL, 0, &gate, &err), UNROLL_E_INVALID, "NULL");
  assert_int_equal(unroll_gate_count(77), 0);
}

/* ---- networks ---- */

typedef struct net {
  unroll_rnn_options rnn;
  unroll_network_weight weights[3];
  unroll_network net;
  unroll_activity_batch batch;
} net;
/* One unit, h' = W_h·h + W_x·x, without an activation, over four steps of ones. */
static void net_make(net *n, const double *W_h) {
  static const double one = 1, zero = 0, x[4] = {1, 1, 1, 1};
  *n = (net){.rnn = {.struct_size = sizeof n->rnn,
                     .cell = UNROLL_CELL_RNN,
                     .layers = 1,
                     .hidden = 1,
                     .f = unroll_activation_of(UNROLL_ACTIVATION_IDENTITY),
                     .lengths = unroll_none()},
             .weights = {{"r.W_x.0.0", &one, 1}, {"r.b.0.0", &zero, 1}, {"r.W_h.0.0", W_h, 1}},
             .batch = {.struct_size = sizeof n->batch, .steps = 4, .batch = 1, .x = x}};
  n->net = (unroll_network){.struct_size = sizeof n->net,
                            .n_weights = 3,
                            .options = &n->rnn,
                            .prefix = "r",
                            .input = 1,
                            .weights = n->weights};
}

/* What is not finite is written as it is, from the step on where it comes up. */
static void keeps_what_is_not_finite(void **state) {
  (void)state;
  const double W_h = 1e200, x[4] = {1, 1, 1, (double)NAN};
  net n;
  unroll_activity *a;
  net_make(&n, &W_h);
  assert_ok(unroll_activity_measure(&n.net, &n.batch, NULL, &a, &err));
  assert_int_equal(a->n_layers, 1);
  assert_true(a->layers[0].h[0] == 1 && a->layers[0].h[1] == 1e200 && a->layers[0].c == NULL);
  assert_true(isinf(a->layers[0].h[2]) && isinf(a->layers[0].h[3]) && isinf(a->layers[0].gates[3]));
  unroll_activity_free(a);
  n.batch.x = x;
  assert_ok(unroll_activity_measure(&n.net, &n.batch, NULL, &a, &err));
  assert_true(isinf(a->layers[0].h[2]) && isnan(a->layers[0].h[3]) && isnan(a->layers[0].x[3]));
  unroll_activity_free(a);
  unroll_activity_free(NULL);
}

typedef struct counter {
  int64_t held, left; /* left: allocations that succeed */
} counter;
static void *count_alloc(void *ctx, uint64_t bytes, uint64_t alignment) {
  counter *c = ctx;
  if (c->left-- <= 0)
    return NULL;
  c->held++;
  return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}
static void count_free(void *ctx, void *p) {
  counter *c = ctx;
  if (p)
    c->held--;
  free(p);
}

/* Each allocation fails once: the status says so, and nothing stays. */
static void memory_runs_out(void **state) {
  (void)state;
  const double W_h = 0.5;
  net n;
  counter c = {0};
  const unroll_allocator allocator = {.ctx = &c, .alloc = count_alloc, .free = count_free};
  const unroll_activity_options o = {.struct_size = sizeof o, .allocator = &allocator};
  unroll_activity *a = NULL;
  unroll_status status = UNROLL_E_MEMORY;
  net_make(&n, &W_h);
  int64_t left = 0;
  for (; status != UNROLL_OK && left < 10000; left++) {
    c.left = left;
    status = unroll_activity_measure(&n.net, &n.batch, &o, &a, &err);
    if (status != UNROLL_OK) {
      assert_true(status == UNROLL_E_MEMORY || status == UNROLL_E_DEVICE_MEMORY);
      assert_null(a);
      assert_int_equal(c.held, 0);
    }
  }
  assert_int_equal(status, UNROLL_OK);
  assert_true(left > 10);
  unroll_activity_free(a);
  assert_int_equal(c.held, 0);
}

static uint64_t splitmix(uint64_t *s) {
  uint64_t z = *s += UINT64_C(0x9E3779B97F4A7C15);
  z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
  return z ^ z >> 31;
}

static void departures_are_known(void **state) {
  (void)state;
  enum { N = 100 };
  static double J[N * N], re[N], im[N];
  const double shift[] = {0, 3, 0, 0}, turn[] = {0.6, -0.8, 0.8, 0.6};
  double departure;
  assert_ok(unroll_eigenvalues(shift, 2, re, im, &err));
  assert_ok(unroll_departure_from_normality(shift, 2, re, im, &departure, &err));
  assert_true(fabs(departure - 3) < 1e-15); /* nilpotent: all of its norm */
  assert_ok(unroll_eigenvalues(turn, 2, re, im, &err));
  assert_ok(unroll_departure_from_normality(turn, 2, re, im, &departure, &err));
  assert_true(departure < 1e-7); /* a rotation is normal; the root of a rounding of 1e-16 */
  uint64_t s = 20240607;
  for (int i = 0; i < N * N; i += 2) {
    const double a = ((double)(splitmix(&s) >> 11) + 0.5) * 0x1p-53, b = ((double)(splitmix(&s) >> 11) + 0.5) * 0x1p-53;
    J[i] = sqrt(-2 * log(a)) * cos(2 * acos(-1) * b) / 10;
    J[i + 1] = sqrt(-2 * log(a)) * sin(2 * acos(-1) * b) / 10;
  }
  assert_ok(unroll_eigenvalues(J, N, re, im, &err));
  assert_ok(unroll_departure_from_normality(J, N, re, im, &departure, &err));
  if (fabs(departure - 7.100187014414392) > 1e-11) /* NumPy's; rounding of eigenvalues as in diagnose_test */
    fail_msg("%.15g", departure);
}

static void wrong_input(void **state) {
  (void)state;
  const double W_h = 0.5;
  const int32_t lengths[] = {5};
  double departure;
  net n;
  unroll_activity *a = NULL;
  net_make(&n, &W_h);
  assert_error(unroll_activity_measure(NULL, &n.batch, NULL, &a, &err), UNROLL_E_INVALID, "activity: the network");
  assert_error(unroll_activity_measure(&n.net, NULL, NULL, &a, &err), UNROLL_E_INVALID, "batch is NULL");
  assert_error(unroll_activity_measure(&n.net, &n.batch, NULL, NULL, &err), UNROLL_E_INVALID, "activity is NULL");
  n.batch.lengths = lengths;
  assert_error(unroll_activity_measure(&n.net, &n.batch, NULL, &a, &err), UNROLL_E_RANGE,
               "sequence 0 has a length of 5, expected 0 to 4");
  n.batch.lengths = NULL;
  n.batch.steps = 0;
  assert_error(unroll_activity_measure(&n.net, &n.batch, NULL, &a, &err), UNROLL_E_RANGE, "0 steps");
  n.batch.steps = INT64_MAX;
  assert_error(unroll_activity_measure(&n.net, &n.batch, NULL, &a, &err), UNROLL_E_RANGE, "too many");
  n.batch.steps = 4;
  n.batch.x = NULL;
  assert_error(unroll_activity_measure(&n.net, &n.batch, NULL, &a, &err), UNROLL_E_INVALID, "x is NULL");
  net_make(&n, &W_h);
  n.net.n_weights = 2;
  assert_error(unroll_activity_measure(&n.net, &n.batch, NULL, &a, &err), UNROLL_E_INVALID,
               "r.W_h.0.0 is missing, of 1 numbers");
  const unroll_activity_options o = {.struct_size = sizeof o, .dtype = UNROLL_I32};
  assert_error(unroll_activity_measure(&n.net, &n.batch, &o, &a, &err), UNROLL_E_RANGE, "expected UNROLL_F64");
  n.rnn.cell = 9;
  assert_error(unroll_activity_measure(&n.net, &n.batch, NULL, &a, &err), UNROLL_E_INVALID, "9 is no cell");
  assert_null(a);
  assert_error(unroll_departure_from_normality(NULL, 1, &W_h, &W_h, &departure, &err), UNROLL_E_INVALID,
               "an array is NULL");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(gates_have_names), cmocka_unit_test(keeps_what_is_not_finite),
      cmocka_unit_test(memory_runs_out),  cmocka_unit_test(departures_are_known),
      cmocka_unit_test(wrong_input),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
