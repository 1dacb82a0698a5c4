/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wrappers: backends that stand in front of any other and pass its calls on, switched on by UNROLL_WRAP, a list with commas
 * whose first word is the outermost, next to the host:
 *
 *     check   finds misuse of the ABI by the host: wrap_check.h says which
 *     trace   writes what the host calls and what the device does to the file of UNROLL_TRACE: wrap_trace.h
 *
 * Both variables are ignored in a program with raised privileges. docs/wrappers.md is the user's side of this.
 */
#ifndef PLUGINS_WRAP_H
#define PLUGINS_WRAP_H
#include <stdbool.h>
#include <unroll/base.h>

struct trace_file;
struct wrap_stack;

/* What the wrappers of one registry share. Zeros, then the first two. */
struct wrap_host {
  const unroll_allocator *allocator; /* these two live as long as the struct */
  const unroll_logger *logger;
  struct trace_file *trace; /* made by the first trace, finished by wrap_host_finish */
  bool stays;               /* a wrapper had to stay behind: what it uses stays too */
};
/* Completes the trace's file. When no backend is wrapped any more. */
void wrap_host_finish(struct wrap_host *host);

/*
 * Puts the wrappers that UNROLL_WRAP names around an open backend. *backend and *ops then are the outermost one's; where none
 * is asked for they stay, and *out is NULL. plugin_id: for names of devices, copied.
 *   UNROLL_E_INVALID  a word that is no wrapper, or one twice
 *   UNROLL_E_IO       the trace can't be written
 *   UNROLL_E_MEMORY
 * On failure the three out-parameters are untouched.
 */
unroll_status wrap_open(struct wrap_host *host, const char *plugin_id, unroll_backend **backend,
                        const unroll_backend_ops **ops, struct wrap_stack **out, unroll_error *err);
/*
 * Takes them off again. *backend: the plugin's own, to be closed now; NULL where calls are still on their way, which is a
 * finding of the check: then it must be left as it is, and the wrappers stay too. UNROLL_E_STATE: the check found something
 * here, such as an object that was never destroyed. stack may be NULL: *backend stays.
 */
unroll_status wrap_close(struct wrap_stack *stack, unroll_backend **backend, unroll_error *err);
#endif
