/* SPDX-License-Identifier: Apache-2.0 */
/* Forecasters of a time series on the reference device: what they compute, learn, save, and refuse. */
#include <stdbool.h>
#include <unroll/forecast.h>

#include "train_support.h"

enum { N = 90, HOLDOUT = 11, MOST_UNITS = 12, MOST_HORIZON = 4, MOST_WINDOW = 16 };

/* A trend, a season of 4, and something that is neither. */
static void make_series(double *y, int n) {
  for (int t = 0; t < n; t++)
    y[t] = 200 + 0.7 * t + 9 * ((t % 4) - 1.5) * ((t % 4) == 1 ? 2 : 1) + (double)((t * t * 7 + t * 3) % 23) / 4;
}

/* A plain network, that is computed by hand below. */
static unroll_forecaster_options toy(void) {
  unroll_forecaster_options o = unroll_forecaster_options_default();
  o.rnn.cell = UNROLL_CELL_RNN;
  o.rnn.hidden = 7;
  o.lags = 5;
  o.holdout = HOLDOUT;
  o.training.batch = 8;
  o.training.validation = 0.2;
  o.training.seed = 5;
  o.training.schedule.base = 0.02;
  return o;
}

static unroll_forecaster *new_forecaster(const double *y, int n, const unroll_forecaster_options *o) {
  unroll_forecaster *f = NULL;
  assert_ok(unroll_forecaster_create(&cpu, 1, y, n, o, NULL, &f, &err));
  return f;
}

RUN_TO(unroll_forecaster)

/* ---- by hand, in double ---- */

enum { W_X, W_H, B, OUT_W, OUT_B, PARAMETERS };
static const char *const parameter_names[PARAMETERS] = {"rnn.W_x.0.0", "rnn.W_h.0.0", "rnn.b.0.0", "linear.W",
                                                        "linear.b"};
struct network {
  int units, lags, horizon;
  double p[PARAMETERS][MOST_UNITS * MOST_UNITS];
  int n[PARAMETERS];
};

/* The parameters of a model, through its file. */
static struct network network_of(unroll_forecaster *f) {
  const unroll_forecaster_options o = unroll_forecaster_describe(f).options;
  struct network net = {.units = (int)o.rnn.hidden, .lags = (int)o.lags, .horizon = (int)o.horizon};
  unroll_safetensors *file;
  assert_ok(unroll_forecaster_save(f, in_folder("net"), &err));
  assert_ok(unroll_safetensors_open(in_folder("net"), NULL, &file, &err));
  for (int k = 0; k < PARAMETERS; k++) {
    unroll_stored_tensor t;
    assert_ok(unroll_safetensors_find(file, parameter_names[k], &t, &err));
    net.n[k] = 1;
    for (int32_t i = 0; i < t.rank; i++)
      net.n[k] *= (int)t.shape[i];
    for (int i = 0; i < net.n[k]; i++)
      net.p[k][i] = (double)((const float *)t.data)[i];
  }
  unroll_safetensors_close(file);
  return net;
}

/* h = tanh(W_x·x + W_h·h + b) over the window, then a linear layer. */
static void say(const struct network *net, const double *x, double *next) {
  double h[MOST_UNITS] = {0};
  for (int t = 0; t < net->lags; t++) {
    double now[MOST_UNITS];
    for (int i = 0; i < net->units; i++) {
      double a = net->p[B][i] + net->p[W_X][i] * x[t];
      for (int j = 0; j < net->units; j++)
        a += net->p[W_H][i * net->units + j] * h[j];
      now[i] = tanh(a);
    }
    memcpy(h, now, sizeof h);
  }
  for (int k = 0; k < net->horizon; k++) {
    next[k] = net->p[OUT_B][k];
    for (int j = 0; j < net->units; j++)
      next[k] += net->p[OUT_W][k * net->units + j] * h[j];
  }
}

/* d times z_t - z_{t-1}, after y_t - y_{t-s}; how many there are. */
static int difference(const double *y, int n, const unroll_forecaster_options *o, double *x) {
  const int s = (int)o->season;
  int m = 0;
  for (int t = s; t < n; t++)
    x[m++] = s ? y[t] - y[t - s] : y[t];
  for (int d = 0; d < (int)o->differences; d++) {
    m--;
    for (int t = 0; t < m; t++)
      x[t] = x[t + 1] - x[t];
  }
  return m;
}

