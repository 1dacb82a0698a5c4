/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trace: a timeline of what the host calls and of what the devices do, in the Trace Event Format (its array form), which
 * chrome://tracing and ui.perfetto.dev open. It goes to the file of UNROLL_TRACE, unroll-trace.json in the working directory
 * if that is not set: to FILE.PID.tmp as it happens, which is renamed when the registry is destroyed.
 *
 * Process 1 is the host, with a track per thread that calls; each device that is opened is a process of its own, with a track
 * per queue, filled where the backend has "unroll.profile/1". Times are microseconds of CLOCK_MONOTONIC.
 */
#ifndef PLUGINS_WRAP_TRACE_H
#define PLUGINS_WRAP_TRACE_H
#include "plugins/wrap_private.h"

/* ---- wrap_trace_file.c: the file of a registry. [any] ---- */
struct trace_file;
/* UNROLL_E_IO names the file. */
unroll_status trace_file_open(const unroll_allocator *a, const unroll_logger *logger, const char *path,
                              struct trace_file **out, unroll_error *err);
/* Ends the file and gives it its name; what failed is logged, and then there is no file. NULL: nothing. */
void trace_file_close(struct trace_file *f);
/* The number of a new process, from 2 on. */
uint32_t trace_file_process(struct trace_file *f);
/* The number of this thread in process 1; its name is written at the first call. */
uint32_t trace_file_thread(struct trace_file *f);

/* One event, put together as text and written whole: */
struct trace_event {
  char text[1536];
  size_t n;
  uint32_t n_args;
};
/* phase 'X': begin and end; 'M': neither. */
void trace_event_begin(struct trace_event *e, char phase, const char *name, uint32_t process, uint32_t thread,
                       uint64_t begin_ns, uint64_t end_ns);
void trace_event_text(struct trace_event *e, const char *key, const char *value);
void trace_event_number(struct trace_event *e, const char *key, int64_t value);
void trace_event_write(struct trace_event *e, struct trace_file *f);
/* "process_name" or "thread_name" */
void trace_file_name(struct trace_file *f, const char *what, uint32_t process, uint32_t thread, const char *name);
#endif
