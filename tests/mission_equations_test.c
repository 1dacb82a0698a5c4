/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Equations of docs/mission.md that no other test has as the text has them: each is written out in double, in loops
 * over its own indices, and compared with what the library gives on every device.
 */
#include "devices.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/nn.h>
#include <unroll/seq2seq.h>
#include <unroll/ssm.h>

enum { T = 4, B = 2, I = 3, H = 4, Y = 2 };
#define BOTH_TYPES(dtype)                                                         \
  for (int each_ = 0, dtype = UNROLL_F32; each_ < 2; each_++, dtype = UNROLL_F64) \
    FOR_EACH_DEVICE(dev, *state, dtype)

/* f64: rounding alone; f32: sums of up to 10 terms through 4 steps, of relative error 6e-8 each */
static double tolerance_of(int32_t dtype) { return dtype == UNROLL_F64 ? 1e-12 : 4e-6; }

static unroll_graph *graph(void) {
  unroll_graph *g;
  assert_int_equal(unroll_graph_create(NULL, &g, NULL), UNROLL_OK);
  return g;
}

/* Without pattern, and the same in both element types. */
static void numbers(double *v, int n, int seed, double scale) {
  for (int i = 0; i < n; i++)
    v[i] = (double)(float)(scale * sin(1.3 * seed + 2.1 * i + 0.37 * i * i));
}

static double sigmoid(double z) { return 1 / (1 + exp(-z)); }

/* out[r] = Σ_c W[r,c]·v[c] + b[r] */
static void affine(const double *W, const double *v, const double *b, int rows, int columns, double *out) {
  for (int r = 0; r < rows; r++) {
    out[r] = b ? b[r] : 0;
    for (int c = 0; c < columns; c++)
      out[r] += W[r * columns + c] * v[c];
  }
}

static void assert_got(model *m, const char *name, const double *want, int64_t n, double tolerance) {
  double *got = model_get(m, name, n);
  assert_close(name, got, want, n, tolerance);
  free(got);
}

/* ---- h_t = tanh(W_hh·h_{t-1} + W_xh·x_t + b_h), y_t = σ(W_hy·h_t + b_y), L = Σ_t ½‖y_t - ŷ_t‖², and its BPTT ---- */

typedef struct vanilla {
  double W_hh[H * H], W_xh[H * I], b_h[H], W_hy[Y * H], b_y[Y], h_0[B][H], x[T][B][I], target[T][B][Y];
  double h[T][B][H], y[T][B][Y], loss;
  double dW_hh[H * H], dW_xh[H * I], db_h[H], dW_hy[Y * H], db_y[Y], dh[T][B][H], dh_0[B][H];
} vanilla;

/* The recursive definition, as a recursion. t from 0: h_1 is h(0). */
static void state_at(const vanilla *v, int t, int b, double *h) {
  double before[H], a[H];
  if (t < 0) {
    memcpy(h, v->h_0[b], sizeof v->h_0[b]);
    return;
  }
  state_at(v, t - 1, b, before);
  affine(v->W_hh, before, v->b_h, H, H, a);
  affine(v->W_xh, v->x[t][b], NULL, H, I, h);
  for (int i = 0; i < H; i++)
    h[i] = tanh(a[i] + h[i]);
}

static void write_out(vanilla *v) {
  double do_t[T][B][Y];
  *v = (vanilla){.loss = 0};
  numbers(v->W_hh, H * H, 1, 0.6), numbers(v->W_xh, H * I, 2, 0.8), numbers(v->b_h, H, 3, 0.3);
  numbers(v->W_hy, Y * H, 4, 0.9), numbers(v->b_y, Y, 5, 0.2), numbers(v->h_0[0], B * H, 6, 0.5);
  numbers(v->x[0][0], T * B * I, 7, 1), numbers(v->target[0][0], T * B * Y, 8, 1);
  for (int t = 0; t < T; t++)
    for (int b = 0; b < B; b++) {
      double o[Y];
      state_at(v, t, b, v->h[t][b]);
      affine(v->W_hy, v->h[t][b], v->b_y, Y, H, o);
      for (int k = 0; k < Y; k++) {
        const double y = v->y[t][b][k] = sigmoid(o[k]), off = y - v->target[t][b][k];
        v->loss += off * off / 2;
        do_t[t][b][k] = off * y * (1 - y);
      }
    }
  for (int b = 0; b < B; b++)
    for (int t = T - 1; t >= -1; t--)
      for (int i = 0; i < H; i++) {
        double sum = 0;
        for (int k = 0; t >= 0 && k < Y; k++)
          sum += v->W_hy[k * H + i] * do_t[t][b][k];
        for (int j = 0; t + 1 < T && j < H; j++) /* f'(a) = 1 - h² stands between ∂L/∂h_{t+1} and W_hh^T */
          sum += v->W_hh[j * H + i] * v->dh[t + 1][b][j] * (1 - v->h[t + 1][b][j] * v->h[t + 1][b][j]);
        *(t < 0 ? &v->dh_0[b][i] : &v->dh[t][b][i]) = sum;
      }
  for (int t = 0; t < T; t++)
    for (int b = 0; b < B; b++) {
      const double *before = t ? v->h[t - 1][b] : v->h_0[b];
      for (int k = 0; k < Y; k++) {
        v->db_y[k] += do_t[t][b][k];
        for (int i = 0; i < H; i++)
          v->dW_hy[k * H + i] += do_t[t][b][k] * v->h[t][b][i];
      }
      for (int i = 0; i < H; i++) {
        const double da = v->dh[t][b][i] * (1 - v->h[t][b][i] * v->h[t][b][i]);
        v->db_h[i] += da;
        for (int j = 0; j < H; j++)
          v->dW_hh[i * H + j] += da * before[j];
        for (int j = 0; j < I; j++)
          v->dW_xh[i * I + j] += da * v->x[t][b][j];
      }
    }
}

