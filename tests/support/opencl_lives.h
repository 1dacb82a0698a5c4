/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opencl_lives.h: the life of a small network that is trained on an OpenCL device, from the context to the end, with
 * shims/cl_faults.c between the OpenCL loader and the driver. What is wrong is printed and counted, so that a test
 * shows all of it: it ends with assert_int_equal(n_wrong, 0).
 */
#ifndef OPENCL_LIVES_H
#define OPENCL_LIVES_H
#include "runs.h"
#include "shims/cl_faults.h"

extern cl_faults *f;       /* the layer's; NULL where it is not there */
extern run_log seen;       /* warnings and errors of the last life */
extern const training net; /* what is trained */

enum { CREATE, OPEN, COMPILE, BIND, FILL, RUN, SYNC, READ, CLOSE, PHASES };
extern const char *const phase_names[PHASES];

/* ---- numbers by tensor ---- */
enum { MOST_TENSORS = 64, MOST_NUMBERS = 4096 };
typedef struct values {
  uint32_t n;
  struct {
    char name[64];
    uint32_t at, bytes;
  } of[MOST_TENSORS];
  float numbers[MOST_NUMBERS]; /* or integers */
} values;

/* ---- what is wrong ---- */
extern int n_wrong;
extern char during[160]; /* which fault */
void start_checks(const char *what);
void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
void check_values(const values *got, const values *want, float tolerance); /* in units of a tensor's largest value */
void check_status(unroll_status want, unroll_status got, const unroll_error *err);

/* ---- a life: goes as far as it gets ---- */
typedef struct setting {
  unroll_option options[4];
  uint32_t n_options;
  bool profile;
  bool fallback; /* what the device can't compile runs on the reference */
  int updates;   /* 0: two */
} setting;

typedef struct life {
  const setting *with;
  unroll_graph *g;
  const values *in;
  unroll_context *ctx;
  unroll_device *device;
  unroll_executable *e;
  unroll_binding *b;
  values out;
  run_memory memory;
  unroll_allocator allocator;
} life;

life life_of(const setting *with);
unroll_status life_open(life *x, unroll_error *err);
unroll_status life_compile(life *x, unroll_error *err);
/* Binds where it is not bound; updates, two of them, from the same numbers, whatever was there before; x->out. */
unroll_status life_run(life *x, unroll_error *err);
unroll_status life_live(life *x, unroll_error *err); /* all of these */
void life_close(life *x);
void check_nothing_left(const life *x); /* of the host's memory, and of OpenCL's objects */

void disarm(void);                      /* no fault, no lie */
values clean_life(const setting *with); /* in which nothing fails; leaves the trace of its calls */

int lives_open(void **state); /* group setup and teardown */
int lives_close(void **state);
void need_device(void); /* skips where there is none, no layer, or a loader without layers */
#endif
