#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Queues and threads at once, in one process: in the build with ThreadSanitizer this is what it looks at. Plugins whose drivers
# are not instrumented are left to conform_opencl_test.
set -euo pipefail

unroll=$UNROLL_BUILD_DIR/bin/unroll
plugins=(cpu "$UNROLL_BUILD_DIR/plugins/unroll-template.so")
[ ! -e "$UNROLL_BUILD_DIR/lib/unroll/unroll-onednn.so" ] || plugins+=(onednn)
for plugin in "${plugins[@]}"; do
  echo "== ${plugin##*/}"
  "$unroll" conform "$plugin" --in-process --only '^threads '
done
