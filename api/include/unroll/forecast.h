/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/forecast.h: forecasters of a time series, a neural autoregression: train, save, resume, forecast, backtest.
 *
 *     unroll_forecaster_options options = unroll_forecaster_options_default();
 *     options.lags = 9;
 *     options.holdout = 88;
 *     unroll_forecaster *f;
 *     unroll_forecaster_create(&device, 1, y, n, &options, NULL, &f, &err);
 *     unroll_train_options run = {.struct_size = sizeof run, .epochs = 60, .progress = show};
 *     unroll_forecaster_train(f, &run, &err);
 *     unroll_forecaster_save(f, "sunspots.safetensors", &err);
 *     unroll_forecaster_forecast(f, y, n, 12, next, &err);
 *     const unroll_ensemble ensemble = {.members = &f, .n = 1};
 *     unroll_backtest(unroll_ensemble_forecast, &ensemble, y, n, n - 88, 1, NULL, NULL, &score, &err);
 *     unroll_forecaster_destroy(f);
 *
 * x_t = f(x_{t-1}, ..., x_{t-p}) + ε_t: the p = lags values before t go, one a step, the oldest first, through
 * recurrent layers; of the last state a linear layer makes the next H = horizon values. What is minimised is their
 * mean squared error. x_t is the series y_t, or of it d = differences differences and one over a season s,
 *
 *     x_t = (1 - B)^d (1 - B^s) y_t,    B y_t = y_{t-1}      (Box & Jenkins 1970)
 *
 * standardised by the training part. What comes out is brought back to y.
 *
 * Of n values the last `holdout` are not looked at; of the windows before, the last ones, by the validation's share,
 * are not trained on, and begin to foretell where the targets of the others end. Every epoch has each window of the
 * rest once, in an order that is a function of seed and epoch. A run that was saved and resumed gives the same losses
 * as one that was not (the same bits on "cpu"). Statuses beside those named: as in train.h.
 */
