#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# plugin.h is what tests/abi holds of it, to the bit: plugin.txt has sizes, offsets, enum constants and macros, plugin.abi
# the types, as abidw writes them. What changes there changes for plugins that are built already.
#   tests/abi_dump_test.sh --update                writes both anew, once UNROLL_ABI_MINOR is raised
#   tests/abi_dump_test.sh --update --unreleased   also where it is not: for a minor number that no release has had
set -euo pipefail

root=${UNROLL_SOURCE_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
header=$root/api/include/unroll/plugin.h held=$root/tests/abi cc=${UNROLL_CC:-cc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LC_ALL=C

version() { awk '$2 == "UNROLL_ABI_MAJOR" || $2 == "UNROLL_ABI_MINOR" { printf "%s", $3 }' "$1"; }
abi() { python3 -B "$root/tests/abi/plugin_abi.py" "$1" "$cc" "$header" "$held/plugin.txt"; }

abi text >"$work/plugin.txt"
cd "$work"
abi objects >objects.c
"$cc" -std=c11 -g -shared -fPIC -o objects.so objects.c
if command -v abidw >/dev/null; then
  abidw --no-corpus-path --no-comp-dir-path --no-show-locs --no-elf-needed --no-architecture --no-parameter-names \
    --type-id-style hash objects.so >plugin.abi
fi

if [ "${1-}" = --update ]; then
  [ -e plugin.abi ] || { echo "no abidw: script/setup installs it" >&2; exit 1; }
  if [ "${2-}" != --unreleased ] && [ -e "$held/plugin.txt" ] && ! cmp -s plugin.txt "$held/plugin.txt" &&
    [ "$(version plugin.txt)" = "$(version "$held/plugin.txt")" ]; then
    diff -U 2 "$held/plugin.txt" plugin.txt || :
    echo "raise UNROLL_ABI_MINOR in plugin.h first, or add --unreleased if no release has had this one" >&2
    exit 1
  fi
  cp plugin.txt plugin.abi "$held"
  exit
fi

failed=0
diff -U 2 "$held/plugin.txt" plugin.txt || failed=1
[ ! -e plugin.abi ] || abidiff "$held/plugin.abi" plugin.abi || failed=1

# The same on another machine: what is fixed-width and padded by hand lies alike wherever pointers have 64 bits.
abi asserts >asserts.c
targets=()
for target in x86_64 aarch64; do
  if clang "--target=$target-linux-gnu" -ffreestanding -x c -fsyntax-only - </dev/null 2>/dev/null; then
    targets+=("$target")
    clang "--target=$target-linux-gnu" -std=c11 -ffreestanding -fsyntax-only asserts.c || failed=1
  fi
done
echo "also as a compiler for ${targets[*]:-no other machine} sees it"

if [ $failed -ne 0 ]; then
  cat <<'TEXT'
plugin.h is not what tests/abi holds of it. If that is on purpose: raise UNROLL_ABI_MINOR, run
tests/abi_dump_test.sh --update, and say in CHANGELOG.md what changed.
TEXT
  exit 1
fi
[ -e plugin.abi ] || { echo "no abidw: the types were not compared"; exit 77; }
