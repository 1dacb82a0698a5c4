/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/checkpoint.h: gradient checkpointing: the gradient makes values once more instead of keeping them all.
 *
 *     unroll_checkpoint_begin(g);
 *     unroll_tensor y = block(x);         nodes of any kind; regions nest
 *     unroll_checkpoint_end(g);
 *
 * A region: what is made within is not kept for the gradient. When the gradient comes to it on its way back, its
 * nodes run once more from what they read from outside. What is read of it from outside, as y here, is kept where it
 * is.
 *
 * A sequence is cut into segments, and of most of them only the state at their beginning is kept:
 *
 *     const unroll_checkpoint_policy p = {.struct_size = sizeof p, .kind = UNROLL_CHECKPOINT_BYTES, .bytes = 10000000};
 *     const unroll_rnn_options o = {.struct_size = sizeof o, .cell = UNROLL_CELL_LSTM, .., .checkpoint = &p};
 *     unroll_scan_checkpoint(scan, &p);
 *
 * On a device that says UNROLL_CAP_DETERMINISTIC results and gradients have the same bits as without, for sums over
 * time are sums of blocks, and segments end between blocks. Devices that have no such sums leave segments to others.
 */
#ifndef UNROLL_CHECKPOINT_H
#define UNROLL_CHECKPOINT_H
#include <unroll/graph.h>
#ifdef __cplusplus
extern "C" {
#endif

/* Nodes made between the two stand in a region. UNROLL_E_STATE: in the body of a scan, an end without a beginning, or
 * within a scan; UNROLL_E_GRAPH: the graph is used with a region open. [obj] */
UNROLL_API void unroll_checkpoint_begin(unroll_graph *graph);
UNROLL_API void unroll_checkpoint_end(unroll_graph *graph);

/* All steps are kept: nothing is made again; the state of every k-th step, k = every; of every sqrt(T)-th (Chen et al.
 * 2016); within so many bytes, with the fewest steps made again. */
#define UNROLL_CHECKPOINTS(X)            \
  X(UNROLL_CHECKPOINT_ALL, 0, "all")     \
  X(UNROLL_CHECKPOINT_EVERY, 1, "every") \
  X(UNROLL_CHECKPOINT_SQRT, 2, "sqrt")   \
  X(UNROLL_CHECKPOINT_BYTES, 3, "bytes")
enum {
#define UNROLL_CHECKPOINT_CODE(name, value, text) name = (value),
  UNROLL_CHECKPOINTS(UNROLL_CHECKPOINT_CODE)
#undef UNROLL_CHECKPOINT_CODE
      UNROLL_CHECKPOINT_COUNT = 4
};
/* "sqrt"; NULL for a number that is no kind. Static. [any] */
UNROLL_API const char *unroll_checkpoint_name(int32_t kind);
typedef struct unroll_checkpoint_policy {
  uint32_t struct_size;
  int32_t kind;   /* UNROLL_CHECKPOINT_* */
  int64_t every;  /* EVERY: at least 1; up to whole blocks */
  uint64_t bytes; /* BYTES: of states, of what a segment saves for its gradient, and of its gates' gradients */
} unroll_checkpoint_policy;

/* What a plan is made for. */
typedef struct unroll_checkpoint_sizes {
  uint32_t struct_size;
  int32_t direction;    /* UNROLL_FORWARD or UNROLL_REVERSE */
  int64_t steps;        /* T, at least 1 */
  int64_t block;        /* segments begin at multiples of so many steps; at least 1 */
  uint64_t state_bytes; /* of a state that is kept between segments */
  uint64_t step_bytes;  /* of what a step of the segment that is being differentiated takes */
} unroll_checkpoint_sizes;

/*
 * Segments are `segment` steps each, but: the one that runs first has the blocks that make no whole segment, and the
 * last in time also the steps that make no whole block.
 */
typedef struct unroll_checkpoint_plan_info {
  uint32_t struct_size, reserved;
  int64_t segment, segments;
  int64_t states;        /* that are kept at once, besides the first one */
  int64_t forward_steps; /* that are made in all: without checkpointing T */
  uint64_t bytes;        /* at once, of states and of the largest segment */
  uint64_t bytes_all;    /* without checkpointing */
} unroll_checkpoint_plan_info;

/*
 * The plan that a policy means. t segments with m states kept take
 *     C(t,m) = min over y of y + C(t-y, m-1) + C(y, m),   C(1,m) = 1
 * forward segments: y are walked over and the state there is kept, the rest is differentiated, then the y
 * (Gruslys et al. 2016, their hidden-state recurrence; so C(t,1) = t(t+1)/2 and C(t,m) = 2t-1 for m >= t-1). Of a
 * segment all saved values are kept while its gradient is made. BYTES takes the segment's length and the m that make
 * forward_steps least.
 *   UNROLL_E_INVALID  something is NULL, too small a struct_size, or no such kind
 *   UNROLL_E_RANGE    sizes or every below 1; bytes below the least that any plan takes, which the message says
 *   UNROLL_E_MEMORY
 * Pure. [any]
 */
UNROLL_API unroll_status unroll_checkpoint_plan(const unroll_checkpoint_policy *policy,
                                                const unroll_checkpoint_sizes *sizes, unroll_checkpoint_plan_info *info,
                                                unroll_error *err);

/*
 * Before unroll_scan_end: the scan is cut into segments by the policy, which is copied. Each is a scan of its own; a
 * scan's block is about 512 rows of the batch. A step takes the bytes of all real results of its body's nodes. Errors
 * of the plan are the graph's; UNROLL_E_UNSUPPORTED for a run-time number of steps and for a body that looks up rows
 * of a captured table.
 */
UNROLL_API void unroll_scan_checkpoint(unroll_scan *scan, const unroll_checkpoint_policy *policy);

#ifdef __cplusplus
}
#endif
#endif
