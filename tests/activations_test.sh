#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kernels/activations.cl keeps the errors that it states, on a sample of floats. script/check ulp looks at all.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if ! "$UNROLL_CC" -E -include CL/cl.h -DCL_TARGET_OPENCL_VERSION=120 -x c /dev/null >/dev/null 2>&1; then
  echo "no OpenCL headers"
  exit 77
fi
"$UNROLL_CC" -std=c11 -O2 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -D_GNU_SOURCE \
  -DCL_TARGET_OPENCL_VERSION=120 -o "$folder/ulp" "$UNROLL_SOURCE_DIR/tests/activations/activations_ulp.c" \
  -lOpenCL -lpthread -lm
"$folder/ulp" "$UNROLL_SOURCE_DIR/kernels"
