#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every public header compiles alone, with nothing before it, as C11 and as C++17. What plugins see has no padding that is not
# written down (plugin.h, R3).
set -euo pipefail

include=$UNROLL_SOURCE_DIR/api/include
warnings=(-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
headers=0

compile() { # COMPILER STANDARD LANGUAGE HEADER
  printf '#include <%s>\n#include <%s>\ntypedef int unit_is_not_empty;\n' "$4" "$4" >"$work/unit"
  local more=()
  case $4 in unroll/plugin.h | unroll/philox.h) more=(-Wpadded) ;; esac
  if ! "$1" "-std=$2" "${warnings[@]}" "${more[@]}" "-I$include" -x "$3" -fsyntax-only "$work/unit"; then
    echo "$4 does not compile alone as $2 with $1"
    failures=$((failures + 1))
  fi
}

for path in "$include"/unroll/*.h; do
  [ -e "$path" ] || break
  header=unroll/${path##*/}
  headers=$((headers + 1))
  compile "$UNROLL_CC" c11 c "$header"
  [ -z "$UNROLL_CXX" ] || compile "$UNROLL_CXX" c++17 c++ "$header"
done

echo "$headers public headers, $failures failures"
[ "$headers" -gt 0 ] && [ "$failures" -eq 0 ] || exit 1
if [ -z "$UNROLL_CXX" ]; then
  echo "no C++ compiler: C++17 was not tried"
  exit 77
fi
