/* SPDX-License-Identifier: Apache-2.0 */
/* walk.c: marks gone through in the order of the computation. */
#include "finite/finite_private.h"

int64_t order_steps(const struct order *o, const struct probe *x) {
  return x->stepwise ? probed_extent(o->p->graph, &x->spec, o->dims, o->n_dims) : 1;
}

uint64_t order_rows(const struct order *o, const struct probe *x) {
  const int32_t rank = x->spec.rank - x->reduced;
  uint64_t rows = x->stepwise || rank == 0 ? 1 : (uint64_t)probed_extent(o->p->graph, &x->spec, o->dims, o->n_dims);
  for (int32_t i = 1; i < rank; i++)
    rows *= (uint64_t)x->spec.shape[i];
  return rows;
}

bool order_is_past(const struct order *o, const struct probe *x, int64_t step, uint64_t row) {
  if (x->lengths == GRAPH_NONE || x->spec.rank < 2)
    return false;
  const tensor_spec *s = &o->p->graph->tensors[o->p->lengths[x->lengths]].spec;
  if (s->rank != 1 || s->shape[0] != x->spec.shape[1])
    return false;
  const uint64_t of_sequence = order_rows(o, x) / (uint64_t)s->shape[0];
  return step >= o->lengths[x->lengths][row / of_sequence];
}

/* How many numbers of a step are not finite. */
static uint64_t missing(const struct order *o, uint32_t i, int64_t step) {
  const struct probe *x = &o->p->probes[i];
  const uint64_t rows = order_rows(o, x);
  const double whole = x->reduced ? (double)x->spec.shape[x->spec.rank - 1] : 1;
  const float *marks = o->marks[i] + (uint64_t)step * rows;
  uint64_t n = 0;
  for (uint64_t r = 0; r < rows; r++)
    if ((double)marks[r] != whole && !order_is_past(o, x, step, r))
      n += (uint64_t)(whole - (double)marks[r]);
  return n;
}

struct where order_first(const struct order *o, uint64_t counts[UNROLL_PHASE_COUNT]) {
  struct where found = {GRAPH_NONE, 0};
  const struct probed *p = o->p;
  for (uint32_t first = 0, end; first < p->n; first = end) {
    int64_t steps = 1;
    for (end = first; end < p->n && p->probes[end].major == p->probes[first].major; end++) {
      const int64_t n = order_steps(o, &p->probes[end]);
      steps = n > steps ? n : steps;
    }
    for (int64_t s = 0; s < steps; s++)
      for (uint32_t i = first; i < end; i++) {
        const struct probe *x = &p->probes[i];
        const int64_t n_steps = order_steps(o, x);
        if (s >= n_steps)
          continue;
        const int64_t step = x->order == UNROLL_REVERSE ? n_steps - 1 - s : s;
        const uint64_t n = missing(o, i, step);
        counts[x->phase] += n;
        if (n > 0 && found.probe == GRAPH_NONE)
          found = (struct where){i, step};
      }
  }
  return found;
}
