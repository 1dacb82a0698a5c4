# SPDX-License-Identifier: Apache-2.0
# The OpenCL backend, a module that libunroll finds beside itself: lib/libunroll.so and lib/unroll/unroll-opencl.so.

function(unroll_opencl_backend)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/backends/opencl/*.c)
  if(UNROLL_OPENCL STREQUAL "OFF" OR NOT sources)
    set(UNROLL_OPENCL_SUMMARY "off" PARENT_SCOPE)
    return()
  endif()

  pkg_check_modules(OpenCL QUIET IMPORTED_TARGET OpenCL)
  pkg_check_modules(clblast QUIET IMPORTED_TARGET clblast)
  find_path(OPENCL_INCLUDE_DIR CL/cl.h HINTS ${OpenCL_INCLUDE_DIRS})
  find_library(OPENCL_LIBRARY OpenCL HINTS ${OpenCL_LIBRARY_DIRS})
  find_path(CLBLAST_INCLUDE_DIR clblast_c.h HINTS ${clblast_INCLUDE_DIRS})
  find_library(CLBLAST_LIBRARY clblast HINTS ${clblast_LIBRARY_DIRS})
  mark_as_advanced(OPENCL_INCLUDE_DIR OPENCL_LIBRARY CLBLAST_INCLUDE_DIR CLBLAST_LIBRARY)
  set(missing "")
  if(NOT OPENCL_INCLUDE_DIR)
    list(APPEND missing "the OpenCL headers (CL/cl.h)")
  endif()
  if(NOT OPENCL_LIBRARY)
    list(APPEND missing "the OpenCL ICD loader (libOpenCL)")
  endif()
  if(NOT CLBLAST_INCLUDE_DIR OR NOT CLBLAST_LIBRARY)
    list(APPEND missing "CLBlast (clblast_c.h, libclblast)")
  endif()
  if(missing)
    list(JOIN missing ", " missing)
    if(UNROLL_OPENCL STREQUAL "ON")
      message(FATAL_ERROR "UNROLL_OPENCL is ON, but not found: ${missing}")
    endif()
    set(UNROLL_OPENCL_SUMMARY "NOT BUILT, not found: ${missing}" PARENT_SCOPE)
    return()
  endif()

  file(GLOB kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/*.cl)
  list(APPEND kernels ${PROJECT_SOURCE_DIR}/api/include/unroll/philox.h ${PROJECT_SOURCE_DIR}/backends/opencl/tuning.txt)
  list(JOIN kernels "|" inputs)
  set(generated ${UNROLL_GENERATED}/opencl)
  configure_file(cmake/kernel_sources.h.in ${generated}/kernel_sources.h COPYONLY)
  add_custom_command(
    OUTPUT ${generated}/kernel_sources.c
    COMMAND ${CMAKE_COMMAND} -DOUTPUT=${generated}/kernel_sources.c "-DINPUTS=${inputs}"
            -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    DEPENDS ${kernels} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    COMMENT "Embedding the kernels" VERBATIM)

  add_library(unroll-opencl MODULE ${sources} ${generated}/kernel_sources.c)
  set_target_properties(unroll-opencl PROPERTIES PREFIX "" SUFFIX .so
                        LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib/unroll)
  target_include_directories(unroll-opencl PRIVATE ${PROJECT_SOURCE_DIR}/api/include
                             ${PROJECT_SOURCE_DIR}/backends/opencl ${generated})
  target_include_directories(unroll-opencl SYSTEM PRIVATE ${OPENCL_INCLUDE_DIR} ${CLBLAST_INCLUDE_DIR})
  target_compile_definitions(unroll-opencl PRIVATE CL_TARGET_OPENCL_VERSION=300)
  target_link_libraries(unroll-opencl PRIVATE unroll_flags ${CLBLAST_LIBRARY} ${OPENCL_LIBRARY} Threads::Threads m)
  set(map ${PROJECT_SOURCE_DIR}/cmake/plugin.map)
  target_link_options(unroll-opencl PRIVATE LINKER:--version-script=${map} ${no_undefined})
  set_target_properties(unroll-opencl PROPERTIES LINK_DEPENDS ${map})

  if(UNROLL_BENCH)
    add_executable(bench_opencl_peak ${PROJECT_SOURCE_DIR}/bench/opencl/opencl_peak.c)
    set_target_properties(bench_opencl_peak PROPERTIES OUTPUT_NAME opencl_peak
                          RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bench)
    target_include_directories(bench_opencl_peak SYSTEM PRIVATE ${OPENCL_INCLUDE_DIR})
    target_link_libraries(bench_opencl_peak PRIVATE unroll_flags ${OPENCL_LIBRARY})
  endif()
  set(UNROLL_OPENCL_SUMMARY "lib/unroll/unroll-opencl.so (${OPENCL_LIBRARY}, ${CLBLAST_LIBRARY})" PARENT_SCOPE)
endfunction()

unroll_opencl_backend()
