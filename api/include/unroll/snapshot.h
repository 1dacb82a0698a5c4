/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/snapshot.h: the states of a binding, kept on its devices: save, roll back, fork, begin anew.
 *
 *     unroll_snapshot *s;
 *     unroll_run_options next = {.struct_size = sizeof next, .seed = 1};
 *     unroll_snapshot_create(exe, NULL, &s, &err);
 *     unroll_run(b, &next, &err), next.t0 += T;        read what is certain
 *     unroll_snapshot_save(s, b, &next, &err);
 *     unroll_run(b, &next, &err), next.t0 += T;        a guess
 *     unroll_snapshot_restore(s, b, &next, &err);      it was wrong: states and t0 are those of the save
 *     unroll_snapshot_restore(s, other, &next, &err);  and from there a second binding goes its own way
 *
 * A sequence that is given step by step, in chunks and whole, its states carried on by unroll_update, makes the same y
 * and the same last states: the same bits on the cpu reference, elsewhere within the rounding of its products. With
 * random ops that holds where every run is given its t0, and but for masks that are drawn once a run (unroll/nn.h).
 *
 * A new snapshot holds zeros, as a new binding does, or what unroll_snapshot_write put there (a learnt first state): it
 * is what a binding, or one row of its batch, begins anew from.
 *
 * Saving, restoring and copying are queued behind what the binding has queued, move no byte through the host and
 * allocate nothing, but for what a binding's own first use allocates. A snapshot goes from the binding it was last used
 * with to another one only after waiting for what the former has queued; bindings that share memory are one in this.
 *
 * Threads: [obj], and a snapshot belongs to the thread of the binding that it was last used with, until
 * unroll_snapshot_sync lets go of it. The executable outlives its snapshots; bindings come and go as they like. Calls
 * that are asynchronous report deferred errors of the queue as unroll_run does; after an error in the middle of the
 * copies what was to be written may hold some of the new bytes. Wrong arguments change nothing.
 */
#ifndef UNROLL_SNAPSHOT_H
#define UNROLL_SNAPSHOT_H
#include <unroll/runtime.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct unroll_snapshot unroll_snapshot;

/* What a snapshot takes where no names are given. */
enum {
  UNROLL_SNAPSHOT_SEQUENCE = 1,  /* h, c and all other states but an optimizer's moments */
  UNROLL_SNAPSHOT_OPTIMIZER = 2, /* moments: the states that unroll_optimize made */
  UNROLL_SNAPSHOT_PARAMS = 4,    /* parameters */
};
typedef struct unroll_snapshot_options {
  uint32_t struct_size;
  uint32_t what;            /* UNROLL_SNAPSHOT_* or'ed; 0: UNROLL_SNAPSHOT_SEQUENCE. Not looked at with names */
  const char *const *names; /* states and parameters, each once; NULL: by `what` */
  uint32_t n_names, reserved;
  const int32_t *row_axes; /* n_names: the batch axis of each; NULL: 0, as in [B,H] */
} unroll_snapshot_options;

/*
 * A snapshot of states of the executable's, of zeros. options may be NULL; nothing of them is kept. A graph that trains
 * has states of its trainer's among those of UNROLL_SNAPSHOT_SEQUENCE (counts, histories): name what is meant.
 * UNROLL_E_NOT_FOUND: a name, or nothing is left to keep; UNROLL_E_INVALID: the name of an input or an output, or one
 * given twice; UNROLL_E_RANGE: an axis; UNROLL_E_MEMORY, UNROLL_E_DEVICE_MEMORY, as the plugins report. [any]
 */
UNROLL_API unroll_status unroll_snapshot_create(unroll_executable *exe, const unroll_snapshot_options *options,
                                                unroll_snapshot **snapshot, unroll_error *err);
/* NULL does nothing. */
UNROLL_API void unroll_snapshot_destroy(unroll_snapshot *snapshot);