static void measure(const double *x, int n, double *mean, double *deviation) {
  double squares = 0;
  *mean = 0;
  for (int t = 0; t < n; t++)
    *mean += x[t] / n;
  for (int t = 0; t < n; t++)
    squares += (x[t] - *mean) * (x[t] - *mean) / n;
  *deviation = sqrt(squares);
}

/* Of the windows of x that begin at first to first + n - 1: the mean squared error and, where it is asked for, the
 * mean absolute one. */
static double loss_of(const struct network *net, const double *x, int first, int n, double *mae) {
  double squares = 0, absolute = 0;
  for (int w = first; w < first + n; w++) {
    double next[MOST_HORIZON] = {0};
    say(net, x + w, next);
    for (int k = 0; k < net->horizon; k++) {
      const double off = next[k] - x[w + net->lags + k];
      squares += off * off / (n * net->horizon);
      absolute += fabs(off) / (n * net->horizon);
    }
  }
  if (mae)
    *mae = absolute;
  return squares;
}

static void close_to(const char *what, double got, double want, double within) {
  if (!(fabs(got - want) <= within))
    fail_msg("%s: %.9g, expected %.9g to %g", what, got, want, within);
}

/* ---- what is computed ---- */

/* The four ways in which x comes from y. */
static unroll_forecaster_options variant(int i) {
  unroll_forecaster_options o = toy();
  o.differences = i == 1 ? 1 : i == 2 ? 2 : 0;
  o.season = i == 1 || i == 3 ? 4 : 0;
  o.horizon = i == 1 ? 3 : i == 3 ? 2 : 1;
  o.unscaled = i == 2;
  return o;
}

/* x of the windows before the holdout, standardised by the training part, whose sizes are checked too. */
static int prepare(const double *y, unroll_forecaster *f, double *x) {
  const unroll_forecaster_info info = unroll_forecaster_describe(f);
  const unroll_forecaster_options *o = &info.options;
  const int m = difference(y, N - HOLDOUT, o, x), windows = m - (int)(o->lags + o->horizon) + 1;
  assert_int_equal(info.validation_count, (int)(0.2 * windows));
  assert_int_equal(info.train_count, windows - info.validation_count - (o->horizon - 1));
  double mean = 0, deviation = 1;
  if (!o->unscaled)
    measure(x, (int)(info.train_count + o->lags + o->horizon - 1), &mean, &deviation);
  close_to("mean", info.mean, mean, 1e-12 * fabs(mean) + 1e-12);
  close_to("deviation", info.deviation, deviation, 1e-12 * deviation);
  for (int t = 0; t < m; t++)
    x[t] = (x[t] - mean) / deviation;
  return m;
}

/* Forecasts from the definition: each value is fed back, differences are undone one after the other. */
static void forecasts_by_hand(void **state) {
  (void)state;
  enum { AHEAD = 8 };
  static struct seen seen;
  double y[N + AHEAD], x[N + AHEAD] = {0}, out[AHEAD];
  for (int v = 0; v < 4; v++) {
    unroll_forecaster_options o = variant(v);
    o.rnn.dropout = v == 3 ? 0.4 : 0; /* in training alone */
    make_series(y, N);
    unroll_forecaster *f = new_forecaster(y, N, &o);
    run_to(f, 12, &seen); /* so that no parameter is zero */
    const unroll_forecaster_info info = unroll_forecaster_describe(f);
    const struct network net = network_of(f);
    assert_int_equal(info.least, o.lags + o.differences + o.season);
    assert_ok(unroll_forecaster_forecast(f, y, N, AHEAD, out, &err));
    for (int done = 0; done < AHEAD; done += net.horizon) {
      double z[MOST_WINDOW] = {0}, next[MOST_HORIZON] = {0};
      const int n = N + done, m = difference(y, n, &o, x);
      for (int t = 0; t < net.lags; t++)
        z[t] = (x[m - net.lags + t] - info.mean) / info.deviation;
      say(&net, z, next);
      for (int k = 0; k < net.horizon && done + k < AHEAD; k++) {
        const int t = n + k, s = (int)o.season;
        double value = next[k] * info.deviation + info.mean;
        const double before = s ? y[t - 1] - y[t - 1 - s] : y[t - 1], before2 = s ? y[t - 2] - y[t - 2 - s] : y[t - 2];
        value += o.differences == 1 ? before : o.differences == 2 ? 2 * before - before2 : 0;
        y[t] = value + (s ? y[t - s] : 0);
        /* float32 of numbers about 1, times the deviation, and what was fed back before it */
        close_to("forecast", out[t - N], y[t], 2e-5 * info.deviation * (done + k + 1) * (v == 2 ? 30 : 1));
      }
    }
    unroll_forecaster_destroy(f);
  }
}

