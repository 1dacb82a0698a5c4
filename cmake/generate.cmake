# SPDX-License-Identifier: Apache-2.0
# The two C files that only the build can write.

# build_info.h / build_info.c: what this library was built with, for version and bug reports.
function(unroll_generate_build_info target)
  string(TOUPPER "${CMAKE_BUILD_TYPE}" type)
  string(STRIP "${CMAKE_C_FLAGS} ${CMAKE_C_FLAGS_${type}}" flags)
  string(REPLACE "\"" "\\\"" flags "${flags}")
  configure_file(cmake/build_info.h.in ${UNROLL_GENERATED}/build_info.h @ONLY)
  configure_file(cmake/build_info.c.in ${UNROLL_GENERATED}/build_info.c @ONLY)
  target_sources(${target} PRIVATE ${UNROLL_GENERATED}/build_info.c)
endfunction()

# static_backends.c: the table of backends that are linked in, NULL at its end.
function(unroll_generate_static_backends target)
  set(declarations "")
  set(entries "")
  foreach(id IN LISTS UNROLL_STATIC_BACKENDS)
    if(TARGET unroll_${id})
      string(APPEND declarations "extern const unroll_plugin unroll_plugin_v1_${id};\n")
      string(APPEND entries "&unroll_plugin_v1_${id}, ")
    else()
      message(FATAL_ERROR "UNROLL_STATIC_BACKENDS names ${id}, but backends/${id} has no sources")
    endif()
  endforeach()
  configure_file(cmake/static_backends.c.in ${UNROLL_GENERATED}/static_backends.c @ONLY)
  target_sources(${target} PRIVATE ${UNROLL_GENERATED}/static_backends.c)
endfunction()
