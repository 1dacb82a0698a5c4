# SPDX-License-Identifier: Apache-2.0
# How a folder of sources becomes a target. A folder without sources gives none.

define_property(GLOBAL PROPERTY UNROLL_OBJECTS)

# What the library's own code may link, in one place for the shared and the internal library.
add_library(unroll_system INTERFACE)
target_link_libraries(unroll_system INTERFACE Threads::Threads ${CMAKE_DL_LIBS} m)

function(unroll_include_internal target scope)
  target_include_directories(${target} ${scope} ${PROJECT_SOURCE_DIR}/api/include ${PROJECT_SOURCE_DIR}/api
                             ${PROJECT_SOURCE_DIR} ${UNROLL_GENERATED})
endfunction()

function(unroll_objects target folder)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.c)
  if(sources)
    add_library(${target} OBJECT ${sources})
    target_link_libraries(${target} PRIVATE unroll_flags)
    set_property(GLOBAL APPEND PROPERTY UNROLL_OBJECTS $<TARGET_OBJECTS:${target}>)
  endif()
endfunction()

function(unroll_folder target folder)
  unroll_objects(${target} ${folder})
  if(TARGET ${target})
    unroll_include_internal(${target} PRIVATE)
    target_link_libraries(${target} PRIVATE unroll_system)
  endif()
endfunction()

# A backend sees the plugin headers and its own folder, nothing else.
function(unroll_static_backend id)
  unroll_objects(unroll_${id} backends/${id})
  if(TARGET unroll_${id})
    target_include_directories(unroll_${id} PRIVATE ${PROJECT_SOURCE_DIR}/api/include
                               ${PROJECT_SOURCE_DIR}/backends/${id})
    target_link_libraries(unroll_${id} PRIVATE Threads::Threads)
  endif()
endfunction()

function(unroll_tool)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tools/*.c)
  if(sources)
    add_executable(unroll_tool ${sources})
    set_target_properties(unroll_tool PROPERTIES OUTPUT_NAME unroll)
    set(assets CSS=${PROJECT_SOURCE_DIR}/tools/report.css JS=${PROJECT_SOURCE_DIR}/tools/report.js)
    set(page_files ${assets})
    list(TRANSFORM page_files REPLACE "^[A-Z]+=" "")
    list(TRANSFORM assets PREPEND -D)
    add_custom_command(
      OUTPUT ${UNROLL_GENERATED}/report_assets.c
      COMMAND ${CMAKE_COMMAND} -DOUTPUT=${UNROLL_GENERATED}/report_assets.c ${assets}
              -P ${PROJECT_SOURCE_DIR}/cmake/embed_page.cmake
      DEPENDS ${page_files} ${PROJECT_SOURCE_DIR}/cmake/embed_page.cmake
      VERBATIM)
    target_sources(unroll_tool PRIVATE ${UNROLL_GENERATED}/build_info.c ${UNROLL_GENERATED}/report_assets.c)
    target_include_directories(unroll_tool PRIVATE ${PROJECT_SOURCE_DIR}/tools ${UNROLL_GENERATED})
    target_link_libraries(unroll_tool PRIVATE unroll unroll_flags PkgConfig::jansson Threads::Threads ${CMAKE_DL_LIBS} m)
  endif()
endfunction()

# One program per file, on the public headers alone.
function(unroll_programs folder)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.c)
  foreach(source IN LISTS sources)
    cmake_path(GET source STEM stem)
    set(target ${folder}_${stem})
    add_executable(${target} ${source})
    set_target_properties(${target} PROPERTIES OUTPUT_NAME ${stem}
                          RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/${folder})
    target_link_libraries(${target} PRIVATE unroll unroll_flags Threads::Threads m)
  endforeach()
endfunction()
