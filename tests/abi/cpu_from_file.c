/* SPDX-License-Identifier: Apache-2.0 */
/* The cpu backend as a shared object, under an id of its own: the one that is linked in keeps "cpu". */
#include <unroll/plugin.h>

extern const unroll_plugin unroll_plugin_v1_cpu;

static int32_t score(const unroll_host *host) { return unroll_plugin_v1_cpu.score(host); }

static unroll_status open_(const unroll_host *host, const unroll_option *options, uint32_t n_options,
                           unroll_backend **backend, const unroll_backend_ops **ops, unroll_error *err) {
  return unroll_plugin_v1_cpu.open(host, options, n_options, backend, ops, err);
}

static unroll_status close_(unroll_backend *backend, unroll_error *err) {
  return unroll_plugin_v1_cpu.close(backend, err);
}

UNROLL_PLUGIN_EXPORT("cpu_from_file") = {
    UNROLL_PLUGIN_HEADER, 0, "cpu_from_file", "1.0", "tests", score, open_, close_};
