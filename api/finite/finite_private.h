/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the search for the first number that is not finite.
 *
 * A probe is a value of the lowered graph, at the top or in the body of a scan, that some arithmetic makes. For each the
 * graph gets a mark: how many numbers of each row are finite. Where a mark is short, a second graph gives out that value
 * whole, with those beside it that say why.
 */
#ifndef FINITE_PRIVATE_H
#define FINITE_PRIVATE_H
#include <unroll/finite.h>

#include "graph/graph_private.h"

/* What a value is; gates first .. first+n-1 stand side by side along its last axis. first -1: it has none. */
struct label {
  int32_t quantity, first, n;
};

struct probe {
  uint32_t node;   /* of the graph: a scan where the value stands in its body */
  uint32_t inner;  /* the node of the body; GRAPH_NONE: the value stands at the top */
  uint32_t tensor; /* of the body or the graph */
  uint32_t major;  /* the node at whose place in the order of the graph it is gone through; */
  bool stepwise;   /* step by step, with those of the same major */
  bool reduced;    /* a mark is of a row, not of a number */
  int32_t phase, layer, direction;
  int32_t order;    /* of the steps: UNROLL_FORWARD, UNROLL_REVERSE */
  int64_t t0;       /* the sequence's step that its first one is */
  uint32_t lengths; /* index into those that it has; GRAPH_NONE */
  int family;       /* FAMILY_* */
  uint32_t param;   /* whose gradient it is, or whose update; GRAPH_NONE */
  struct label label;
  tensor_spec spec; /* with its time axis */
};

struct probed {
  unroll_graph *graph;
  unroll_allocator allocator;
  struct probe *probes;
  uint32_t n, capacity;
  int64_t B;    /* the batch of the recurrences; 0: there is none */
  int64_t T[4]; /* how many steps they have, and what they are slices of */
  uint32_t n_T;
  uint32_t *lengths; /* tensors of the graph, each once */
  uint32_t n_lengths, lengths_capacity;
};

/* ---- label.c ---- */
enum {
  FAMILY_NONE,
  FAMILY_RNN,
  FAMILY_LSTM,
  FAMILY_COUPLED,
  FAMILY_GRU,
  FAMILY_MIN_GRU,
  FAMILY_MIN_LSTM,
  FAMILY_COUNT
};
struct body_labels {
  struct label *of; /* of the body's tensors */
  int family;
  int32_t gates; /* G */
  bool two;      /* carries h and c */
  int64_t H;
};
/* Labels the body of scan `node`, and the products at the top that its steps read. forward: of a scan that goes back
 * through a layer, the layer's own; else NULL. false: no memory. */
bool label_body(const unroll_graph *g, uint32_t node, const struct body_labels *forward, struct label *top,
                struct body_labels *out);
/* Labels what stands before a layer's linear scan. Returns the family. */
int label_linear_scan(const unroll_graph *g, uint32_t index, struct label *top);
struct label label_of_top(const unroll_graph *g, const node *n, uint32_t output);
/* "forget gate"; "" where the family has no such names. */
#define LABEL_NAME 24
void label_gate_name(int family, int32_t gate, char name[LABEL_NAME]);

/* ---- probe.c ---- */
/* `from` without its updates, layers spelled out or kept, and its probes in the order of the nodes. */
unroll_status probed_make(const unroll_graph *from, bool keep_layers, struct probed *p, unroll_error *err);
void probed_free(struct probed *p);
/* Outputs "finite.mark.I", I the probe's index, and "finite.lengths.I". */
unroll_status probed_add_marks(struct probed *p, unroll_error *err);
/* An output "finite.value.I": the tensor of the body of `scan`, or of the graph where scan is GRAPH_NONE; spec: its. */
unroll_status probed_add_value(struct probed *p, uint32_t scan, uint32_t id, uint32_t index, tensor_spec *spec,
                               unroll_error *err);
/* Has a tensor axes [T,B,..] of a recurrence, or [T·B,..] with flat? */
bool probed_has_steps(const struct probed *p, const tensor_spec *spec, bool flat);
/* The extent of axis 0 in a run, of one whose run-time sizes are dims, or at its maximum with n_dims 0. */
int64_t probed_extent(const unroll_graph *g, const tensor_spec *spec, const int64_t *dims, uint32_t n_dims);

/* ---- walk.c ---- */
struct order {
  const struct probed *p;
  const int64_t *dims; /* run-time sizes, as of the run */
  uint32_t n_dims;
  float **marks;     /* of each probe */
  int32_t **lengths; /* of each of p->lengths */
};
struct where {
  uint32_t probe; /* GRAPH_NONE: there is none */
  int64_t step;   /* in memory; 0 of what has none */
};
/* The first value, and step of it, with a number that is not finite. Counts them by phase. */
struct where order_first(const struct order *o, uint64_t counts[UNROLL_PHASE_COUNT]);
/* Rows that a mark stands for, of each step, and how many steps: 1 where the probe's time is not axis 0. */
int64_t order_steps(const struct order *o, const struct probe *x);
uint64_t order_rows(const struct order *o, const struct probe *x);
/* Is this row of this step past its sequence's end? */
bool order_is_past(const struct order *o, const struct probe *x, int64_t step, uint64_t row);

#endif
