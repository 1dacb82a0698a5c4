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
  install(TARGETS unroll_tool)
endif()
if(TARGET unroll-opencl)
  install(TARGETS unroll-opencl LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/unroll)
endif()

configure_package_config_file(cmake/unrollConfig.cmake.in ${UNROLL_GENERATED}/unrollConfig.cmake
                              INSTALL_DESTINATION ${config_dir})
write_basic_package_version_file(${UNROLL_GENERATED}/unrollConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${UNROLL_GENERATED}/unrollConfig.cmake ${UNROLL_GENERATED}/unrollConfigVersion.cmake
        DESTINATION ${config_dir})

# The prefix is said relative to the file itself, so that an installed tree may be moved.
file(RELATIVE_PATH pc_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/unroll.pc.in ${UNROLL_GENERATED}/unroll.pc @ONLY)
install(FILES ${UNROLL_GENERATED}/unroll.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(FILES LICENSE CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES README.md DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md")