/* Losses, metrics, the validation's and the naive ones, and that an epoch has every window once. */
static void losses_by_hand(void **state) {
  (void)state;
  static struct seen seen;
  double y[N], x[N] = {0};
  make_series(y, N);
  for (int v = 0; v < 4; v++) {
    unroll_forecaster_options o = variant(v);
    o.training.optimizer = (unroll_optimizer_attr){.kind = UNROLL_SGD};
    o.training.schedule.base = 1e-30; /* nothing moves */
    unroll_forecaster *f = new_forecaster(y, N, &o);
    const int n = (int)unroll_forecaster_describe(f).train_count;
    prepare(y, f, x);
    unroll_forecaster_destroy(f);
    const int epoch = n % 2 == 0 ? 2 : n % 3 == 0 ? 3 : 1; /* whole batches */
    o.training.batch = n / epoch;
    f = new_forecaster(y, N, &o);
    assert_int_equal(unroll_forecaster_describe(f).updates_per_epoch, epoch);
    run_to(f, 2 * (uint64_t)epoch, &seen);
    const unroll_forecaster_info info = unroll_forecaster_describe(f);
    const struct network net = network_of(f);
    double mae, mean[2] = {0, 0}, metric = 0, loss, evaluated_mae;
    const double all = loss_of(&net, x, 0, n, &mae);
    for (int i = 0; i < 2 * epoch; i++) {
      mean[i / epoch] += (double)seen.losses[i] / epoch;
      metric += seen.metrics[i] / (2 * epoch);
    }
    close_to("epoch 0", mean[0], all, 2e-6 * all);
    close_to("epoch 1", mean[1], all, 2e-6 * all);
    close_to("metric", metric, mae * info.deviation, 2e-6 * mae * info.deviation);
    if (epoch > 1) /* in another order */
      assert_true(fabsf(seen.losses[0] - seen.losses[epoch]) > 1e-6f);

    const int first = n + (int)o.horizon - 1, lost = (int)(o.differences + o.season);
    const double held = loss_of(&net, x, first, (int)info.validation_count, &mae);
    assert_ok(unroll_forecaster_evaluate(f, &loss, &evaluated_mae, &err));
    close_to("validation", loss, held, 2e-6 * held);
    close_to("its mae", evaluated_mae, mae * info.deviation, 2e-6 * mae * info.deviation);

    /* What one would have said of x, had y stayed where it was. */
    double squares = 0, absolute = 0;
    for (int w = first; w < first + info.validation_count; w++) {
      const int t0 = lost + w + net.lags;
      double still[N], z[N];
      memcpy(still, y, sizeof still);
      for (int t = t0; t < t0 + net.horizon; t++)
        still[t] = y[t0 - 1];
      difference(still, t0 + net.horizon, &o, z);
      for (int k = 0; k < net.horizon; k++) {
        const double off = (z[w + net.lags + k] - info.mean) / info.deviation - x[w + net.lags + k];
        squares += off * off;
        absolute += fabs(off) * info.deviation;
      }
    }
    const double targets = (double)(info.validation_count * o.horizon);
    close_to("naive loss", info.naive_loss, squares / targets, 1e-9 * info.naive_loss);
    close_to("naive mae", info.naive_mae, absolute / targets, 1e-9 * info.naive_mae);
    unroll_forecaster_destroy(f);
  }
}

/* One step of plain descent is the gradient, which central differences of the loss by hand give too. The batch has
 * rows without a window. */
