/* SPDX-License-Identifier: Apache-2.0 */
/* --watch: how a training goes, as curves above its progress bar. */
#ifndef WATCH_H
#define WATCH_H
#include <stdbool.h>
#include <stdint.h>
#include <unroll/train.h>

#include "radii.h"

#define WATCH_POINTS 512
enum { WATCH_LOSS, WATCH_NORM, WATCH_RADIUS, WATCH_SECONDS, WATCH_VALIDATION, WATCH_CURVES };

/* The mean of some updates in a row. */
typedef struct watch_point {
  double sum[WATCH_CURVES];
  uint32_t count[WATCH_CURVES]; /* that were there and finite */
} watch_point;

typedef struct watch {
  watch_point points[WATCH_POINTS];
  uint32_t n;
  uint64_t span, in_last;      /* updates of a point; it doubles where all points are full */
  uint64_t first, last;        /* updates that are drawn */
  uint64_t nonfinite;          /* losses and norms that were not */
  double latest[WATCH_CURVES]; /* NaN: none yet */
  double clip;                 /* 0: none */
  double pace;
  const char *pace_name; /* "chars" */
  char radius_of[80];    /* "rnn.W_h.0.0 f" */
} watch;

watch watch_start(double clip, const char *pace_name);
/* found: NULL where there are no new radii. */
void watch_add(watch *w, const unroll_train_progress *p, const radii *found);
/* The curves for the terminal as it is now, each line with an end; "" where it is too small. */
void watch_draw(const watch *w, char *text, size_t size);

#endif
