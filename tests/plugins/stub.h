/* SPDX-License-Identifier: Apache-2.0 */
/* What the stub plugins share: a constructor that leaves a trace, so that a test sees whether any of their code ran. */
#ifndef STUB_H
#define STUB_H
#include <stdio.h>
#include <stdlib.h>
#include <unroll/plugin.h>

__attribute__((constructor)) static void leave_trace(void) {
  const char *path = getenv("UNROLL_STUB_TRACE");
  FILE *file = path ? fopen(path, "a") : NULL;
  if (file) {
    fputs("loaded\n", file);
    fclose(file);
  }
}
#endif