static void an_update_is_the_gradient(void **state) {
  (void)state;
  static struct seen seen;
  double y[N], x[N] = {0};
  make_series(y, N);
  for (int v = 0; v < 4; v++) {
    unroll_forecaster_options o = variant(v);
    const double rate = 0x1p-4, step = 1e-5;
    o.training.optimizer = (unroll_optimizer_attr){.kind = UNROLL_SGD};
    o.training.schedule.base = rate;
    o.training.clip = 0;
    o.training.batch = 128;
    o.training.accumulate = v == 3 ? 4 : 1; /* of which one part is empty */
    unroll_forecaster *f = new_forecaster(y, N, &o);
    prepare(y, f, x);
    const int n = (int)unroll_forecaster_describe(f).train_count;
    struct network net = network_of(f);
    const double loss = loss_of(&net, x, 0, n, NULL);
    run_to(f, 1, &seen);
    close_to("loss", (double)seen.losses[0], loss, 2e-6 * loss);
    const struct network after = network_of(f);
    double norm = 0;
    for (int k = 0; k < PARAMETERS; k++)
      for (int i = 0; i < net.n[k]; i++) {
        const double p = net.p[k][i];
        net.p[k][i] = p + step;
        const double above = loss_of(&net, x, 0, n, NULL);
        net.p[k][i] = p - step;
        const double below = loss_of(&net, x, 0, n, NULL);
        net.p[k][i] = p;
        const double gradient = (above - below) / (2 * step);
        norm += gradient * gradient;
        /* the update is rounded to float32 at the parameter's size, and differences have an error of step² */
        close_to(parameter_names[k], (p - after.p[k][i]) / rate, gradient,
                 1e-5 * fabs(gradient) + 1e-6 * (1 + fabs(p)) * (1 + loss));
      }
    close_to("norm", (double)seen.norms[0], sqrt(norm), 1e-5 * sqrt(norm));
    unroll_forecaster_destroy(f);
  }
}

/* ---- what is learnt ---- */

/* y_t = 1.2·y_{t-1} - 0.6·y_{t-2} + e_t: no forecast is better than the process's own; the network comes near it. */
static void follows_a_linear_process(void **state) {
  (void)state;
  enum { LONG = 3000, TEST = 500, UPDATES = 480 }; /* 6 epochs */
  static double y[LONG], best[TEST];
  uint64_t dice = 88172645463325252u;
  for (int t = 0; t < LONG; t++) {
    double e = -6;
    for (int i = 0; i < 12; i++) { /* about normal */
      dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17;
      e += (double)(dice >> 11) * 0x1p-53;
    }
    y[t] = e + (t > 0 ? 1.2 * (y[t - 1] - 50) : 0) - (t > 1 ? 0.6 * (y[t - 2] - 50) : 0) + 50;
  }
  for (int t = 0; t < TEST; t++)
    best[t] = 1.2 * (y[LONG - TEST + t - 1] - 50) - 0.6 * (y[LONG - TEST + t - 2] - 50) + 50;
  const unroll_score optimum = unroll_score_of(best, y + LONG - TEST, TEST);
  for (int32_t cell = UNROLL_CELL_RNN; cell < UNROLL_CELL_COUNT; cell++) {
    static struct seen seen;
    unroll_forecaster_options o = toy();
    o.rnn.cell = cell;
    o.lags = 3;
    o.holdout = TEST;
    o.training.batch = 32;
    o.training.validation = 0;
    o.training.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_COSINE, .base = 0.02, .total = 6};
    unroll_forecaster *f = new_forecaster(y, LONG, &o);
    run_to(f, UPDATES, &seen);
    const unroll_ensemble ensemble = {&f, 1};
    unroll_score score, naive;
    assert_ok(unroll_backtest(unroll_ensemble_forecast, &ensemble, y, LONG, LONG - TEST, 1, NULL, NULL, &score, &err));
    const unroll_baseline last = {.kind = UNROLL_BASELINE_NAIVE};
    assert_ok(unroll_backtest(unroll_baseline_forecast, &last, y, LONG, LONG - TEST, 1, NULL, NULL, &naive, &err));
    if (!(score.rmse < 1.04 * optimum.rmse && score.rmse < naive.rmse))
      fail_msg("cell %d: RMSE %g, the process's own %g, naive %g", cell, score.rmse, optimum.rmse, naive.rmse);
    unroll_forecaster_destroy(f);
  }
}

