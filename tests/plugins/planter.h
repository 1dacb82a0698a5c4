/* SPDX-License-Identifier: Apache-2.0 */
/* What planter.c is told, through the address that dlsym has for "planter_plan". */
#ifndef PLANTER_H
#define PLANTER_H
#include <stdint.h>

typedef struct planter {
  const char *inner; /* the file of the plugin that does the work; NULL: the cpu backend linked in */
  int armed;
  const char *name; /* of the node; NULL: any */
  int top;          /* it is of no step, as a layer that is run whole is not */
  uint32_t op;      /* of a step's node: UNROLL_OP_*; */
  int32_t kind;     /* of an UNARY or BINARY, a MATMUL's trans_b; else -1 */
  int64_t width;    /* of its output's last axis; 0: any */
  uint32_t output;  /* which one */
  int32_t layer, direction;
  int64_t t, element; /* the step in memory; which number of that step's output */
  float value;
  uint64_t update; /* in runs of this update alone, UINT64_MAX: in all; */
  int64_t row0;    /* and whose first row of the whole batch is this; -1: any */
  int hits;        /* how often it was planted */
} planter;

#endif