/* The same by the library: as a layer, or by steps of a scan in which "push" is added to each h_t, so that its gradient
 * is ∂L/∂h_t. */
static unroll_graph *vanilla_graph(int32_t dtype, bool steps) {
  unroll_graph *g = graph();
  const unroll_tensor x = unroll_input(g, "x", dtype, 3, (int64_t[]){T, B, I}),
                      target = unroll_input(g, "target", dtype, 3, (int64_t[]){T, B, Y});
  unroll_tensor h_0 = unroll_input(g, "h_0", dtype, 2, (int64_t[]){B, H}), h, push = unroll_none();
  if (steps) {
    push = unroll_input(g, "push", dtype, 3, (int64_t[]){T, B, H});
    unroll_scan *s = unroll_scan_begin(g, UNROLL_FORWARD, unroll_none());
    const unroll_tensor x_t = unroll_scan_input(s, x), push_t = unroll_scan_input(s, push),
                        before = unroll_scan_carry(s, h_0);
    const unroll_cell_state next =
        unroll_cell_step(x_t, "", UNROLL_CELL_RNN, UNROLL_TANH, H, (unroll_cell_state){before, unroll_none()});
    const unroll_tensor pushed = unroll_add(next.h, push_t);
    unroll_scan_next(s, before, pushed);
    h = unroll_scan_output(s, pushed);
    unroll_scan_end(s);
  } else {
    const unroll_rnn_options o = {.struct_size = sizeof o, .cell = UNROLL_CELL_RNN, .layers = 1, .hidden = H};
    const unroll_rnn_state initial = {&h_0, NULL};
    h = unroll_rnn(x, "", &o, &initial, NULL);
  }
  const unroll_tensor y = unroll_sigmoid(unroll_linear(h, "out", Y, 1)),
                      loss = unroll_mse(y, target, UNROLL_LOSS_HALF_SUM);
  unroll_output(h, "h"), unroll_output(y, "y"), unroll_output(loss, "loss");
  const unroll_tensor of[] = {unroll_graph_find(g, "W_h.0.0"),
                              unroll_graph_find(g, "W_x.0.0"),
                              unroll_graph_find(g, "b.0.0"),
                              unroll_graph_find(g, "out.W"),
                              unroll_graph_find(g, "out.b"),
                              h_0,
                              push};
  static const char *const names[] = {"dW_hh", "dW_xh", "db_h", "dW_hy", "db_y", "dh_0", "dh"};
  unroll_tensor d[7];
  const uint32_t n = steps ? 7 : 6;
  unroll_gradient(loss, of, n, d);
  for (uint32_t i = 0; i < n; i++)
    unroll_output(d[i], names[i]);
  return g;
}

static void put_vanilla(model *m, const vanilla *v) {
  model_put(m, "W_h.0.0", v->W_hh, H * H), model_put(m, "W_x.0.0", v->W_xh, H * I), model_put(m, "b.0.0", v->b_h, H);
  model_put(m, "out.W", v->W_hy, Y * H), model_put(m, "out.b", v->b_y, Y);
  model_put(m, "h_0", v->h_0[0], B * H), model_put(m, "x", v->x[0][0], T * B * I);
  model_put(m, "target", v->target[0][0], T * B * Y);
}