/* What is held out decides nothing: not the statistics, not a loss, not the parameters. */
static void the_holdout_is_not_looked_at(void **state) {
  (void)state;
  static struct seen seen[2];
  double y[N], loss[2], mae[2];
  struct network net[2];
  for (int i = 0; i < 2; i++) {
    make_series(y, N);
    for (int t = N - HOLDOUT; t < N && i == 1; t++)
      y[t] = -1e6 * t;
    const unroll_forecaster_options o = variant(1);
    unroll_forecaster *f = new_forecaster(y, N, &o);
    run_to(f, 20, &seen[i]);
    assert_ok(unroll_forecaster_evaluate(f, &loss[i], &mae[i], &err));
    net[i] = network_of(f);
    unroll_forecaster_destroy(f);
  }
  assert_memory_equal(seen[0].losses, seen[1].losses, sizeof seen[0].losses);
  assert_true(loss[0] == loss[1] && mae[0] == mae[1]);
  for (int k = 0; k < PARAMETERS; k++)
    assert_memory_equal(net[0].p[k], net[1].p[k], (size_t)net[0].n[k] * sizeof(double));
}

static void an_ensemble_is_the_mean(void **state) {
  (void)state;
  static struct seen seen;
  unroll_forecaster *members[3];
  double y[N], out[3][6], mean[6];
  make_series(y, N);
  for (int i = 0; i < 3; i++) {
    unroll_forecaster_options o = variant(i == 2 ? 3 : 1);
    o.training.seed = (uint64_t)i;
    members[i] = new_forecaster(y, N, &o);
    run_to(members[i], 5, &seen);
    assert_ok(unroll_forecaster_forecast(members[i], y, N, 6, out[i], &err));
  }
  assert_true(fabs(out[0][3] - out[1][3]) > 1e-3);
  unroll_ensemble e = {members, 3};
  assert_ok(unroll_ensemble_forecast(&e, y, N, 6, mean, &err));
  for (int k = 0; k < 6; k++)
    close_to("mean", mean[k], (out[0][k] + out[1][k] + out[2][k]) / 3, 1e-12 * mean[k]);
  e.n = 0;
  assert_error(unroll_ensemble_forecast(&e, y, N, 6, mean, &err), UNROLL_E_INVALID, "has no member");
  assert_error(unroll_ensemble_forecast(NULL, y, N, 6, mean, &err), UNROLL_E_INVALID, "are NULL");
  unroll_forecaster *none[2] = {members[0], NULL};
  e = (unroll_ensemble){none, 2};
  assert_error(unroll_ensemble_forecast(&e, y, N, 6, mean, &err), UNROLL_E_INVALID, "member 1 is NULL");
  for (int i = 0; i < 3; i++)
    unroll_forecaster_destroy(members[i]);
}

/* ---- what is kept ---- */

