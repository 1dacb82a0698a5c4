#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Neither libunroll.so nor the unroll command depends on OpenCL, CLBlast or oneDNN: these are loaded by plugins alone.
set -euo pipefail

files=("$UNROLL_BUILD_DIR/lib/libunroll.so")
[ ! -d "$UNROLL_SOURCE_DIR/tools" ] || files+=("$UNROLL_BUILD_DIR/bin/unroll")
code=0
for file in "${files[@]}"; do
  needed=$(ldd "$file")
  if grep -iE 'opencl|clblast|dnnl' <<<"$needed"; then
    echo "$file depends on the above"
    code=1
  fi
done
echo "looked at ${files[*]}"
exit "$code"
