/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of `unroll diagnose`. Each adds its section to the report and its figures to those of the verdict, or says
 * in "missing" why it could not. Numbers of the report that are not finite are the texts "inf", "-inf" and "nan".
 */
#ifndef DIAGNOSIS_H
#define DIAGNOSIS_H
#include <unroll/activity.h>
#include <unroll/finite.h>
#include <unroll/verdict.h>

#include "commands.h"
#include "layer_view.h"
#include "pair_options.h"
#include "series_options.h"

typedef struct diagnose_values {
  option_marks marks;
  common_values common;
  sequence_values data;
  series_values series;
  pair_values pairs;
  const char *model, *text, *out, *training;
  int64_t sequences, steps, starts, exponents, exponent_steps, units, jacobian, seed;
  bool force, no_page;
} diagnose_values;

/* Sequences as the first recurrent layer reads them. */
typedef struct diagnose_data {
  const char *path;
  int64_t n, width;    /* sequences, numbers a step */
  int64_t *lengths;    /* [n] */
  double **x;          /* [n] of [length,width] */
  int64_t steps;       /* over which the model is meant to remember: T */
  char **tokens;       /* [lengths[0]] of the first one, or NULL */
  char **texts;        /* [n] the sources of a translator, or NULL */
  char **target_texts; /* [n] and their targets */
  int32_t *targets;    /* [longest,n] of a language model, what comes next, -1: nothing; or NULL */
} diagnose_data;

typedef struct layer_activity { /* what a layer did */
  const layer_view *layer;
  const unroll_activity_layer *of;
} layer_activity;

typedef struct diagnosis {
  const diagnose_values *values;
  model_view model;
  diagnose_data data;
  network_view network; /* of the first stack, which reads the data: */
  int64_t T;            /* their longest sequence */
  double *x;            /* [T,n,width] */
  int32_t *lengths;
  unroll_activity *activity;
  layer_activity *activities; /* [n_activities], of that stack's layers */
  size_t n_activities;
  unroll_layer_figures *figures; /* [model.n] */
  double *spectra;               /* [model.n,2]: radius and norm of each layer's main matrix; NaN: not known */
  int64_t nonfinite;             /* numbers of the whole network; -1: not looked for */
  char nonfinite_first[UNROLL_NONFINITE_TEXT];
  json_t *report, *missing;
  unroll_context *ctx; /* see diagnose_device */
  unroll_device *device;
  bool device_failed;
} diagnosis;

/* "nan" and the like, or the number with so many significant digits. */
json_t *diagnose_number(double value);
json_t *diagnose_numbers(const double *values, int64_t n);
/* Says so on stderr. Returns false. */
bool diagnose_no_memory(void);
/* Adds to "missing"; why: a format. */
__attribute__((format(printf, 3, 4))) void diagnose_missing(diagnosis *d, const char *section, const char *why, ...);
/* That of --device, opened at the first call. NULL: said on stderr. */
unroll_device *diagnose_device(diagnosis *d);
/* The same where it computes in f64; else NULL, for the cpu reference. The report says which. */
unroll_device *diagnose_double_device(diagnosis *d);
/* Was an end asked for? As callbacks have it. */
int diagnose_cancel(void *ctx);
unroll_layer_figures *diagnose_figures(diagnosis *d, const layer_view *layer);

/* diagnose_data.c. false: said on stderr. */
bool diagnose_read_data(diagnosis *d);
void diagnose_free_data(diagnose_data *data);

/* diagnose_activity.c: the network run over the data. false: said on stderr. */
bool diagnose_trace(diagnosis *d);
void diagnose_free_activities(diagnosis *d);
/* Of sequence i at step t, counted in the direction in which the layer reads: x [I], gates [G,H]; its state [n]. */
const double *activity_x(const diagnosis *d, const layer_activity *a, int64_t i, int64_t t);
const double *activity_gates(const diagnosis *d, const layer_activity *a, int64_t i, int64_t t);
void activity_state(const diagnosis *d, const layer_activity *a, int64_t i, int64_t t, double *state);
void diagnose_gates(diagnosis *d);
void diagnose_units(diagnosis *d);

void diagnose_nonfinite(diagnosis *d);    /* diagnose_nonfinite.c */
void diagnose_spectra(diagnosis *d);      /* diagnose_spectra.c */
void diagnose_fixed_points(diagnosis *d); /* diagnose_dynamics.c */
void diagnose_lyapunov(diagnosis *d);     /* diagnose_dynamics.c */
void diagnose_attention(diagnosis *d);    /* diagnose_attention.c */
void diagnose_gradient(diagnosis *d);     /* diagnose_gradient.c */
void diagnose_decoder(
    diagnosis *d); /* diagnose_decoder.c: to the gates and gradients that are there. No section of its own */
void diagnose_training(diagnosis *d); /* diagnose_training.c */
void diagnose_cost(diagnosis *d);     /* diagnose_report.c */

/* diagnose_report.c */
bool diagnose_begin_report(diagnosis *d);
void diagnose_verdict(diagnosis *d);
/* OUT/report.json, the old one or the new one whole. false: said on stderr. */
bool diagnose_write_report(const diagnosis *d);
/* OUT/report.html and OUT/plots. false: said on stderr. */
bool diagnose_draw(const diagnosis *d);
void diagnose_print_summary(const diagnosis *d);

#endif
