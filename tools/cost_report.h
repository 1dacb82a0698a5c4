/* SPDX-License-Identifier: Apache-2.0 */
/* What a network costs, in one struct: what `unroll cost` prints, and the section "cost" of a report. */
#ifndef COST_REPORT_H
#define COST_REPORT_H
#include <jansson.h>
#include <stdbool.h>
#include <unroll/cost.h>

enum { COST_MOST_STEPS = 16 };

/* What is asked beside the batch: memory for so many numbers of steps. 0 of k1, k2 and heads as in unroll/cost.h. */
typedef struct cost_asked {
  int64_t steps, batch; /* 0: the model's own */
  int64_t at[COST_MOST_STEPS];
  uint32_t n_at; /* 0: T, 4·T, 16·T, 64·T */
  int64_t k1, k2, heads;
} cost_asked;

typedef struct cost_report {
  const char *task; /* "language model" */
  unroll_cost forward, update;
  bool has_optimizer;
  unroll_cost_layers layers;
  int64_t layer_parameters, first_parameters; /* of the recurrent layers; of layer 0 in one direction */
  char formula[160];                          /* of the latter */
  int64_t k1, k2, heads;
  unroll_cost_memory memory[COST_MOST_STEPS];
  uint32_t n_memory; /* 0: no_memory says why */
  unroll_error no_memory;
} cost_report;

/* Of a file that 'unroll train' wrote. */
unroll_status cost_of_file(const char *path, const cost_asked *asked, cost_report *report, unroll_error *err);
/* Of layers: forward, update and layers are there. Adds what follows from them. */
unroll_status cost_of_layers(const cost_asked *asked, cost_report *report, unroll_error *err);
/* NULL: out of memory */
json_t *cost_to_json(const cost_report *report);
void cost_print(const cost_report *report, const char *name);

#endif