/* What it keeps, in the order of the graph; rank -1 past the end. The name lives as long as the executable. [any] */
UNROLL_API uint32_t unroll_snapshot_count(const unroll_snapshot *snapshot);
UNROLL_API unroll_tensor_info unroll_snapshot_describe(const unroll_snapshot *snapshot, uint32_t i);

/*
 * Save: the snapshot holds what the binding's states hold when all that is queued is done. Restore: the binding's
 * states hold it again. The binding may be of another executable (one with other numbers of time steps, say) that has
 * states or parameters of the same names, dtypes and shapes on the same devices, else UNROLL_E_NOT_FOUND,
 * UNROLL_E_SHAPE, UNROLL_E_STATE.
 *
 * next: the place in the sequence goes with the states. Save keeps seed, update, t0 and row0 of it (NULL: zeros), which
 * are those of the run that comes next; restore sets these four and leaves the others (NULL: not asked for).
 */
UNROLL_API unroll_status unroll_snapshot_save(unroll_snapshot *snapshot, unroll_binding *binding,
                                              const unroll_run_options *next, unroll_error *err);
UNROLL_API unroll_status unroll_snapshot_restore(unroll_snapshot *snapshot, unroll_binding *binding,
                                                 unroll_run_options *next, unroll_error *err);
/*
 * The same for one sequence of the batch: from_row of the one becomes to_row of the other, in every state; the other
 * rows and the place stay as they are. Restored from a new snapshot, a row begins anew while the others go on; saved
 * and restored to other rows, a beam forks. Random ops count the time of the whole batch: the row draws what its t0
 * gives, not what it drew at its beginning. UNROLL_E_RANGE: no such row; UNROLL_E_SHAPE: a state that has no such axis.
 * For states without a batch make a snapshot that does not name them.
 */
UNROLL_API unroll_status unroll_snapshot_save_row(unroll_snapshot *snapshot, int64_t to_row, unroll_binding *binding,
                                                  int64_t from_row, unroll_error *err);
UNROLL_API unroll_status unroll_snapshot_restore_row(unroll_snapshot *snapshot, int64_t from_row,
                                                     unroll_binding *binding, int64_t to_row, unroll_error *err);
/*
 * Everything that `snapshot` keeps, and the place, becomes that of `from`, which may keep more. Errors as of save. Both
 * belong to the thread of `from` then.
 */
UNROLL_API unroll_status unroll_snapshot_copy(unroll_snapshot *snapshot, unroll_snapshot *from, unroll_error *err);
/* Zeros again, at the place 0. */
UNROLL_API unroll_status unroll_snapshot_clear(unroll_snapshot *snapshot, unroll_error *err);

/*
 * One tensor, whole, dense: bytes of the host's memory. UNROLL_E_NOT_FOUND; UNROLL_E_SHAPE: not its number of bytes.
 * Complete when they return.
 */
UNROLL_API unroll_status unroll_snapshot_write(unroll_snapshot *snapshot, const char *name, const void *data,
                                               uint64_t bytes, unroll_error *err);
UNROLL_API unroll_status unroll_snapshot_read(unroll_snapshot *snapshot, const char *name, void *data, uint64_t bytes,
                                              unroll_error *err);

/* Waits for what uses the snapshot. From then on it belongs to no binding and may go to another thread. */
UNROLL_API unroll_status unroll_snapshot_sync(unroll_snapshot *snapshot, unroll_error *err);

/*
 * A safetensors file (unroll/io.h: atomic, with a checksum) of the tensors under their names, the place in the
 * metadata. Loading checks all of the file first: mark, checksum, place; names, dtypes and shapes of all tensors, no
 * more and no fewer than the snapshot keeps: UNROLL_E_FORMAT. Shapes are those of the plan, run-time sizes at their
 * maximum. UNROLL_E_IO; UNROLL_E_MEMORY; as the plugins report.
 */
UNROLL_API unroll_status unroll_snapshot_store(unroll_snapshot *snapshot, const char *path, unroll_error *err);
UNROLL_API unroll_status unroll_snapshot_load(unroll_snapshot *snapshot, const char *path, unroll_error *err);

#ifdef __cplusplus
}
#endif
#endif
