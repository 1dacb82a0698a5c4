/* SPDX-License-Identifier: Apache-2.0 */
/* A shared object with the symbol but without the note. */
#include "stub.h"

extern __attribute__((visibility("default"))) const unroll_plugin unroll_plugin_v1;
__attribute__((visibility("default")))
const unroll_plugin unroll_plugin_v1 = {UNROLL_PLUGIN_HEADER, 0, "no-note", "1.0", "stubs", NULL, NULL, NULL};
