/* SPDX-License-Identifier: Apache-2.0 */
/* The least that can be loaded: it has a device, and all that its functions say is no, or nothing. */
#include <unroll/plugin.h>
#pragma GCC diagnostic ignored "-Wunused-parameter"

#define NO(name, parameters) \
  static unroll_status name parameters { return UNROLL_E_UNSUPPORTED; }
#define YES(name, parameters, deed) \
  static unroll_status name parameters { return (deed), UNROLL_OK; }
#define NOTHING(name, type) \
  static void name(type *x) {}
typedef unroll_backend B;
typedef unroll_backend_device D;
typedef unroll_backend_queue Q;
typedef unroll_backend_buffer M;
typedef unroll_backend_event V;
typedef unroll_backend_exec X;
typedef unroll_backend_binding L;
typedef unroll_error E;
typedef const unroll_option O;
typedef uint64_t U;
static const unroll_device_info about = {sizeof about, UNROLL_KIND_CPU, "twenty", "", "", "0", 1, 1, 1, 0, 2};

YES(count, (B * b, uint32_t *n, E *e), *n = 1)
YES(info, (B * b, uint32_t i, unroll_device_info *to, E *e), *to = about)
YES(open_device, (B * b, uint32_t i, O *o, uint32_t n, D **d, E *e), *d = (D *)b)
YES(claim, (D * d, const unroll_graph_view *g, unroll_claim *c, uint32_t stride, E *e), (void)c)
NO(create, (D * d, U n, U usage, M **m, E *e))
NO(put, (Q * q, M *m, U at, const void *p, U n, V **v, E *e))
NO(get, (Q * q, M *m, U at, void *p, U n, V **v, E *e))
NO(fill, (Q * q, M *m, U at, U n, uint8_t value, V **v, E *e))
NO(copy, (Q * q, M *m, U at, M *from, U from_at, U n, V **v, E *e))
YES(queue, (D * d, U flags, Q **q, E *e), *q = (Q *)d)
NO(wait, (Q * q, E *e))
NO(compile, (D * d, const unroll_graph_view *g, O *o, uint32_t n, X **x, E *e))
NO(ask, (X * x, unroll_exec_info *i, E *e))
NO(tie, (X * x, const unroll_slot *s, uint32_t n, uint32_t stride, M *m, U at, L **l, E *e))
NO(run, (L * l, Q *q, const unroll_run_args *a, V **v, E *e))
NOTHING(no_device, D)
NOTHING(no_buffer, M)
NOTHING(no_queue, Q)
NOTHING(no_exec, X)
NOTHING(no_binding, L)
static const unroll_backend_ops table = {sizeof table, 0,       count,     info,       open_device, no_device,
                                         claim,        create,  no_buffer, put,        get,         fill,
                                         copy,         queue,   no_queue,  wait,       wait,        compile,
                                         ask,          no_exec, tie,       no_binding, run,         .extension = 0};

static int32_t score(const unroll_host *host) { return 1; }
YES(open_, (const unroll_host *h, O *o, uint32_t n, B **b, const unroll_backend_ops **t, E *e),
    (*b = (B *)(uintptr_t)&table, *t = &table))
YES(close_, (B * b, E *e), (void)b)
UNROLL_PLUGIN_EXPORT("twenty") = {UNROLL_PLUGIN_HEADER, 1, "twenty", "0", "tests", score, open_, close_};