static void resumed_is_the_same_as_straight(void **state) {
  (void)state;
  static struct seen straight, cut;
  double y[N], before[4], after[4], loaded_says[4];
  make_series(y, N);
  unroll_forecaster_options o = variant(3);
  o.rnn.cell = UNROLL_CELL_LSTM;
  o.rnn.layers = 2;
  o.rnn.dropout = 0.2;
  o.rnn.zoneout_h = 0.1;
  o.name = "a \"series\"";
  o.training.accumulate = 2;
  o.training.l2 = "linear.W=1e-3";
  o.training.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_EXPONENTIAL, .base = 0.02, .decay = 0.7};
  unroll_forecaster *f = new_forecaster(y, N, &o);
  run_to(f, 30, &straight);
  assert_ok(unroll_forecaster_save(f, in_folder("straight"), &err));
  assert_ok(unroll_forecaster_forecast(f, y, N, 4, after, &err));
  unroll_forecaster_destroy(f);

  f = new_forecaster(y, N, &o);
  run_to(f, 13, &cut);
  assert_ok(unroll_forecaster_forecast(f, y, N, 4, before, &err)); /* disturbs nothing */
  assert_ok(unroll_forecaster_save(f, in_folder("cut"), &err));
  unroll_forecaster_destroy(f);
  assert_ok(unroll_forecaster_load(&cpu, 1, in_folder("cut"), NULL, &f, &err));
  const unroll_forecaster_info info = unroll_forecaster_describe(f);
  assert_string_equal(info.options.name, "a \"series\"");
  assert_true(info.count == N && info.options.holdout == HOLDOUT && info.options.season == 4 &&
              info.options.horizon == 2 && info.options.lags == 5 && info.update == 13 && info.train_count == 0);
  assert_true(isnan(info.naive_mae));
  assert_ok(unroll_forecaster_forecast(f, y, N, 4, loaded_says, &err));
  assert_memory_equal(loaded_says, before, sizeof before);
  assert_error(unroll_forecaster_train(
                   f, &(unroll_train_options){.struct_size = sizeof(unroll_train_options), .updates = 30}, &err),
               UNROLL_E_STATE, "before it is resumed with its series");
  assert_ok(unroll_forecaster_resume(f, y, N, &err));
  assert_error(unroll_forecaster_resume(f, y, N, &err), UNROLL_E_STATE, "has its series already");
  run_to(f, 30, &cut);
  assert_memory_equal(straight.losses, cut.losses, 30 * sizeof(float));
  assert_memory_equal(straight.norms, cut.norms, 30 * sizeof(float));
  assert_ok(unroll_forecaster_save(f, in_folder("cut"), &err));
  assert_same_files(in_folder("straight"), in_folder("cut"));
  assert_ok(unroll_forecaster_forecast(f, y, N, 4, loaded_says, &err)); /* with the new parameters */
  assert_memory_equal(loaded_says, after, sizeof after);
  assert_true(fabs(after[0] - before[0]) > 1e-6);
  unroll_forecaster_destroy(f);
}

static void parts_make_the_same_update(void **state) {
  (void)state;
  static struct seen whole, cut;
  double y[N];
  make_series(y, N);
  for (int parts = 1; parts <= 4; parts += 3) {
    unroll_forecaster_options o = variant(1);
    o.rnn.cell = UNROLL_CELL_GRU;
    o.rnn.dropout = 0.2; /* masks belong to a window */
    o.training.accumulate = parts;
    unroll_forecaster *f = new_forecaster(y, N, &o);
    run_to(f, 30, parts == 1 ? &whole : &cut);
    unroll_forecaster_destroy(f);
  }
  for (int i = 0; i < 30; i++) { /* float32 sums in another order, over 30 updates of Adam */
    close_to("loss", (double)cut.losses[i], (double)whole.losses[i], 1e-4);
    close_to("metric", cut.metrics[i], whole.metrics[i], 1e-3);
  }
}

/* ---- what is refused ---- */

