#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fields are only appended (plugin.h, R2), so a host and a plugin whose headers are one field apart understand each other:
# a step of training gives the same bits whichever of the two has the field more.
set -euo pipefail

built=$UNROLL_BUILD_DIR/tests/abi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

run() { # HOST FILE ID OUTPUT
  if ! "$built/$1/training_step" "$2" "$3" >"$work/$4" 2>"$work/errors"; then
    echo "$3: host $1, plugin $2: $(cat "$work/errors")"
    return 1
  fi
}

compare() { # ID PLAIN APPENDED
  run plain "$2" "$1" equal || { failed=1; return; }
  [ "$(grep -c ^loss "$work/equal")" -eq 3 ] || { echo "$1: no three losses"; failed=1; }
  local host file
  for host in plain appended; do
    for file in "$2" "$3"; do
      if ! run $host "$file" "$1" other; then
        failed=1
      elif ! cmp -s "$work/equal" "$work/other"; then
        echo "$1: host $host, plugin $file: not the same bits"
        diff "$work/equal" "$work/other" | cut -c 1-100 | head -6 || :
        failed=1
      fi
    done
  done
  echo "$1: three steps of training with both hosts and both plugins"
}

# Without the field at all the test would show nothing.
grep -q appended "$built/include/unroll/plugin.h" || { echo "no header with a field more"; exit 1; }
compare cpu_from_file "$built/plain/cpu_from_file.so" "$built/appended/cpu_from_file.so"
for appended in "$built"/appended/unroll-*.so; do
  [ -e "$appended" ] || break
  name=${appended##*/} id=${appended##*/unroll-}
  plain=$UNROLL_BUILD_DIR/lib/unroll/$name
  if run plain "$plain" "${id%.so}" equal >/dev/null || ! grep -q UNROLL_E_NOT_FOUND "$work/errors"; then
    compare "${id%.so}" "$plain" "$appended"
  fi
done
exit $failed
