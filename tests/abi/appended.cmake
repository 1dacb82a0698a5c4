# SPDX-License-Identifier: Apache-2.0
# The rule that fields are only ever appended, tried out: the library and its backends once more, built against a plugin.h
# in which every struct that may grow has one more field at its end. abi_append_test.sh runs each host with each plugin.
set(appended ${CMAKE_CURRENT_BINARY_DIR}/abi)
set(appended_header ${appended}/include/unroll/plugin.h)
set(plugin_header ${PROJECT_SOURCE_DIR}/api/include/unroll/plugin.h)
file(MAKE_DIRECTORY ${appended}/include/unroll)
add_custom_command(
  OUTPUT ${appended_header}
  COMMAND ${UNROLL_PYTHON} -B ${CMAKE_CURRENT_SOURCE_DIR}/abi/plugin_abi.py appended ${CMAKE_C_COMPILER}
          ${plugin_header} > ${appended_header}
  DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/abi/plugin_abi.py ${plugin_header}
  COMMENT "A plugin.h with one more field in every struct" VERBATIM)
add_custom_target(appended_header DEPENDS ${appended_header})

# Behind the project's own flags, or clang takes theirs.
add_library(appended_flags INTERFACE)
target_compile_options(appended_flags INTERFACE -O1 -Wno-missing-field-initializers)

# Before all other folders of headers. Initialisers by position now lack the field, and speed does not matter here.
function(unroll_appended target)
  add_dependencies(${target} appended_header)
  target_include_directories(${target} BEFORE PRIVATE ${appended}/include)
  target_link_libraries(${target} PRIVATE unroll_flags appended_flags)
  set_target_properties(${target} PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${appended}/appended
                        RUNTIME_OUTPUT_DIRECTORY ${appended}/appended)
endfunction()

# The host: of the library what a step of training needs.
add_executable(training_step abi/training_step.c)
add_executable(training_step_appended abi/training_step.c)
foreach(part IN ITEMS unroll_base unroll_graph unroll_plugins unroll_runtime unroll_nn unroll_cpu)
  get_target_property(sources ${part} SOURCES)
  target_sources(training_step PRIVATE $<TARGET_OBJECTS:${part}>)
  target_sources(training_step_appended PRIVATE ${sources})
endforeach()
unroll_appended(training_step_appended)
foreach(target IN ITEMS training_step training_step_appended)
  unroll_include_internal(${target} PRIVATE)
  target_link_libraries(${target} PRIVATE unroll_system)
endforeach()

add_library(cpu_from_file MODULE abi/cpu_from_file.c $<TARGET_OBJECTS:unroll_cpu>)
get_target_property(sources unroll_cpu SOURCES)
add_library(cpu_from_file_appended MODULE abi/cpu_from_file.c ${sources})
unroll_appended(cpu_from_file_appended)
target_include_directories(cpu_from_file_appended PRIVATE ${PROJECT_SOURCE_DIR}/backends/cpu)
foreach(target IN ITEMS cpu_from_file cpu_from_file_appended)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/api/include)
  target_link_libraries(${target} PRIVATE Threads::Threads m)
endforeach()
foreach(target IN ITEMS training_step cpu_from_file)
  target_link_libraries(${target} PRIVATE unroll_flags)
  set_target_properties(${target} PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${appended}/plain
                        RUNTIME_OUTPUT_DIRECTORY ${appended}/plain)
endforeach()
set_target_properties(training_step_appended PROPERTIES OUTPUT_NAME training_step)
set_target_properties(cpu_from_file_appended PROPERTIES OUTPUT_NAME cpu_from_file)

# Backends that are plugins anyway: from the same sources, with the same headers and libraries.
foreach(backend IN ITEMS unroll-opencl unroll-onednn)
  if(TARGET ${backend})
    add_library(${backend}_appended MODULE)
    add_dependencies(${backend}_appended ${backend})
    unroll_appended(${backend}_appended)
    foreach(property IN ITEMS SOURCES INCLUDE_DIRECTORIES COMPILE_DEFINITIONS LINK_LIBRARIES LINK_OPTIONS)
      get_target_property(value ${backend} ${property})
      if(value)
        set_property(TARGET ${backend}_appended APPEND PROPERTY ${property} ${value})
      endif()
    endforeach()
    set_target_properties(${backend}_appended PROPERTIES OUTPUT_NAME ${backend})
  endif()
endforeach()
