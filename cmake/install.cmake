# SPDX-License-Identifier: Apache-2.0
if(NOT TARGET unroll)
  return()
endif()
include(CMakePackageConfigHelpers)

set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/unroll)
install(TARGETS unroll EXPORT unrollTargets)
install(EXPORT unrollTargets NAMESPACE unroll:: DESTINATION ${config_dir})
install(DIRECTORY api/include/unroll DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
if(TARGET unroll_tool)
  file(RELATIVE_PATH up /${CMAKE_INSTALL_BINDIR} /${CMAKE_INSTALL_LIBDIR})
  set_target_properties(unroll_tool PROPERTIES INSTALL_RPATH $ORIGIN/${up})
  set_target_properties(unroll_tool PROPERTIES EXPORT_NAME tool)
  install(TARGETS unroll_tool EXPORT unrollTargets)
endif()

# Where a plugin is found that its user only installed: beside the library.
set(plugin_dir ${CMAKE_INSTALL_LIBDIR}/unroll)
foreach(plugin unroll-opencl unroll-onednn)
  if(TARGET ${plugin})
    install(TARGETS ${plugin} LIBRARY DESTINATION ${plugin_dir})
  endif()
endforeach()

set(template_dir ${CMAKE_INSTALL_DATADIR}/unroll/template)
install(DIRECTORY plugins/template/ DESTINATION ${template_dir})
configure_package_config_file(cmake/unrollConfig.cmake.in ${UNROLL_GENERATED}/unrollConfig.cmake
                              INSTALL_DESTINATION ${config_dir}
                              PATH_VARS CMAKE_INSTALL_INCLUDEDIR plugin_dir template_dir)
write_basic_package_version_file(${UNROLL_GENERATED}/unrollConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${UNROLL_GENERATED}/unrollConfig.cmake ${UNROLL_GENERATED}/unrollConfigVersion.cmake
        DESTINATION ${config_dir})

# The prefix is said relative to the file itself, so that an installed tree may be moved.
file(RELATIVE_PATH pc_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/unroll.pc.in ${UNROLL_GENERATED}/unroll.pc @ONLY)
install(FILES ${UNROLL_GENERATED}/unroll.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(FILES LICENSE CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES README.md DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md" PATTERN "*.svg" PATTERN "*.png")
