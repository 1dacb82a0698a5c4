/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tune.h: choices that are measured on the device instead of modelled: how a layer's work is divided (tune.c, tune_trial.c,
 * and tune_groups.c where work-groups share it), how products are made where CLBlast makes them (tune_product.c), and where
 * the answers are kept (tune_store.c).
 *
 * An answer is a line of text, "KEY -> VALUE". A layer's answers all lead to the same bits, whichever is taken.
 */
#ifndef UNROLL_OPENCL_TUNE_H
#define UNROLL_OPENCL_TUNE_H
#include "layer.h"

enum { TUNE_LINE = 256 }; /* characters of a key or a value, with the last 0 */

/* A device's answers. Guarded by its own lock: who holds it may compile and run trials. */
typedef struct tune_line {
  char *key, *value;
  bool fresh; /* of this process: the file may not have it yet */
} tune_line;

typedef struct tune_lines {
  tune_line *lines;
  uint32_t n, room;
} tune_lines;

struct tuning {
  pthread_mutex_t lock;
  bool loaded;
  char *path, *head;        /* of the file; NULL: nothing is kept */
  tune_lines kept, shipped; /* measured here, and what came with the backend for such a device */
  bool clblast[2];          /* f32, f64: what was found is in force */
};

/* ---- lines (tune_store.c); the caller holds the lock ---- */
void tune_load(unroll_backend_device *d);
const tune_line *tune_find(const tune_lines *lines, const char *key);
/* Keeps the line, and writes the file. */
void tune_put(unroll_backend_device *d, const char *key, const char *value);
/* "opencl: tuning (HOW): KEY -> VALUE" */
void tune_say(unroll_backend_device *d, int32_t level, const char *how, const char *key, const char *value);
enum { TUNE_DIGITS = 5, TUNE_SIZE_DIGITS = 18 }; /* at most, of a number of a value, and of a size in a key */
/* Takes NAME and a number without a sign off the text; false: it does not begin like that. */
bool tune_number(const char **text, const char *name, size_t digits, int64_t *number);

/* ---- layers (tune.c) ---- */
typedef struct tune_task { /* what layer_divide was asked for, and what trials have to be like */
  int64_t gates, k;
  int phases;
  bool backward, save, hoisted;
} tune_task;

/* The split to take: the trial's own, one that was measured, or the model's. */
layer_split tune_layer(plan *p, const layer *l, layer_split model, const tune_task *task);

/* ---- trials (tune_trial.c) ---- */
enum { TUNE_RUNS = 64 };

typedef struct tune_trial {
  layer_split split; /* of a layer, */
  int32_t product;   /* of a product */
  unroll_backend_exec *exec;
  unroll_backend_binding *binding;
  bool failed;
  double best; /* ns of a step, 0: it could not be run */
  uint32_t n_runs;
  double runs[TUNE_RUNS]; /* in the order of turns */
} tune_trial;

typedef struct tune_limits {
  int64_t steps;           /* of the time axis */
  double timing, building; /* ns: of all runs; and after which no further trial is built */
  int rounds;              /* TUNE_RUNS at most */
} tune_limits;

/* Times the current node with each trial's split. */
void tune_time(plan *p, const layer *l, tune_trial *trials, uint32_t n, const tune_limits *limits);
/* Times a product of these sizes, of matrices without gaps. */
void tune_time_product(plan *p, const gemm *g, tune_trial *trials, uint32_t n, const tune_limits *limits);
double tune_now(void); /* ns */

/* ---- layers of work-groups (tune_groups.c) ---- */
/* The model's own first. building: ns after which no further kernels are built. */
uint32_t tune_group_trials(const plan *p, const layer *l, const layer_split *model, tune_trial *trials, uint32_t most,
                           double building);
double tune_group_cost(const layer *l, const layer_split *s); /* cycles of a step, roughly */
void tune_write_groups(const layer *l, const layer_split *s, char *text);
/* false: it makes no sense for this layer, or the device does not take it. */
bool tune_read_groups(const char *value, const plan *p, const layer *l, const layer_split *model, layer_split *s,
                      bool *thorough);

/* ---- products (tune_product.c) ---- */
/* What was found for CLBlast is in force from here on. The caller holds no lock of the device's. */
void tune_clblast(unroll_backend_device *d, int32_t dtype);
/* Whether kernels/matmul_tile.cl is quicker than CLBlast for such a product on this device. */
bool tune_prefers_tiles(plan *p, const gemm *g);
#endif
