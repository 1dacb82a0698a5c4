/* SPDX-License-Identifier: Apache-2.0 */
/* The cpu backend with the loops of tests/counting, for cost_counted_test. */
#include "counting/count.h"

extern const unroll_plugin unroll_plugin_v1_cpu;

static int32_t score(const unroll_host *host) {
  (void)host;
  return 1; /* as the reference: only by name */
}
static unroll_status open_(const unroll_host *host, const unroll_option *options, uint32_t n_options,
                           unroll_backend **out, const unroll_backend_ops **ops, unroll_error *err) {
  return unroll_plugin_v1_cpu.open(host, options, n_options, out, ops, err);
}
static unroll_status close_(unroll_backend *backend, unroll_error *err) {
  return unroll_plugin_v1_cpu.close(backend, err);
}

UNROLL_PLUGIN_EXPORT("counting") = {UNROLL_PLUGIN_HEADER, 0, "counting", "1.0", "tests", score, open_, close_};
