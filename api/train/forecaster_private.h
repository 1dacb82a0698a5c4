/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a forecaster, a task of the trainer. */
#ifndef FORECASTER_PRIVATE_H
#define FORECASTER_PRIVATE_H
#include <unroll/datasets.h>
#include <unroll/forecast.h>

#include "train/trainer.h"

/* Windows in batches, and room for one batch. */
struct forecaster_set {
  unroll_batches *batches; /* of places in x: where a window begins */
  int64_t rows;
  float *x, *target, *known; /* [p,rows,1], [rows,H], [rows,H]: 1, or 0 in rows without a window */
};

struct unroll_forecaster {
  struct trainer trainer;
  unroll_forecaster_options options; /* training: see the trainer's */
  char *name;
  double mean, deviation;
  int64_t count;
  uint64_t data_hash;

  float *x; /* [fitted], of the values before the holdout, standardised; NULL: no series */
  int64_t n_train, n_validation;
  double naive_loss, naive_mae;
  struct forecaster_set train, validation;
  uint64_t epoch; /* which train.batches were started for */

  struct trainer_program forecast; /* of one window */
};

/* Values of y that one of x takes beside its own: d + s. */
static inline int64_t forecaster_lost(const unroll_forecaster_options *o) { return o->differences + o->season; }

/* ---- options, graphs ---- */
unroll_status forecaster_options_check(const unroll_forecaster_options *o, unroll_error *err);
/* The options as they are in use. */
unroll_forecaster_options forecaster_options_in_use(const unroll_forecaster *f);
struct trainer_loss forecaster_build(const void *owner, struct trainer_build *b);
/* What the network says of one window as an output "next". */
unroll_status forecaster_graph_forecast(const unroll_forecaster *f, unroll_graph **graph, unroll_error *err);

/* ---- data ---- */
/*
 * x_t = Σ c_i·y_{t-i}, i from 0 to `lost`: the coefficients of (1 - B)^d (1 - B^s), c_0 = 1. NULL: no memory.
 */
double *forecaster_filter(const unroll_forecaster_options *o, const unroll_allocator *a);
uint64_t forecaster_data_hash(const double *y, int64_t n);
/* Parts, statistics of a new model (or else those of the file), batches. Leaves f as it was on failure. */
unroll_status forecaster_attach(unroll_forecaster *f, const double *y, int64_t n, bool is_new, unroll_error *err);
void forecaster_detach(unroll_forecaster *f);
unroll_status forecaster_feed(void *owner, const struct trainer_place *place, unroll_binding *b,
                              struct trainer_feed *feed, unroll_error *err);
unroll_status forecaster_feed_evaluation(void *owner, uint64_t index, unroll_binding *b, struct trainer_feed *feed,
                                         unroll_error *err);
uint64_t forecaster_epoch_updates(const void *owner, uint64_t epoch);

/* ---- life, file ---- */
unroll_status forecaster_begin(unroll_device *const *devices, uint32_t n_devices, const unroll_allocator *allocator,
                               unroll_forecaster **out, unroll_error *err);
unroll_status forecaster_metadata_write(const void *owner, unroll_safetensors_writer *writer, unroll_error *err);

#endif