static void wrong_options(void **state) {
  (void)state;
  unroll_forecaster *f = NULL;
  double y[N], out[4], loss, mae;
  make_series(y, N);
#define REFUSED(field, value, status, words)                                                  \
  do {                                                                                        \
    unroll_forecaster_options o = toy();                                                      \
    o.field = value;                                                                          \
    assert_error(unroll_forecaster_create(&cpu, 1, y, N, &o, NULL, &f, &err), status, words); \
  } while (0)
  REFUSED(rnn.cell, 9, UNROLL_E_INVALID, "cell 9");
  REFUSED(rnn.hidden, 0, UNROLL_E_INVALID, "hidden 0");
  REFUSED(lags, 0, UNROLL_E_INVALID, "lags 0, it must be from 1 to 65536");
  REFUSED(horizon, 65537, UNROLL_E_INVALID, "horizon 65537");
  REFUSED(differences, 3, UNROLL_E_INVALID, "differences 3, it must be from 0 to 2");
  REFUSED(season, 1, UNROLL_E_INVALID, "season 1, it must be from 2 to 65536, or 0 for none");
  REFUSED(holdout, -1, UNROLL_E_INVALID, "holdout -1");
  REFUSED(training.batch, 0, UNROLL_E_INVALID, "batch 0");
  REFUSED(training.freeze, "none", UNROLL_E_INVALID, "no parameter's name fits 'none'");
  REFUSED(struct_size, 8, UNROLL_E_INVALID, "struct_size 8");
  REFUSED(holdout, N, UNROLL_E_RANGE, "holdout 90, but the series has 90 values");
  REFUSED(lags, N - HOLDOUT, UNROLL_E_RANGE,
          "79 values to train on, the last 11 held out: at least 80 are needed, for 79 lags, 0 differences");
  REFUSED(training.validation, 0.001, UNROLL_E_RANGE, "74 windows of the series 74 to train and 0 to validate");
#undef REFUSED
  unroll_forecaster_options o = toy();
  o.horizon = 4;
  o.training.validation = 0.99; /* the gap of the horizon takes the last window */
  assert_error(unroll_forecaster_create(&cpu, 1, y, N, &o, NULL, &f, &err), UNROLL_E_RANGE,
               "71 windows of the series 0 to train and 70 to validate");
  o = toy();
  o.rnn.hidden = 16384;
  o.training.batch = 65536;
  assert_error(unroll_forecaster_create(&cpu, 1, y, N, &o, NULL, &f, &err), UNROLL_E_INVALID, "past 2^31-1");
  o = toy();
  assert_error(unroll_forecaster_create(&cpu, 1, y, 0, &o, NULL, &f, &err), UNROLL_E_RANGE, "has 0 values");
  assert_error(unroll_forecaster_create(&cpu, 1, NULL, N, &o, NULL, &f, &err), UNROLL_E_INVALID, "y is NULL");
  assert_error(unroll_forecaster_create(NULL, 1, y, N, &o, NULL, &f, &err), UNROLL_E_INVALID, "no device");
  o.training.validation = 0;
  f = new_forecaster(y, N, &o);
  assert_error(unroll_forecaster_evaluate(f, &loss, &mae, &err), UNROLL_E_STATE, "validation is 0");
  assert_error(unroll_forecaster_forecast(f, y, 4, 1, out, &err), UNROLL_E_RANGE,
               "4 values, the model takes at least 5");
  assert_error(unroll_forecaster_forecast(f, y, N, 0, out, &err), UNROLL_E_RANGE, "0 steps ahead");
  assert_error(unroll_forecaster_forecast(f, NULL, N, 1, out, &err), UNROLL_E_INVALID, "y is NULL");
  y[N - 6] = (double)NAN; /* not looked at */
  assert_ok(unroll_forecaster_forecast(f, y, N, 4, out, &err));
  y[N - 5] = (double)NAN;
  assert_error(unroll_forecaster_forecast(f, y, N, 1, out, &err), UNROLL_E_RANGE, "y[85] is nan");
  unroll_forecaster_destroy(f);
  assert_error(unroll_forecaster_create(&cpu, 1, y, N, &o, NULL, &f, &err), UNROLL_E_RANGE,
               "y[84] is nan: holes must be filled before");
}

static const char *const keys[] = {"unroll.kind",     "unroll.format",   "unroll.version", "unroll.model",
                                   "unroll.training", "unroll.position", "unroll.data"};

