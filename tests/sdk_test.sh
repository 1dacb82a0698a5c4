#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What an outsider gets: from an installed tree that was moved, in an empty folder, without a file of the source tree, programs
# in C and C++ are built through find_package and pkg-config, and the template becomes a plugin that is judged, installed and
# found; a plugin in C++ is loaded too.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset UNROLL_PLUGIN_PATH UNROLL_PLUGIN_FILES
started=$SECONDS
fail() { echo "$*"; exit 1; }
quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log"; fail "failed: $*"; }; }

quietly cmake --install "$UNROLL_BUILD_DIR" --prefix "$work/first"
mv "$work/first" "$work/moved"
prefix=$work/moved
lib=$(dirname "$(dirname "$(find "$prefix" -name unroll.pc)")")
unroll=$prefix/bin/unroll
[ -x "$unroll" ] || { echo "built without the unroll command"; exit 77; }
sanitize=()
[ -z "$UNROLL_SANITIZE" ] || sanitize=("-fsanitize=$UNROLL_SANITIZE" -fno-sanitize-recover=all)
warnings=(-Wall -Wextra -Wpedantic -Wshadow -Werror)

# No text file of the prefix may lead back to the tree that it was built from.
! grep -rIlF -e "$UNROLL_SOURCE_DIR" -e "$UNROLL_BUILD_DIR" "$prefix/include" "$prefix/share" "$lib/cmake" "$lib/pkgconfig" ||
  fail "the files above name the source or the build tree"

[ -e "$prefix/share/doc/unroll/writing-a-backend.md" ] || fail "the guide for writing a backend is not installed"

# One text, two languages.
mkdir "$work/consumer"
cat >"$work/consumer/program.c" <<'EOP'
#include <stdio.h>
#include <string.h>
#include <unroll/conform.h>
#include <unroll/io.h>
#include <unroll/nn.h>
#include <unroll/runtime.h>
#include <unroll/train.h>

static int run(unroll_device *device, unroll_error *err) {
  static const int64_t shape[] = {3};
  const float x[] = {1, 2, 3};
  float y[3] = {0, 0, 0};
  unroll_graph *g = NULL;
  unroll_executable *exe = NULL;
  unroll_binding *b = NULL;
  int ok = unroll_graph_create(NULL, &g, err) == UNROLL_OK;
  if (ok) {
    const unroll_tensor in = unroll_input(g, "x", UNROLL_F32, 1, shape);
    unroll_output(unroll_mul(in, in), "y");
    ok = unroll_compile(g, &device, 1, NULL, &exe, err) == UNROLL_OK && unroll_binding_create(exe, &b, err) == UNROLL_OK &&
         unroll_binding_write(b, "x", x, sizeof x, err) == UNROLL_OK && unroll_run(b, NULL, err) == UNROLL_OK &&
         unroll_binding_read(b, "y", y, sizeof y, err) == UNROLL_OK;
  }
  if (ok)
    printf("%s %g %g %g\n", unroll_device_id(device), (double)y[0], (double)y[1], (double)y[2]);
  unroll_binding_destroy(b);
  unroll_executable_destroy(exe);
  unroll_graph_destroy(g);
  return ok;
}

int main(void) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = NULL;
  unroll_plugin_list *list = NULL;
  unroll_device *device = NULL;
  int ok = UNROLL_CHECK_VERSION() == UNROLL_OK && unroll_context_create(NULL, &ctx, &err) == UNROLL_OK &&
           unroll_context_list(ctx, &list, &err) == UNROLL_OK;
  for (uint32_t i = 0; ok && i < list->n_plugins; i++)
    printf("%s: %u devices\n", list->plugins[i].id, list->plugins[i].n_devices);
  ok = ok && unroll_device_open(ctx, "cpu", NULL, 0, &device, &err) == UNROLL_OK && run(device, &err);
  if (!ok)
    fprintf(stderr, "%s\n", err.message);
  unroll_device_close(device);
  if (ctx)
    unroll_plugin_list_free(ctx, list);
  unroll_context_destroy(ctx);
  return !ok;
}
EOP
says() { # PROGRAM: it lists the cpu and squares on it
  local said
  said=$("$1")
  case $said in
    *"cpu: 1 devices"*"cpu:0 1 4 9") ;;
    *) fail "$1 said: $said" ;;
  esac
}

