/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the judge share.
 *
 *   conform.c          the public calls; a run from its options to its report
 *   conform_report.c   totals, cases, coverage
 *   conform_child.c    child processes: many cases each, a time limit per case, a crash charged to the case in flight
 *   session.c          the plugin opened in this process, on demand
 *   suite_ops.c        one node or two through the vtable itself: op_cases*.c, op_run.c, op_check.c
 *   suite_layers.c     layers, scans and their gradients through the runtime, as a user's graph comes to the plugin
 *   suite_abi.c        the table's own rules: sizes, destroy(NULL), open and close again, allocators that fail, silence
 *   suite_threads.c    queues and threads at once
 */
#ifndef CONFORM_PRIVATE_H
#define CONFORM_PRIVATE_H
#include "base/base_private.h"
#include "conform/op_cases.h"
#include <stdbool.h>
#include <unroll/conform.h>
#include <unroll/runtime.h>

/* What a case's function says. The session turns it, with the plugin's declarations, into a verdict. */
enum conform_outcome {
  CONFORM_PASSED = 0,
  CONFORM_FAILED = 1,
  CONFORM_DECLINED = 2, /* the plugin does not take it: right only where it is declared. message names what it left */
  CONFORM_NO_DTYPE = 3, /* the device does not have the element type: no declaration is needed */
  CONFORM_SKIPPED = 4   /* can't be tried here; message says why */
};

enum { CONFORM_NAME = 144, CONFORM_MESSAGE = 400 };

struct conform_session;
struct conform_case;
/* Never aborts, and releases all that it made whatever comes. message: "" on entry, of CONFORM_MESSAGE bytes. */
typedef enum conform_outcome (*conform_case_fn)(struct conform_session *session, const struct conform_case *c,
                                                char *message);

struct conform_case {
  char name[CONFORM_NAME]; /* "matmul rank 2 y 3x33 k 7 trans_b + row, f32": unique; begins with the op or the suite */
  conform_case_fn run;
  const void *data; /* the suite's own, lives as long as the list; may be NULL */
  uint32_t index;   /* the suite's own */
  int32_t dtype;    /* UNROLL_F32 or UNROLL_F64, or -1 */
  /* For coverage: up to four ops, and an attribute's value as its X-macro has it, of ops that have kinds; see coverage.c. */
  uint32_t ops[4];
  int32_t kinds[4]; /* -1: none */
  uint32_t n_ops;
};

struct conform_list {
  const unroll_allocator *allocator;
  struct conform_case *cases;
  uint32_t n, capacity;
  bool failed;         /* out of memory */
  op_case_list ops;    /* what the cases of suite_ops.c point to */
  void *layers;        /* what those of suite_layers.c point to, one allocation */
  uint64_t seed;
};

/* A case at the end of the list, zeroed but for its name; NULL when out of memory (list->failed is set). */
struct conform_case *conform_list_add(struct conform_list *list, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Each adds its cases, in an order in which the cheap and basic ones come first. */
void suite_abi_list(struct conform_list *list);
void suite_ops_list(struct conform_list *list);
void suite_layers_list(struct conform_list *list);
void suite_threads_list(struct conform_list *list);

/* ---- the session: one process's view of the plugin. [obj] ---- */
struct conform_session {
  const unroll_allocator *allocator;
  const unroll_plugin *plugin; /* loaded, and all checks of the loader passed */
  const char *id;
  const char *file; /* absolute; NULL: linked in */
  uint32_t device_index;
  const unroll_option *device_options;
  uint32_t n_device_options;
  uint64_t seed;

  /* opened by session_target */
  unroll_backend *backend;
  op_target target;
  unroll_device_info info;
  /* opened by session_reference */
  unroll_backend *reference_backend;
  op_target reference;
  /* opened by session_device: the plugin through a context of its own, as a program has it */
  unroll_context *ctx;
  unroll_device *device, *cpu;
};

/*
 * A plugin is opened once at a time: session_target closes the context, session_device the target. What is open already is
 * given again. Errors as the plugin's own.
 */
unroll_status session_target(struct conform_session *s, const op_target **target, unroll_error *err);
unroll_status session_device(struct conform_session *s, unroll_device **device, unroll_error *err);
/* The cpu backend, for results in f64; independent of the others, also where the plugin is the cpu backend itself. */
unroll_status session_reference(struct conform_session *s, const op_target **reference, unroll_error *err);
/* The cpu device of a context that has no other plugin open, for graphs in f64. */
unroll_status session_cpu(struct conform_session *s, unroll_device **cpu, unroll_error *err);
/* Closes all but the reference: for cases that open the plugin themselves. */
unroll_status session_close_plugin(struct conform_session *s, unroll_error *err);
void session_close(struct conform_session *s);

/* A host for plugins that are opened directly. What it allocates is counted and can be made to fail. [any] */
struct conform_host {
  unroll_host host;        /* ctx is this struct */
  uint64_t allocations;    /* that were made, in all */
  uint64_t live;           /* and are not freed */
  uint64_t fail_at;        /* the number, from 1, of the first allocation that fails; 0: none */
  uint32_t fail_all_after; /* not only that one, but all from there on */
  uint32_t n_threads;      /* "unroll.threads/1" */
};
void conform_host_init(struct conform_host *host);

#endif
