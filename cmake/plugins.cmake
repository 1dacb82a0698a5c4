# SPDX-License-Identifier: Apache-2.0
# Plugins that come with the project and that nobody should find by chance: build/plugins/ is searched only where it is named.
#   unroll-template.so   the backend to copy; its own CMakeLists.txt builds it outside of this tree
#   unroll-null.so       computes nothing: for bench/dispatch.c

function(unroll_plugin id)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/plugins/${id}/*.c)
  add_library(unroll-${id} MODULE ${sources})
  set_target_properties(unroll-${id} PROPERTIES PREFIX "" SUFFIX .so
                        LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/plugins)
  target_include_directories(unroll-${id} PRIVATE ${PROJECT_SOURCE_DIR}/api/include)
  target_link_libraries(unroll-${id} PRIVATE unroll_flags m)
  target_link_options(unroll-${id} PRIVATE ${no_undefined})
endfunction()

unroll_plugin(template)
unroll_plugin(null)
