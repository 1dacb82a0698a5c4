/* SPDX-License-Identifier: Apache-2.0 */
#include "gradcheck.h"
#include "graph/graph_private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- building ---- */

uint64_t grad_random(uint64_t *state) { /* SplitMix64 (Steele, Lea, Flood 2014) */
  uint64_t z = *state += 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return z ^ z >> 31;
}

static grad_input *add_input(grad_build *b, const char *name, int32_t rank, const int64_t *shape) {
  assert_in_range(b->n_inputs, 0, GRAD_INPUTS - 1);
  grad_input *in = &b->inputs[b->n_inputs++];
  *in = (grad_input){.n = 1};
  if (name)
    snprintf(in->name, sizeof in->name, "%s", name);
  else
    snprintf(in->name, sizeof in->name, "x%u", b->n_inputs - 1);
  for (int32_t i = 0; i < rank; i++)
    in->n *= shape[i] < 0 ? b->run_time : shape[i];
  return in;
}

/* A shuffled grid, another offset for each input: no two values are close, and none is 0 or another one that would make the
 * differences step over a kink. */
static void fill(const grad_build *b, grad_input *in, double lo, double hi) {
  uint64_t state = b->n_inputs;
  in->values = malloc((size_t)in->n * sizeof *in->values);
  assert_non_null(in->values);
  for (int64_t i = 0; i < in->n; i++) {
    in->values[i] = lo + (hi - lo) * ((double)i + 0.07 + 0.041 * (double)b->n_inputs) / ((double)in->n + 0.5);
    const int64_t k = (int64_t)(grad_random(&state) % (uint64_t)(i + 1));
    const double v = in->values[i];
    in->values[i] = in->values[k];
    in->values[k] = v;
  }
}

unroll_tensor grad_data(grad_build *b, double lo, double hi, int32_t rank, const int64_t *shape) {
  grad_input *in = add_input(b, NULL, rank, shape);
  fill(b, in, lo, hi);
  return in->tensor = unroll_input(b->g, in->name, UNROLL_F64, rank, shape);
}
unroll_tensor grad_real(grad_build *b, double lo, double hi, int32_t rank, const int64_t *shape) {
  const unroll_tensor x = grad_data(b, lo, hi, rank, shape);
  b->inputs[b->n_inputs - 1].wanted = true;
  return x;
}
void grad_adopt(grad_build *b, const char *name, double lo, double hi) {
  const unroll_tensor x = unroll_graph_find(b->g, name);
  const unroll_tensor_info info = unroll_tensor_describe(x);
  if (info.rank < 0)
    fail_msg("the graph has no %s", name);
  grad_input *in = add_input(b, name, info.rank, info.shape);
  fill(b, in, lo, hi);
  in->tensor = x;
  in->wanted = true;
}
unroll_tensor grad_integers(grad_build *b, const int32_t *values, int32_t rank, const int64_t *shape) {
  grad_input *in = add_input(b, NULL, rank, shape);
  in->integers = malloc((size_t)in->n * sizeof *values);
  assert_non_null(in->integers);
  memcpy(in->integers, values, (size_t)in->n * sizeof *values);
  return in->tensor = unroll_input(b->g, in->name, UNROLL_I32, rank, shape);
}
void grad_result(grad_build *b, unroll_tensor x) {
  assert_in_range(b->n_results, 0, GRAD_RESULTS - 1);
  b->results[b->n_results++] = x;
}

void grad_release(grad_build *b) {
  unroll_graph_destroy(b->g);
  for (uint32_t i = 0; i < b->n_inputs; i++) {
    free(b->inputs[i].values);
    free(b->inputs[i].integers);
  }
}

/* ---- what cases cover ---- */

void grad_see(grad_seen *seen, const unroll_graph *g) {
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const node *n = &g->nodes[i];
    seen->op[n->op] = true;
    if (n->op == UNROLL_OP_UNARY)
      seen->unary[n->attr.unary.kind] = true;
    if (n->op == UNROLL_OP_BINARY)
      seen->binary[n->attr.binary.kind] = true;
    if (n->op == UNROLL_OP_REDUCE)
      seen->reduction[n->attr.reduce.kind] = true;
    if (n->body)
      grad_see(seen, n->body);
  }
}

static bool covered(const grad_seen *seen, const char *name) {
#define LOOK_UP(of, code, text) \
  if (strcmp(name, #code) == 0) \
    return seen->of[code];
#define OP(code, value, text) LOOK_UP(op, code, text)
#define UNARY(code, value, text) LOOK_UP(unary, code, text)
#define BINARY(code, value, text) LOOK_UP(binary, code, text)
  UNROLL_OPS(OP)
  UNROLL_UNARIES(UNARY)
  UNROLL_BINARIES(BINARY)
#undef LOOK_UP
#undef OP
#undef UNARY
#undef BINARY
  fail_msg("%s is no op, unary or binary", name);
  return false;
}

int grad_uncovered(const char *rules, const grad_seen *seen, bool (*exempt)(const char *name)) {
  const char *root = getenv("UNROLL_SOURCE_DIR");
  char path[4096], line[1024];
  if (root)
    snprintf(path, sizeof path, "%s/%s", root, rules);
  else
    snprintf(path, sizeof path, "%.*s/../../%s", (int)(strrchr(__FILE__, '/') - __FILE__), __FILE__, rules);
  FILE *f = fopen(path, "r");
  assert_non_null(f);
  int n = 0, missing = 0;
  while (fgets(line, sizeof line, f)) {
    char name[64];
    if (sscanf(line, " case %63[A-Z_0-9]:", name) != 1 || strncmp(name, "UNROLL_", 7) != 0 ||
        strcmp(name, "UNROLL_SUM") == 0 || strcmp(name, "UNROLL_SUM_SQUARES") == 0)
      continue;
    n++;
    if (!exempt(name) && !covered(seen, name)) {
      print_error("%s has a rule, and no case\n", name);
      missing++;
    }
  }
  fclose(f);
  assert_int_equal(missing, 0);
  return n;
}