static void wrong_files_and_series(void **state) {
  (void)state;
  double y[N];
  make_series(y, N);
  const unroll_forecaster_options o = variant(1);
  unroll_forecaster *f = new_forecaster(y, N, &o), *loaded = NULL;
  assert_ok(unroll_forecaster_save(f, in_folder("m"), &err));
  unroll_forecaster_destroy(f);
  unroll_lm *lm = NULL;
  assert_error(unroll_lm_load(&cpu, 1, in_folder("m"), NULL, &lm, &err), UNROLL_E_FORMAT,
               "another kind of file: unroll.kind is 'series forecaster', not 'character language model'");
  assert_error(unroll_forecaster_load(&cpu, 1, in_folder("none"), NULL, &loaded, &err), UNROLL_E_IO, "/none");
  static const struct {
    const char *key, *from, *to, *words;
  } cases[] = {
      {"unroll.kind", "series forecaster", "sequence classifier", "not 'series forecaster'"},
      {"unroll.model", "\"lags\":5", "\"lags\":0", "metadata: lags 0"},
      {"unroll.model", "\"season\":4", "\"season\":1", "metadata: season 1"},
      {"unroll.model", "\"differences\":1", "\"differences\":3", "metadata: differences 3"},
      {"unroll.model", "\"scaling\":\"standard\"", "\"scaling\":\"some\"", "scaling 'some' is none that is known"},
      {"unroll.model", "\"deviation\":", "\"deviation\":-", "metadata: deviation -"},
      {"unroll.model", "\"mean\":", "\"mead\":", "mead"},
      {"unroll.model", "\"horizon\":3", "\"horizon\":2", "tensor linear.W is f32 [3,7]"},
      {"unroll.training", "\"batch\":8", "\"batch\":0", "metadata: batch 0"},
      {"unroll.data", "\"holdout\":11", "\"holdout\":\"x\"", "unroll.data"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    change_metadata(keys, sizeof keys / sizeof keys[0], cases[i].key, cases[i].from, cases[i].to);
    assert_error(unroll_forecaster_load(&cpu, 1, in_folder("changed"), NULL, &loaded, &err), UNROLL_E_FORMAT,
                 cases[i].words);
  }
  assert_ok(unroll_forecaster_load(&cpu, 1, in_folder("m"), NULL, &loaded, &err));
  assert_error(unroll_forecaster_resume(loaded, y, N - 1, &err), UNROLL_E_STATE,
               "another series than the model was trained on: hash ");
  y[N - 1] += 1e-9;
  assert_error(unroll_forecaster_resume(loaded, y, N, &err), UNROLL_E_STATE, "of 90 values, the model's is ");
  y[N - 1] -= 1e-9;
  make_series(y, N);
  assert_ok(unroll_forecaster_resume(loaded, y, N, &err));
  unroll_forecaster_destroy(loaded);
}

struct data {
  double y[N];
  unroll_forecaster_options options;
};
static unroll_status make_one(void *ctx, const unroll_allocator *allocator) {
  const struct data *d = ctx;
  unroll_forecaster *f = NULL;
  const unroll_status status = unroll_forecaster_create(&cpu, 1, d->y, N, &d->options, allocator, &f, NULL);
  unroll_forecaster_destroy(f);
  return status;
}
static unroll_status use_one(void *ctx, const unroll_allocator *allocator) {
  const struct data *d = ctx;
  double out[4];
  unroll_forecaster *f = NULL;
  unroll_status status = unroll_forecaster_load(&cpu, 1, in_folder("m"), allocator, &f, NULL);
  if (status == UNROLL_OK)
    status = unroll_forecaster_forecast(f, d->y, N, 4, out, NULL);
  if (status == UNROLL_OK)
    status = unroll_forecaster_resume(f, d->y, N, NULL);
  if (status == UNROLL_OK)
    status = unroll_ensemble_forecast(&(unroll_ensemble){(unroll_forecaster *[]){f, f}, 2}, d->y, N, 4, out, NULL);
  if (status == UNROLL_OK)
    status = unroll_forecaster_save(f, in_folder("again"), NULL);
  unroll_forecaster_destroy(f);
  return status;
}
static void memory_runs_out(void **state) {
  (void)state;
  struct data d = {.options = variant(1)};
  make_series(d.y, N);
  d.options.rnn.hidden = 3;
  d.options.name = "y";
  unroll_forecaster *f = new_forecaster(d.y, N, &d.options);
  assert_ok(unroll_forecaster_save(f, in_folder("m"), &err));
  unroll_forecaster_destroy(f);
  memory_runs_out_of(make_one, &d, 60, 37);
  memory_runs_out_of(use_one, &d, 60, 37);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(forecasts_by_hand),
      cmocka_unit_test(losses_by_hand),
      cmocka_unit_test(an_update_is_the_gradient),
      cmocka_unit_test(follows_a_linear_process),
      cmocka_unit_test(the_holdout_is_not_looked_at),
      cmocka_unit_test(an_ensemble_is_the_mean),
      cmocka_unit_test(resumed_is_the_same_as_straight),
      cmocka_unit_test(parts_make_the_same_update),
      cmocka_unit_test(wrong_options),
      cmocka_unit_test(wrong_files_and_series),
      cmocka_unit_test(memory_runs_out),
  };
  return cmocka_run_group_tests(tests, begin, end);
}