typedef void vanilla_check(model *m, const vanilla *v, double tolerance);
static void vanilla_is(void **state, vanilla_check *check, bool by_layer) {
  vanilla v;
  write_out(&v);
  BOTH_TYPES(dtype)
  for (int steps = by_layer ? 0 : 1; steps < 2; steps++) {
    static const double zeros[T * B * H];
    unroll_graph *g = vanilla_graph(dtype, steps != 0);
    model m = model_open(g, dev, true);
    put_vanilla(&m, &v);
    if (steps)
      model_put(&m, "push", zeros, T * B * H);
    model_run(&m);
    check(&m, &v, tolerance_of(dtype));
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

static void states(model *m, const vanilla *v, double tolerance) {
  assert_got(m, "h", v->h[0][0], T * B * H, tolerance);
}
static void outputs(model *m, const vanilla *v, double tolerance) {
  assert_got(m, "y", v->y[0][0], T * B * Y, tolerance);
}
static void loss(model *m, const vanilla *v, double tolerance) { assert_got(m, "loss", &v->loss, 1, tolerance); }
static void output_layer(model *m, const vanilla *v, double tolerance) {
  assert_got(m, "dW_hy", v->dW_hy, Y * H, tolerance);
  assert_got(m, "db_y", v->db_y, Y, tolerance);
}
static void hidden_states(model *m, const vanilla *v, double tolerance) {
  assert_got(m, "dh", v->dh[0][0], T * B * H, tolerance);
}
static void weights(model *m, const vanilla *v, double tolerance) {
  assert_got(m, "dW_hh", v->dW_hh, H * H, tolerance);
  assert_got(m, "dW_xh", v->dW_xh, H * I, tolerance);
  assert_got(m, "db_h", v->db_h, H, tolerance);
}
static void first_state(model *m, const vanilla *v, double tolerance) {
  assert_got(m, "dh_0", v->dh_0[0], B * H, tolerance);
}
static void hidden_state_recursion(void **state) { vanilla_is(state, states, true); }
static void output_generation(void **state) { vanilla_is(state, outputs, true); }
static void sequence_loss(void **state) { vanilla_is(state, loss, true); }
static void output_layer_gradients(void **state) { vanilla_is(state, output_layer, true); }
static void hidden_state_gradients(void **state) { vanilla_is(state, hidden_states, false); }
static void weight_gradients(void **state) { vanilla_is(state, weights, true); }
static void first_state_gradient(void **state) { vanilla_is(state, first_state, true); }

/* ---- ∂L/∂h_0 as a product of Jacobians, and how large it is ---- */

/*
 * ∂L/∂h_0 from a given ∂L/∂h_T through STEPS steps without inputs, one row, by the library. lambda: W_hh is an
 * orthogonal matrix times that. W and h get the weights and the states h_1 .. h_T.
 */
enum { STEPS = 12 };
static void back_to_the_first(unroll_device *dev, int32_t dtype, int32_t activation, double lambda, double size,
                              const double *dh_last, double *dh_first, double *W, double *h) {
  unroll_graph *g = graph();
  const unroll_tensor x = unroll_input(g, "x", dtype, 3, (int64_t[]){STEPS, 1, 1}),
                      dh = unroll_input(g, "dh", dtype, 2, (int64_t[]){1, H});
  unroll_tensor h_0 = unroll_input(g, "h_0", dtype, 2, (int64_t[]){1, H}), last, d;
  const unroll_rnn_options o = {.struct_size = sizeof o,
                                .cell = UNROLL_CELL_RNN,
                                .layers = 1,
                                .hidden = H,
                                .f = unroll_activation_of(activation)};
  const unroll_rnn_state initial = {&h_0, NULL};
  unroll_rnn_state end = {&last, NULL};
  unroll_output(unroll_rnn(x, "", &o, &initial, &end), "h");
  unroll_vjp(&last, &dh, 1, &h_0, 1, &d);
  unroll_output(d, "dh_0");
  model m = model_open(g, dev, true);
  double start[H], zeros[STEPS] = {0};
  numbers(start, H, 9, size);
  unroll_tensor_info info = unroll_tensor_describe(unroll_graph_find(g, "W_h.0.0"));
  info.dtype = UNROLL_F64;
  assert_int_equal(unroll_init_orthogonal(&info, 5, 1, lambda, W, NULL), UNROLL_OK);
  for (int i = 0; i < H * H; i++)
    W[i] = (double)(float)W[i];
  model_put(&m, "W_h.0.0", W, H * H), model_put(&m, "h_0", start, H), model_put(&m, "dh", dh_last, H);
  model_put(&m, "x", zeros, STEPS), model_put(&m, "W_x.0.0", zeros, H), model_put(&m, "b.0.0", zeros, H);
  model_run(&m);
  double *got_h = model_get(&m, "h", STEPS * H), *got = model_get(&m, "dh_0", H);
  memcpy(h, got_h, sizeof(double) * STEPS * H);
  memcpy(dh_first, got, sizeof(double) * H);
  free(got_h), free(got);
  model_close(&m);
  unroll_graph_destroy(g);
}

static double norm(const double *v) {
  double sum = 0;
  for (int i = 0; i < H; i++)
    sum += v[i] * v[i];
  return sqrt(sum);
}

/* J_t = W_hh^T·diag(f'(a_t)); all of them multiplied to one matrix, J_1 leftmost, then times ∂L/∂h_T. */
static void jacobian_product(void **state) {
  BOTH_TYPES(dtype) {
    double dh_last[H], got[H], W[H * H], h[STEPS * H], product[H][H] = {{0}}, want[H] = {0};
    numbers(dh_last, H, 10, 1);
    back_to_the_first(dev, dtype, UNROLL_ACTIVATION_TANH, 0.95, 0.8, dh_last, got, W, h);
    for (int i = 0; i < H; i++)
      product[i][i] = 1;
    for (int t = 0; t < STEPS; t++) {
      double next[H][H] = {{0}};
      for (int i = 0; i < H; i++)
        for (int j = 0; j < H; j++)
          for (int k = 0; k < H; k++)
            next[i][j] += product[i][k] * W[j * H + k] * (1 - h[t * H + j] * h[t * H + j]);
      memcpy(product, next, sizeof product);
    }
    for (int i = 0; i < H; i++)
      for (int j = 0; j < H; j++)
        want[i] += product[i][j] * dh_last[j];
    assert_close("dh_0", got, want, H, dtype == UNROLL_F64 ? 1e-12 : 1e-5);
  }
}

/*
 * With f the identity and W_hh = λ·orthogonal every J_t stretches by λ exactly: ‖∂L/∂h_0‖ = λ^T·‖∂L/∂h_T‖. tanh, whose
 * derivative is at most 1, stays below that, and where it saturates the gradient vanishes although λ > 1.
 */
static void norms_by_the_spectral_radius(void **state) {
  static const double lambdas[] = {0.5, 1, 1.5};
  BOTH_TYPES(dtype)
  for (int k = 0; k < 3; k++) {
    double dh_last[H], got[H], W[H * H], h[STEPS * H];
    numbers(dh_last, H, 10, 1);
    back_to_the_first(dev, dtype, UNROLL_ACTIVATION_IDENTITY, lambdas[k], 0.8, dh_last, got, W, h);
    const double bound = pow(lambdas[k], STEPS) * norm(dh_last);
    assert_true(fabs(norm(got) - bound) <= 1e-5 * bound); /* λ·Q was rounded to f32 */
    back_to_the_first(dev, dtype, UNROLL_ACTIVATION_TANH, lambdas[k], 0.8, dh_last, got, W, h);
    assert_true(norm(got) < 0.99 * bound);
    assert_true(norm(got) > 0);
    back_to_the_first(dev, dtype, UNROLL_ACTIVATION_TANH, 8 * lambdas[k], 8, dh_last, got, W, h);
    assert_true(norm(got) < 1e-3 * norm(dh_last));
  }
}

/* ---- activations ---- */

static double sigmoid_slope(double z) { return sigmoid(z) * (1 - sigmoid(z)); }
static double tanh_slope(double z) { return 1 - tanh(z) * tanh(z); }
static double relu(double z) { return z > 0 ? z : 0; }
static double relu_slope(double z) { return z > 0 ? 1 : 0; }

static void activation_is(void **state, int32_t kind, double (*f)(double), double (*slope)(double), double most,
                          bool saturates) {
  static const double z[] = {-30, -5, -1, -0.25, 0, 0.25, 1, 5, 30};
  enum { N = sizeof z / sizeof *z };
  BOTH_TYPES(dtype) {
    unroll_graph *g = graph();
    const unroll_tensor in = unroll_input(g, "z", dtype, 1, (int64_t[]){N}), out = unroll_unary(in, kind);
    unroll_tensor d;
    unroll_vjp(&out, NULL, 1, &in, 1, &d);
    unroll_output(out, "f"), unroll_output(d, "slope");
    model m = model_open(g, dev, true);
    double want[2][N];
    for (int i = 0; i < N; i++)
      want[0][i] = f(z[i]), want[1][i] = slope(z[i]);
    model_put(&m, "z", z, N);
    model_run(&m);
    assert_got(&m, "f", want[0], N, tolerance_of(dtype));
    assert_got(&m, "slope", want[1], N, tolerance_of(dtype));
    double *got = model_get(&m, "slope", N);
    for (int i = 0; i < N; i++)
      assert_true(got[i] >= 0 && got[i] <= most);
    assert_true(got[0] < 1e-12);
    assert_true(saturates ? got[N - 1] < 1e-6 : got[N - 1] == 1);
    free(got);
    model_close(&m);
    unroll_graph_destroy(g);
  }
}
static void sigmoid_saturates(void **state) {
  activation_is(state, UNROLL_SIGMOID, sigmoid, sigmoid_slope, 0.25, true);
}
static void tanh_saturates(void **state) { activation_is(state, UNROLL_TANH, tanh, tanh_slope, 1, true); }
static void relu_does_not(void **state) { activation_is(state, UNROLL_RELU, relu, relu_slope, 1, false); }

/* ---- gated cells, with the text's matrices that take [h_{t-1}, x_t] ---- */

enum { LSTM_GATES = 4, GRU_GATES = 3 };
typedef struct gated {
  double W[LSTM_GATES][H * (H + I)], b[LSTM_GATES][H], x[T][B][I]; /* lstm f i C o; gru z r h */
} gated;
static void gated_numbers(gated *v) {
  for (int k = 0; k < LSTM_GATES; k++)
    numbers(v->W[k], H * (H + I), 20 + k, 0.7), numbers(v->b[k], H, 30 + k, 0.4);
  numbers(v->x[0][0], T * B * I, 40, 1);
}
static void gate(const gated *v, int k, const double *h, const double *x, double *a) {
  double both[H + I];
  memcpy(both, h, sizeof(double) * H);
  memcpy(both + H, x, sizeof(double) * I);
  affine(v->W[k], both, v->b[k], H, H + I, a);
}
/* The library's blocks from the text's: block k of W_x, W_h, b is sign[k] times the text's matrix at[k]. */
static void put_gates(model *m, const gated *v, int n, const int *at, const double *sign) {
  double W_x[LSTM_GATES * H * I], W_h[LSTM_GATES * H * H], b[LSTM_GATES * H];
  for (int k = 0; k < n; k++)
    for (int i = 0; i < H; i++) {
      const double *row = v->W[at[k]] + i * (H + I);
      for (int j = 0; j < H; j++)
        W_h[(k * H + i) * H + j] = sign[k] * row[j];
      for (int j = 0; j < I; j++)
        W_x[(k * H + i) * I + j] = sign[k] * row[H + j];
      b[k * H + i] = sign[k] * v->b[at[k]][i];
    }
  model_put(m, "W_x.0.0", W_x, n * H * I), model_put(m, "W_h.0.0", W_h, n * H * H), model_put(m, "b.0.0", b, n * H);
  model_put(m, "x", v->x[0][0], T * B * I);
}

typedef struct lstm_values {
  double f[T][B][H], C[T][B][H], o[T][B][H], h[T][B][H];
} lstm_values;
static void lstm_forward(const gated *v, lstm_values *s) {
  static const double zeros[H];
  for (int t = 0; t < T; t++)
    for (int b = 0; b < B; b++) {
      double a[LSTM_GATES][H];
      for (int k = 0; k < LSTM_GATES; k++)
        gate(v, k, t ? s->h[t - 1][b] : zeros, v->x[t][b], a[k]);
      for (int i = 0; i < H; i++) {
        s->f[t][b][i] = sigmoid(a[0][i]);
        s->C[t][b][i] = s->f[t][b][i] * (t ? s->C[t - 1][b][i] : 0) + sigmoid(a[1][i]) * tanh(a[2][i]);
        s->o[t][b][i] = sigmoid(a[3][i]);
        s->h[t][b][i] = s->o[t][b][i] * tanh(s->C[t][b][i]);
      }
    }
}
static const int lstm_order[] = {1, 0, 2, 3}; /* i f g o */
static const double plus[] = {1, 1, 1, 1};

/* As one node, and step by step, which C_t of every step asks for. */
static void lstm_equations(void **state) {
  gated v;
  lstm_values s;
  gated_numbers(&v);
  lstm_forward(&v, &s);
  BOTH_TYPES(dtype)
  for (int cells = 0; cells < 2; cells++) {
    unroll_graph *g = graph();
    unroll_tensor c;
    const unroll_rnn_options o = {
        .struct_size = sizeof o, .cell = UNROLL_CELL_LSTM, .layers = 1, .hidden = H, .cells = cells ? &c : NULL};
    unroll_output(unroll_rnn(unroll_input(g, "x", dtype, 3, (int64_t[]){T, B, I}), "", &o, NULL, NULL), "h");
    if (cells)
      unroll_output(c, "C");
    model m = model_open(g, dev, true);
    put_gates(&m, &v, LSTM_GATES, lstm_order, plus);
    model_run(&m);
    assert_got(&m, "h", s.h[0][0], T * B * H, tolerance_of(dtype));
    if (cells)
      assert_got(&m, "C", s.C[0][0], T * B * H, tolerance_of(dtype));
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

/*
 * ∂L/∂C_t = ∂L/∂h_t · o_t · (1 - tanh²(C_t)) + ∂L/∂C_{t+1} · f_{t+1}, with both gradients taken as those of numbers
 * that are added to h_t and C_t in every step.
 */
static void lstm_cell_state_gradient(void **state) {
  gated v;
  lstm_values s;
  gated_numbers(&v);
  lstm_forward(&v, &s);
  BOTH_TYPES(dtype) {
    unroll_graph *g = graph();
    const int64_t shape[] = {T, B, H};
    const unroll_tensor x = unroll_input(g, "x", dtype, 3, (int64_t[]){T, B, I}),
                        dy = unroll_input(g, "dy", dtype, 3, shape),
                        push[] = {unroll_input(g, "push_h", dtype, 3, shape),
                                  unroll_input(g, "push_C", dtype, 3, shape)},
                        zero = unroll_constant(g, dtype, 2, (int64_t[]){B, H}, 0.0);
    unroll_scan *scan = unroll_scan_begin(g, UNROLL_FORWARD, unroll_none());
    const unroll_tensor x_t = unroll_scan_input(scan, x), h_t = unroll_scan_input(scan, push[0]),
                        C_t = unroll_scan_input(scan, push[1]);
    const unroll_cell_state now = {unroll_scan_carry(scan, zero), unroll_scan_carry(scan, zero)};
    const unroll_cell_state next = unroll_cell_step(x_t, "", UNROLL_CELL_LSTM, 0, H, now);
    /* The cell gives h = o⊙tanh(C) before anything was added to C: what was added goes in by the same function. */
    const unroll_tensor C = unroll_add(next.c, C_t), o = unroll_div(next.h, unroll_tanh(next.c)),
                        h = unroll_add(unroll_mul(o, unroll_tanh(C)), h_t);
    unroll_scan_next(scan, now.h, h);
    unroll_scan_next(scan, now.c, C);
    const unroll_tensor y = unroll_scan_output(scan, h);
    unroll_scan_end(scan);
    unroll_tensor d[2];
    unroll_vjp(&y, &dy, 1, push, 2, d);
    unroll_output(d[0], "dh"), unroll_output(d[1], "dC");
    model m = model_open(g, dev, true);
    static const double zeros[T * B * H];
    double from[T * B * H], want[T][B][H];
    numbers(from, T * B * H, 50, 1);
    put_gates(&m, &v, LSTM_GATES, lstm_order, plus);
    model_put(&m, "dy", from, T * B * H), model_put(&m, "push_h", zeros, T * B * H);
    model_put(&m, "push_C", zeros, T * B * H);
    model_run(&m);
    double *dh = model_get(&m, "dh", T * B * H);
    for (int t = T - 1; t >= 0; t--)
      for (int b = 0; b < B; b++)
        for (int i = 0; i < H; i++) {
          const double squashed = tanh(s.C[t][b][i]);
          want[t][b][i] = dh[(t * B + b) * H + i] * s.o[t][b][i] * (1 - squashed * squashed) +
                          (t + 1 < T ? want[t + 1][b][i] * s.f[t + 1][b][i] : 0);
        }
    assert_got(&m, "dC", want[0][0], T * B * H, dtype == UNROLL_F64 ? 1e-11 : 2e-5); /* a quotient of small numbers */
    free(dh);
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

/* The text's z_t is what is taken of the new: the library's z, which is what is kept, is 1 - z_t = σ(-a_z). */
static void gru_equations(void **state) {
  static const int order[] = {1, 0, 2}; /* r z n */
  static const double sign[] = {1, -1, 1};
  static const double zeros[H];
  gated v;
  double h[T][B][H];
  gated_numbers(&v);
  for (int t = 0; t < T; t++)
    for (int b = 0; b < B; b++) {
      const double *before = t ? h[t - 1][b] : zeros;
      double z[H], r[H], reset[H], n[H];
      gate(&v, 0, before, v.x[t][b], z);
      gate(&v, 1, before, v.x[t][b], r);
      for (int i = 0; i < H; i++)
        reset[i] = sigmoid(r[i]) * before[i];
      gate(&v, 2, reset, v.x[t][b], n);
      for (int i = 0; i < H; i++)
        h[t][b][i] = (1 - sigmoid(z[i])) * before[i] + sigmoid(z[i]) * tanh(n[i]);
    }
  BOTH_TYPES(dtype) {
    unroll_graph *g = graph();
    const unroll_rnn_options o = {.struct_size = sizeof o, .cell = UNROLL_CELL_GRU, .layers = 1, .hidden = H};
    unroll_output(unroll_rnn(unroll_input(g, "x", dtype, 3, (int64_t[]){T, B, I}), "", &o, NULL, NULL), "h");
    model m = model_open(g, dev, true);
    put_gates(&m, &v, GRU_GATES, order, sign);
    model_run(&m);
    assert_got(&m, "h", h[0][0], T * B * H, tolerance_of(dtype));
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

static void parameter_counts(void **state) {
  (void)state;
  static const int32_t cells[] = {UNROLL_CELL_RNN, UNROLL_CELL_LSTM, UNROLL_CELL_GRU, UNROLL_CELL_GRU_AFTER};
  static const int64_t n_h = 5, n_x = 3, want[] = {5 * 9, 4 * 5 * 9, 3 * 5 * 9, 3 * 5 * 9 + 5};
  for (int c = 0; c < 4; c++) {
    unroll_graph *g = graph();
    const unroll_rnn_options o = {.struct_size = sizeof o, .cell = cells[c], .layers = 1, .hidden = n_h};
    unroll_output(unroll_rnn(unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){2, 1, n_x}), "", &o, NULL, NULL), "h");
    assert_int_equal(unroll_graph_status(g, NULL), UNROLL_OK);
    int64_t sum = 0;
    for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
      const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(g, i));
      if (info.role == UNROLL_ROLE_PARAM)
        sum += info.shape[0] * (info.rank == 2 ? info.shape[1] : 1);
    }
    assert_int_equal(sum, want[c]);
    unroll_graph_destroy(g);
  }
}

/* ---- bidirectional and deep ---- */

/* y_t = σ(W_hy·[h_t^forward; h_t^backward] + b_y), the second from the end, with weights of its own. */
static void bidirectional_output(void **state) {
  double W_hh[2][H * H], W_xh[2][H * I], b_h[2][H], W_hy[Y * 2 * H], b_y[Y], x[T][B][I], h[T][B][2 * H], y[T][B][Y];
  for (int d = 0; d < 2; d++)
    numbers(W_hh[d], H * H, 60 + d, 0.6), numbers(W_xh[d], H * I, 62 + d, 0.8), numbers(b_h[d], H, 64 + d, 0.3);
  numbers(W_hy, Y * 2 * H, 66, 0.8), numbers(b_y, Y, 67, 0.3), numbers(x[0][0], T * B * I, 68, 1);
  for (int d = 0; d < 2; d++)
    for (int k = 0; k < T; k++)
      for (int b = 0; b < B; b++) {
        static const double zeros[H];
        const int t = d ? T - 1 - k : k;
        double a[H], in[H];
        affine(W_hh[d], k ? h[d ? t + 1 : t - 1][b] + d * H : zeros, b_h[d], H, H, a);
        affine(W_xh[d], x[t][b], NULL, H, I, in);
        for (int i = 0; i < H; i++)
          h[t][b][d * H + i] = tanh(a[i] + in[i]);
      }
  for (int t = 0; t < T; t++)
    for (int b = 0; b < B; b++) {
      affine(W_hy, h[t][b], b_y, Y, 2 * H, y[t][b]);
      for (int k = 0; k < Y; k++)
        y[t][b][k] = sigmoid(y[t][b][k]);
    }
  BOTH_TYPES(dtype) {
    unroll_graph *g = graph();
    const unroll_rnn_options o = {
        .struct_size = sizeof o, .cell = UNROLL_CELL_RNN, .layers = 1, .hidden = H, .bidirectional = 1};
    const unroll_tensor both = unroll_rnn(unroll_input(g, "x", dtype, 3, (int64_t[]){T, B, I}), "", &o, NULL, NULL);
    unroll_output(both, "h");
    unroll_output(unroll_sigmoid(unroll_linear(both, "out", Y, 1)), "y");
    model m = model_open(g, dev, true);
    for (int d = 0; d < 2; d++) {
      static const char *const names[2][3] = {{"W_h.0.0", "W_x.0.0", "b.0.0"}, {"W_h.0.1", "W_x.0.1", "b.0.1"}};
      model_put(&m, names[d][0], W_hh[d], H * H), model_put(&m, names[d][1], W_xh[d], H * I);
      model_put(&m, names[d][2], b_h[d], H);
    }
    model_put(&m, "out.W", W_hy, Y * 2 * H), model_put(&m, "out.b", b_y, Y), model_put(&m, "x", x[0][0], T * B * I);
    model_run(&m);
    assert_got(&m, "h", h[0][0], T * B * 2 * H, tolerance_of(dtype));
    assert_got(&m, "y", y[0][0], T * B * Y, tolerance_of(dtype));
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

/* h_t^(l) = f(W_hh^(l)·h_{t-1}^(l) + W_xh^(l)·h_t^(l-1) + b_h^(l)) + skip·h_t^(l-1), h^(0) = x, of two layers. */
static void deep_is(void **state, bool skips) {
  double W_hh[2][H * H], W_xh[2][H * H], b_h[2][H], h[3][T][B][H];
  for (int l = 0; l < 2; l++)
    numbers(W_hh[l], H * H, 70 + l, 0.6), numbers(W_xh[l], H * H, 72 + l, 0.6), numbers(b_h[l], H, 74 + l, 0.3);
  numbers(h[0][0][0], T * B * H, 76, 0.5);
  for (int l = 1; l <= 2; l++)
    for (int t = 0; t < T; t++)
      for (int b = 0; b < B; b++) {
        static const double zeros[H];
        double a[H], in[H];
        affine(W_hh[l - 1], t ? h[l][t - 1][b] : zeros, b_h[l - 1], H, H, a);
        affine(W_xh[l - 1], h[l - 1][t][b], NULL, H, H, in);
        for (int i = 0; i < H; i++)
          h[l][t][b][i] = tanh(a[i] + in[i]) + (skips ? h[l - 1][t][b][i] : 0);
      }
  BOTH_TYPES(dtype) {
    unroll_graph *g = graph();
    const unroll_rnn_options o = {.struct_size = sizeof o,
                                  .cell = UNROLL_CELL_RNN,
                                  .layers = 2,
                                  .hidden = H,
                                  .residual = skips ? UNROLL_RESIDUAL_STATES : UNROLL_RESIDUAL_NONE};
    unroll_output(unroll_rnn(unroll_input(g, "x", dtype, 3, (int64_t[]){T, B, H}), "", &o, NULL, NULL), "top");
    model m = model_open(g, dev, true);
    for (int l = 0; l < 2; l++) {
      static const char *const names[2][3] = {{"W_h.0.0", "W_x.0.0", "b.0.0"}, {"W_h.1.0", "W_x.1.0", "b.1.0"}};
      model_put(&m, names[l][0], W_hh[l], H * H), model_put(&m, names[l][1], W_xh[l], H * H);
      model_put(&m, names[l][2], b_h[l], H);
    }
    model_put(&m, "x", h[0][0][0], T * B * H);
    model_run(&m);
    assert_got(&m, "top", h[2][0][0], T * B * H, tolerance_of(dtype));
    model_close(&m);
    unroll_graph_destroy(g);
  }
}
static void deep(void **state) { deep_is(state, false); }
static void deep_with_skips(void **state) { deep_is(state, true); }

/* ---- what recurrences can do ---- */

/*
 * Parity of bits, an automaton of two states, by weights that are written down: s = h_1 - 2·h_2 is the parity so far,
 * h_1 = relu(s + x), h_2 = relu(s + x - 1). The same weights for sequences of every length, without any error.
 */
static void parity_of_any_length(void **state) {
  static const double W_hh[] = {1, -2, 1, -2}, W_xh[] = {1, 1}, b_h[] = {0, -1}, W_hy[] = {1, -2};
  enum { LONGEST = 200 };
  static const int64_t lengths[] = {1, 7, LONGEST};
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_graph *g = graph();
    const int64_t steps = unroll_graph_dim(g, "T", 1, LONGEST);
    const unroll_rnn_options o = {
        .struct_size = sizeof o, .cell = UNROLL_CELL_RNN, .activation = UNROLL_RELU, .layers = 1, .hidden = 2};
    const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){steps, 1, 1});
    unroll_output(unroll_linear(unroll_rnn(x, "", &o, NULL, NULL), "out", 1, 0), "parity");
    model m = model_open(g, dev, true);
    model_put(&m, "W_h.0.0", W_hh, 4), model_put(&m, "W_x.0.0", W_xh, 2), model_put(&m, "b.0.0", b_h, 2);
    model_put(&m, "out.W", W_hy, 2);
    for (int k = 0; k < 3; k++) {
      double bits[LONGEST];
      const int64_t n = lengths[k];
      for (int64_t t = 0; t < n; t++)
        bits[t] = (t * t + t / 3 + k) % 3 == 0;
      model_set_dim(&m, n);
      model_put(&m, "x", bits, n);
      model_run(&m);
      double *got = model_get(&m, "parity", n);
      int parity = 0;
      for (int64_t t = 0; t < n; t++) {
        parity ^= bits[t] != 0;
        assert_true(got[t] == parity);
      }
      free(got);
    }
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

/* What BPTT keeps grows with T by the same number of bytes a step. */
static void memory_grows_with_steps(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    double bytes[3];
    for (int k = 0; k < 3; k++) {
      unroll_graph *g = graph();
      const unroll_rnn_options o = {.struct_size = sizeof o, .cell = UNROLL_CELL_RNN, .layers = 1, .hidden = 32};
      const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){512 << k, 8, 32}),
                          h = unroll_rnn(x, "", &o, NULL, NULL), W = unroll_graph_find(g, "W_h.0.0");
      unroll_tensor dW;
      unroll_vjp(&h, NULL, 1, &W, 1, &dW);
      unroll_output(dW, "dW");
      model m = model_open(g, dev, true);
      bytes[k] = (double)unroll_executable_describe(m.exe).scratch_bytes;
      model_close(&m);
      unroll_graph_destroy(g);
    }
    const double step = (bytes[1] - bytes[0]) / 512;
    assert_true(step >= 8 * 32 * sizeof(float));    /* h_t at the least */
    assert_true(step < 4 * 8 * 32 * sizeof(float)); /* and the products before and gradients after f */
    assert_true(fabs((bytes[2] - bytes[1]) / 1024 - step) <= 0.02 * step);
  }
}

/* Laid out over n steps, the graph of states and gradients has so many nodes and products a step. */
static void work_grows_with_steps(void **state) {
  (void)state;
  int products[3], lines[3];
  unroll_graph *g = graph();
  const unroll_rnn_options o = {.struct_size = sizeof o, .cell = UNROLL_CELL_RNN, .layers = 1, .hidden = H};
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){16, B, I}),
                      h = unroll_rnn(x, "", &o, NULL, NULL), W = unroll_graph_find(g, "W_h.0.0");
  unroll_tensor dW;
  unroll_vjp(&h, NULL, 1, &W, 1, &dW);
  unroll_output(dW, "dW");
  for (int k = 0; k < 3; k++) {
    char *text;
    assert_int_equal(unroll_graph_dump(g, UNROLL_DUMP_TEXT, 4 << k, &text, NULL), UNROLL_OK);
    products[k] = lines[k] = 0;
    for (const char *p = text; (p = strstr(p, "= matmul(")); p++)
      products[k]++;
    for (const char *p = text; (p = strchr(p, '\n')); p++)
      lines[k]++;
    unroll_string_free(text);
  }
  assert_int_equal(products[1] - products[0], 4 * 2); /* W_hh·h_{t-1}, and its transpose times a gradient */
  assert_int_equal(products[2] - products[1], 8 * 2);
  assert_int_equal(lines[2] - lines[1], 2 * (lines[1] - lines[0]));
  unroll_graph_destroy(g);
}