#ifndef UNROLL_FORECAST_H
#define UNROLL_FORECAST_H
#include <unroll/series.h>
#include <unroll/train.h>
#ifdef __cplusplus
extern "C" {
#endif

/* What decides a training run's numbers, kept in the model's file. */
typedef struct unroll_forecaster_options {
  uint32_t struct_size;
  int32_t unscaled;     /* not 0: the network reads and says x_t itself, not (x_t - mean)/deviation */
  unroll_recurrent rnn; /* its dropout also of the last state */
  int64_t lags;         /* p, 1 to 65536 */
  int64_t horizon;      /* H, 1 to 65536 */
  int64_t differences;  /* d, 0 to 2 */
  int64_t season;       /* s, 2 to 65536; 0: no difference over a season */
  int64_t holdout;      /* values at the end of the series that are neither trained on nor validated with, 0 or more */
  const char *name;     /* of the series, for people; copied; NULL: none */
  /* Its batch is that of windows; batch times lags times the widest tensor is below 2^31. */
  unroll_training training;
} unroll_forecaster_options;
/* gru, 1 layer of 16, lags 12, horizon 1, no differences, no season, no holdout, unroll_training_default(). [any] */
UNROLL_API unroll_forecaster_options unroll_forecaster_options_default(void);

/* A model with its device side. All of its functions are [obj]. */
typedef struct unroll_forecaster unroll_forecaster;

/*
 * A new model with its initial parameters, ready to train on y [n], which is copied. The devices are those of
 * unroll_compile, in that order, and outlive the model.
 *   UNROLL_E_RANGE  a value that is not finite: which; too few values before the holdout: how many it takes; no window
 *                   left to train or to validate with
 */
UNROLL_API unroll_status unroll_forecaster_create(unroll_device *const *devices, uint32_t n_devices, const double *y,
                                                  int64_t n, const unroll_forecaster_options *options,
                                                  const unroll_allocator *allocator, unroll_forecaster **forecaster,
                                                  unroll_error *err);
/* A model from its file, ready to forecast; unroll_forecaster_resume makes it ready to train. Errors as those of
 * unroll_lm_load; a file of another kind of model is UNROLL_E_FORMAT. */
UNROLL_API unroll_status unroll_forecaster_load(unroll_device *const *devices, uint32_t n_devices, const char *path,
                                                const unroll_allocator *allocator, unroll_forecaster **forecaster,
                                                unroll_error *err);
/* Makes a loaded model ready to go on training where it was saved. UNROLL_E_STATE: another series than it was
 * trained on, or it has one already. */
UNROLL_API unroll_status unroll_forecaster_resume(unroll_forecaster *forecaster, const double *y, int64_t n,
                                                  unroll_error *err);
/* As unroll_lm_save. */
UNROLL_API unroll_status unroll_forecaster_save(unroll_forecaster *forecaster, const char *path, unroll_error *err);
UNROLL_API void unroll_forecaster_destroy(unroll_forecaster *forecaster); /* NULL does nothing */

typedef struct unroll_forecaster_info {
  uint32_t struct_size, reserved;
  unroll_forecaster_options options;     /* as they are in use; texts live as long as the model */
  int64_t count;                         /* n, of the series it is trained on */
  int64_t least;                         /* values that a forecast takes: lags + differences + season */
  double mean, deviation;                /* of x over the training part; 0 and 1 where it is not scaled */
  int64_t train_count, validation_count; /* windows; 0 in a model that was not resumed, as what is below */
  /* What unroll_forecaster_evaluate would find, were y_{t+k} always foretold as y_{t-1}: the baseline. NaN: there is no
   * validation part, or the model was not resumed. */
  double naive_loss, naive_mae;
  uint64_t update;       /* updates done so far, over all runs */
  uint64_t n_parameters; /* numbers that are trained */
  uint64_t updates_per_epoch;
  double best_validation_loss; /* NaN: not evaluated yet */
  uint64_t best_update;        /* when that was */
} unroll_forecaster_info;
UNROLL_API unroll_forecaster_info unroll_forecaster_describe(const unroll_forecaster *forecaster);

/*
 * As unroll_lm_train, unroll_lm_set_schedule and unroll_lm_learning_rate. Losses are mean squared errors of what the
 * network says, standardised where it is; the metric is the mean absolute error in the series' own unit, with horizon
 * 1 that of y one step ahead, above it that of x.
 */
UNROLL_API unroll_status unroll_forecaster_train(unroll_forecaster *forecaster, const unroll_train_options *options,
                                                 unroll_error *err);
UNROLL_API unroll_status unroll_forecaster_set_schedule(unroll_forecaster *forecaster, const unroll_schedule *schedule,
                                                        unroll_error *err);
UNROLL_API double unroll_forecaster_learning_rate(const unroll_forecaster *forecaster, uint64_t update);
/* Loss and metric of the validation part, without dropout. UNROLL_E_STATE: there is none, or not ready to train. */
UNROLL_API unroll_status unroll_forecaster_evaluate(unroll_forecaster *forecaster, double *loss, double *mae,
                                                    unroll_error *err);

/*
 * The h values after y [n] into out [h]: H at a time, each H after the first from those before as if they were values.
 * Only the last info.least values of y are looked at; they need not be of the series that it was trained on. Also of a
 * model that was not resumed; training is not disturbed.
 *   UNROLL_E_RANGE  h below 1; n below info.least; one of those values is not finite
 */
UNROLL_API unroll_status unroll_forecaster_forecast(unroll_forecaster *forecaster, const double *y, int64_t n,
                                                    int64_t h, double *out, unroll_error *err);

/* Forecasters of one series, such as those of several seeds. */
typedef struct unroll_ensemble {
  unroll_forecaster *const *members; /* [n], ready as unroll_forecaster_forecast wants them */
  uint32_t n;                        /* at least 1 */
} unroll_ensemble;
/*
 * The mean of what its members foretell, each from its own forecasts. An unroll_forecast, also for unroll_backtest;
 * ctx: a const unroll_ensemble *. [obj] of its members. UNROLL_E_INVALID: no member, or one that is NULL.
 */
UNROLL_API unroll_status unroll_ensemble_forecast(const void *ctx, const double *y, int64_t n, int64_t h, double *out,
                                                  unroll_error *err);

#ifdef __cplusplus
}
#endif
#endif
