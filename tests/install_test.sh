#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An installed tree that was moved still serves a program, through pkg-config and through find_package.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$UNROLL_BUILD_DIR" --prefix "$work/first" >/dev/null
mv "$work/first" "$work/moved"
prefix=$work/moved
pc=$(find "$prefix" -name unroll.pc)
lib=$(dirname "$(dirname "$pc")")

expect() { [ -e "$1" ] || { echo "not installed: ${1#"$prefix"/}"; exit 1; }; }
expect "$prefix/share/doc/unroll/LICENSE"
for header in "$UNROLL_SOURCE_DIR"/api/include/unroll/*.h; do
  expect "$prefix/include/unroll/${header##*/}"
done
for plugin in "$UNROLL_BUILD_DIR"/lib/unroll/*.so; do
  [ ! -e "$plugin" ] || expect "$lib/unroll/${plugin##*/}"
done

{
  for header in "$prefix"/include/unroll/*.h; do
    echo "#include <unroll/${header##*/}>"
  done
  echo 'int main(void) { return 0; }'
} >"$work/program.c"
sanitize=()
[ -z "$UNROLL_SANITIZE" ] || sanitize=("-fsanitize=$UNROLL_SANITIZE")

resolves() { # FILE: it runs on the library of the moved tree
  local found
  found=$(ldd "$1" | awk '$1 ~ /^libunroll\.so/ { print $3 }')
  if [ "$(realpath -m "$found")" != "$(realpath "$lib/libunroll.so")" ]; then
    echo "${1##*/} runs on ${found:-no library}, expected $lib/libunroll.so"
    exit 1
  fi
}
read -ra flags <<<"$(PKG_CONFIG_PATH=$lib/pkgconfig pkg-config --cflags --libs unroll)"
"$UNROLL_CC" -std=c11 "${sanitize[@]}" "$work/program.c" -Wl,--no-as-needed "${flags[@]}" "-Wl,-rpath,$(realpath "$lib")" \
  -o "$work/program"
resolves "$work/program"
"$work/program"

mkdir "$work/consumer"
cat >"$work/consumer/CMakeLists.txt" <<'EOF'
cmake_minimum_required(VERSION 3.25)
project(consumer C)
find_package(unroll REQUIRED)
add_executable(consumer ../program.c)
target_link_libraries(consumer PRIVATE unroll::unroll)
target_link_options(consumer PRIVATE -Wl,--no-as-needed)
EOF
cmake -S "$work/consumer" -B "$work/consumer/build" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$UNROLL_CC" \
  "-DCMAKE_C_FLAGS=${sanitize[*]}" >/dev/null
cmake --build "$work/consumer/build" >/dev/null
resolves "$work/consumer/build/consumer"
"$work/consumer/build/consumer"

[ ! -e "$UNROLL_BUILD_DIR/bin/unroll" ] || resolves "$prefix/bin/unroll"
echo "installed, moved, linked and run"
