/* SPDX-License-Identifier: Apache-2.0 */
/* A plugin that needs a function which no library has. */
#include "stub.h"

unroll_status unroll_stub_missing_function(unroll_backend *backend, unroll_error *err);

static int32_t score(const unroll_host *host) { return host != NULL; }
static unroll_status open_(const unroll_host *host, const unroll_option *options, uint32_t n_options,
                           unroll_backend **backend, const unroll_backend_ops **ops, unroll_error *err) {
  (void)host, (void)options, (void)n_options, (void)backend, (void)ops, (void)err;
  return UNROLL_OK;
}

UNROLL_PLUGIN_EXPORT("missing") = {UNROLL_PLUGIN_HEADER,        0, "missing", "1.0", "stubs", score, open_,
                                   unroll_stub_missing_function};
