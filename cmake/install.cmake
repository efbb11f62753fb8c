# The library for other projects: headers, static libraries and a package, so that
#   find_package(cachalot REQUIRED)
#   target_link_libraries(mine PRIVATE cachalot::cachalot)
# works there. cachalot::cachalot is all of it; cachalot::io, cachalot::kernels... are its rooms.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

get_property(modules GLOBAL PROPERTY CACHALOT_MODULES)
list(REMOVE_ITEM modules cachalot_testing)
add_library(cachalot_all INTERFACE)
target_link_libraries(cachalot_all INTERFACE ${modules})
set_target_properties(cachalot_all PROPERTIES EXPORT_NAME cachalot)
foreach(module IN LISTS modules)
  string(REPLACE cachalot_ "" room ${module})
  set_target_properties(${module} PROPERTIES EXPORT_NAME ${room})
endforeach()

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/cachalot)
install(TARGETS cachalot_all ${modules} EXPORT cachalot-targets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT cachalot-targets NAMESPACE cachalot:: DESTINATION ${package})
install(DIRECTORY src/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/cachalot
        FILES_MATCHING PATTERN "*.h" PATTERN testing EXCLUDE PATTERN cli EXCLUDE)
install(FILES LICENSE NOTICE DESTINATION ${CMAKE_INSTALL_DOCDIR})
foreach(library uplot marked dompurify)
  install(FILES third_party/${library}/LICENSE.txt DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME LICENSE.${library}.txt)
endforeach()
configure_package_config_file(cmake/cachalot-config.cmake.in ${CMAKE_BINARY_DIR}/cachalot-config.cmake
                              INSTALL_DESTINATION ${package})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/cachalot-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/cachalot-config.cmake
              ${CMAKE_BINARY_DIR}/cachalot-config-version.cmake DESTINATION ${package})
