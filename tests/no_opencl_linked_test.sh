#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Neither libunroll.so nor the unroll command depends on OpenCL or CLBlast: a driver is loaded by the plugin alone.
set -euo pipefail

files=("$UNROLL_BUILD_DIR/lib/libunroll.so")
[ ! -d "$UNROLL_SOURCE_DIR/tools" ] || files+=("$UNROLL_BUILD_DIR/bin/unroll")
code=0
for file in "${files[@]}"; do
  needed=$(ldd "$file")
  if grep -iE 'opencl|clblast' <<<"$needed"; then
    echo "$file depends on the above"
    code=1
  fi
done
echo "looked at ${files[*]}"
exit "$code"
