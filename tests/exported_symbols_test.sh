#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# libunroll.so exports names that start with unroll_, all of them declared in a public header; a plugin exports its entry
# point and nothing else.
set -euo pipefail

library=$UNROLL_BUILD_DIR/lib/libunroll.so
failures=0
fail() { echo "$*"; failures=$((failures + 1)); }
# The address sanitizer adds a mark for each variable that is seen from outside.
exports() { nm -D --defined-only "$1" | awk '$2 != "A" && $3 !~ /^__odr_asan/ { sub(/@.*/, "", $3); print $3 }'; }

symbols=$(exports "$library")
[ -n "$symbols" ] || fail "libunroll.so exports nothing"
while read -r symbol; do
  case $symbol in
    unroll_*)
      grep -qrw --include='*.h' -- "$symbol" "$UNROLL_SOURCE_DIR/api/include/unroll" ||
        fail "libunroll.so exports $symbol, which no public header declares" ;;
    *) fail "libunroll.so exports $symbol" ;;
  esac
done <<<"$symbols"

for plugin in "$UNROLL_BUILD_DIR"/lib/unroll/*.so "$UNROLL_BUILD_DIR"/plugins/*.so; do
  [ -e "$plugin" ] || continue
  found=$(exports "$plugin" | tr '\n' ' ')
  [ "$found" = "unroll_plugin_v1 " ] || fail "${plugin##*/} exports ${found:-nothing}, expected unroll_plugin_v1"
done

echo "$(wc -w <<<"$symbols") exported symbols, $failures failures"
[ "$failures" -eq 0 ]