/* A stable diagonal model: ∂(c·x_T)/∂x_0 = c·a^T, state by state, however long the sequence. */
static void stable_gradients(void **state) {
  enum { LONG = 64, N = 3 };
  static const double a[N] = {0.5, -0.9375, 0.984375}, c[N] = {1, 2, -0.5};
  BOTH_TYPES(dtype) {
    unroll_graph *g = graph();
    const int64_t shape[] = {1, N}, state_shape[] = {1, 1, N};
    const unroll_diagonal_ssm in = {.struct_size = sizeof in,
                                    .u = unroll_input(g, "u", dtype, 3, (int64_t[]){LONG, 1, 1}),
                                    .a = unroll_input(g, "a", dtype, 2, shape),
                                    .b = unroll_input(g, "b", dtype, 2, shape),
                                    .c = unroll_input(g, "c", dtype, 2, shape),
                                    .x0 = unroll_input(g, "x0", dtype, 3, state_shape)};
    const unroll_ssm_outputs out = unroll_ssm_diagonal(&in, UNROLL_FORWARD);
    const unroll_tensor last = unroll_slice(out.y, 0, LONG - 1, 1);
    unroll_tensor d;
    unroll_vjp(&last, NULL, 1, &in.x0, 1, &d);
    unroll_output(d, "dx0");
    model m = model_open(g, dev, true);
    double u[LONG], want[N];
    numbers(u, LONG, 80, 1);
    for (int i = 0; i < N; i++)
      want[i] = c[i] * pow(a[i], LONG);
    model_put(&m, "u", u, LONG), model_put(&m, "a", a, N), model_put(&m, "b", c, N), model_put(&m, "c", c, N);
    model_put(&m, "x0", u, N);
    model_run(&m);
    assert_got(&m, "dx0", want, N, dtype == UNROLL_F64 ? 1e-12 : 2e-5); /* 64 factors, rounded one by one */
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      DEVICE_TESTS(hidden_state_recursion),
      DEVICE_TESTS(output_generation),
      DEVICE_TESTS(sequence_loss),
      DEVICE_TESTS(output_layer_gradients),
      DEVICE_TESTS(hidden_state_gradients),
      DEVICE_TESTS(weight_gradients),
      DEVICE_TESTS(first_state_gradient),
      DEVICE_TESTS(jacobian_product),
      DEVICE_TESTS(norms_by_the_spectral_radius),
      DEVICE_TESTS(sigmoid_saturates),
      DEVICE_TESTS(tanh_saturates),
      DEVICE_TESTS(relu_does_not),
      DEVICE_TESTS(lstm_equations),
      DEVICE_TESTS(lstm_cell_state_gradient),
      DEVICE_TESTS(gru_equations),
      cmocka_unit_test(parameter_counts),
      DEVICE_TESTS(bidirectional_output),
      DEVICE_TESTS(deep),
      DEVICE_TESTS(deep_with_skips),
      DEVICE_TESTS(parity_of_any_length),
      DEVICE_TESTS(memory_grows_with_steps),
      cmocka_unit_test(work_grows_with_steps),
      DEVICE_TESTS(stable_gradients),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
