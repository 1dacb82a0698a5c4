/* SPDX-License-Identifier: Apache-2.0 */
/* gradcheck.h: graphs whose gradients are compared with central differences, and whose tangents with PyTorch's. */
#ifndef GRADCHECK_H
#define GRADCHECK_H
#include "devices.h"
#include <unroll/nn.h>

#define GRAD_INPUTS 24
#define GRAD_RESULTS 8
#define GRAD_NAME 48

typedef struct grad_input {
  char name[GRAD_NAME];
  unroll_tensor tensor;
  bool wanted;       /* its gradient is compared */
  double *values;    /* n of them; or */
  int32_t *integers; /* n of these */
  int64_t n;
} grad_input;

typedef struct grad_build {
  unroll_graph *g;
  int64_t run_time; /* value of the run-time size, where the graph has one */
  grad_input inputs[GRAD_INPUTS];
  unroll_tensor results[GRAD_RESULTS];
  uint32_t n_inputs, n_results;
} grad_build;

typedef struct grad_case {
  const char *name;
  void (*build)(grad_build *b);
} grad_case;
extern const grad_case grad_op_cases[], grad_scan_cases[]; /* up to a name of NULL */

/* rank and shape of a call below */
#define SHAPE(...) \
  (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]) { __VA_ARGS__ }
#define SCALAR 0, NULL

/* f64 inputs with values between lo and hi, on a shuffled grid: whose gradient is compared, and whose is not asked for */
unroll_tensor grad_real(grad_build *b, double lo, double hi, int32_t rank, const int64_t *shape);
unroll_tensor grad_data(grad_build *b, double lo, double hi, int32_t rank, const int64_t *shape);
/* Likewise for a parameter that a layer has made. */
void grad_adopt(grad_build *b, const char *name, double lo, double hi);
unroll_tensor grad_integers(grad_build *b, const int32_t *values, int32_t rank, const int64_t *shape);
/* The loss depends on x. */
void grad_result(grad_build *b, unroll_tensor x);
void grad_release(grad_build *b); /* the graph and all values */

/* SplitMix64 (Steele, Lea, Flood 2014). */
uint64_t grad_random(uint64_t *state);

/* The ops, and kinds of them, that graphs have. */
typedef struct grad_seen {
  bool op[UNROLL_OP_END], unary[UNROLL_UNARY_COUNT], binary[UNROLL_BINARY_COUNT], reduction[UNROLL_REDUCTION_COUNT];
} grad_seen;
void grad_see(grad_seen *seen, const unroll_graph *g);
/* Fails where a name after "case" in a file of rules is not seen and not exempt. Returns how many such names there are. */
int grad_uncovered(const char *rules, const grad_seen *seen, bool (*exempt)(const char *name));
#endif