languages=C
[ -z "$UNROLL_CXX" ] || languages='C CXX'
read -ra flags <<<"$(PKG_CONFIG_PATH=$lib/pkgconfig pkg-config --cflags --libs unroll)"
cd "$work/consumer"
quietly "$UNROLL_CC" -std=c11 "${warnings[@]}" "${sanitize[@]}" program.c "${flags[@]}" "-Wl,-rpath,$lib" -o by-pkg-config
says ./by-pkg-config
cat >CMakeLists.txt <<EOP
cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES $languages)
find_package(unroll $(PKG_CONFIG_PATH=$lib/pkgconfig pkg-config --modversion unroll) REQUIRED)
add_executable(in-c program.c)
target_link_libraries(in-c PRIVATE unroll::unroll)
EOP
if [ -n "$UNROLL_CXX" ]; then
  cp program.c program.cc
  quietly "$UNROLL_CXX" -std=c++17 "${warnings[@]}" "${sanitize[@]}" program.cc "${flags[@]}" "-Wl,-rpath,$lib" -o by-pkg-config-cc
  says ./by-pkg-config-cc
  printf 'add_executable(in-cc program.cc)\ntarget_link_libraries(in-cc PRIVATE unroll::unroll)\n' >>CMakeLists.txt
fi
configure() { # SOURCES BUILD [OPTION...]
  quietly cmake -S "$1" -B "$2" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$UNROLL_CC" \
    ${UNROLL_CXX:+-DCMAKE_CXX_COMPILER="$UNROLL_CXX"} "-DCMAKE_C_FLAGS=${sanitize[*]} ${warnings[*]}" \
    "-DCMAKE_CXX_FLAGS=${sanitize[*]} ${warnings[*]} -std=c++17" -DCMAKE_EXPORT_COMPILE_COMMANDS=ON --no-warn-unused-cli
}
outside() { # BUILD: no compile command and no header that was read is of the source or the build tree
  ninja -C "$1" -t deps >"$1/deps.txt"
  grep -qF "$prefix/include/unroll/plugin.h" "$1/deps.txt" || fail "$1 was not built on the headers of the prefix"
  ! grep -F -e "$UNROLL_SOURCE_DIR" -e "$UNROLL_BUILD_DIR" "$1/deps.txt" "$1/build.ninja" "$1/compile_commands.json" ||
    fail "$1 was built with files of the source or the build tree"
}
configure . build
quietly cmake --build build
outside build
says build/in-c
[ -z "$UNROLL_CXX" ] || says build/in-cc

# ---- the template: copied out, built, judged, installed, found ----
mkdir "$work/empty"
cd "$work/empty"
cp -r "$(PKG_CONFIG_PATH=$lib/pkgconfig pkg-config --variable=templatedir unroll)" template
[ -e template/template.c ] || fail "the template is not where unroll.pc says"
configure template build
quietly cmake --build build
outside build
! ldd build/unroll-template.so | grep -q libunroll || fail "the template links libunroll"
quietly ctest --test-dir build --output-on-failure
grep ' cases, seed ' build/Testing/Temporary/LastTest.log || fail "the template's ctest did not judge it"
quietly cmake --install build
[ -e "$(PKG_CONFIG_PATH=$lib/pkgconfig pkg-config --variable=plugindir unroll)/unroll-template.so" ] ||
  fail "the template was not installed where plugins are found"
"$unroll" devices >devices.txt 2>&1
grep -q 'template:0' devices.txt || { cat devices.txt; fail "the installed template is not found"; }

# ---- a plugin in C++ ----
if [ -n "$UNROLL_CXX" ]; then
  cat >plugin.cc <<'EOP'
#include <cstring>
#include <unroll/philox.h>
#include <unroll/plugin.h>
namespace {
int32_t score(const unroll_host *) { return 1; }
unroll_status open_(const unroll_host *, const unroll_option *, uint32_t, unroll_backend **, const unroll_backend_ops **,
                    unroll_error *err) {
  if (err && UNROLL_HAS(unroll_error, err, message)) {
    err->code = UNROLL_E_DEVICE;
    std::strcpy(err->message, "no hardware for C++ here");
  }
  return UNROLL_E_DEVICE;
}
unroll_status close_(unroll_backend *, unroll_error *) { return UNROLL_OK; }
} // namespace
UNROLL_PLUGIN_EXPORT("org.example.cc") = {UNROLL_PLUGIN_HEADER, 0, "org.example.cc", "1.0", "Example", score, open_, close_};
EOP
  quietly "$UNROLL_CXX" -std=c++17 "${warnings[@]}" "${sanitize[@]}" -fPIC -shared -fvisibility=hidden "-I$prefix/include" \
    plugin.cc -o unroll-org.example.cc.so
  UNROLL_PLUGIN_FILES=$PWD/unroll-org.example.cc.so "$unroll" devices >devices.txt 2>&1
  grep -q 'its open failed: no hardware for C++ here' devices.txt || { cat devices.txt; fail "the plugin in C++ was not opened"; }
fi
echo "the SDK works, in $((SECONDS - started)) s"
