# cachalot_module(NAME folder DEPS other-modules... LIBS libraries...)
#
# A folder under src/ becomes the target cachalot_<name> from its *.cc; each *_test.cc beside the code is part of
# one test program <name>_test. Tests whose suite name contains "Fixture" get the ctest label "fixtures", suites with
# "Slow" the label "slow", the rest "unit".
function(cachalot_module)
  cmake_parse_arguments(M "" "NAME;FOLDER" "DEPS;LIBS;TEST_DEPS" ${ARGN})
  if(NOT M_FOLDER)
    set(M_FOLDER ${M_NAME})
  endif()
  set(dir ${CMAKE_CURRENT_SOURCE_DIR}/${M_FOLDER})
  file(GLOB sources CONFIGURE_DEPENDS ${dir}/*.cc)
  file(GLOB tests CONFIGURE_DEPENDS ${dir}/*_test.cc)
  if(tests)
    list(REMOVE_ITEM sources ${tests})
  endif()
  set(deps ${M_DEPS})
  list(TRANSFORM deps PREPEND cachalot_)
  if(sources)
    add_library(cachalot_${M_NAME} STATIC ${sources})
    set(scope PUBLIC)
  else()
    add_library(cachalot_${M_NAME} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(cachalot_${M_NAME} ${scope}
    $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/src> $<INSTALL_INTERFACE:include/cachalot>)
  target_link_libraries(cachalot_${M_NAME} ${scope} ${deps} ${M_LIBS})
  set_property(GLOBAL APPEND PROPERTY CACHALOT_MODULES cachalot_${M_NAME})

  if(CACHALOT_TESTS AND tests)
    set(test_deps ${M_TEST_DEPS})
    list(TRANSFORM test_deps PREPEND cachalot_)
    add_executable(${M_NAME}_test ${tests})
    target_link_libraries(${M_NAME}_test PRIVATE cachalot_${M_NAME} ${test_deps} GTest::gtest
                          GTest::gmock GTest::gtest_main)
    target_compile_definitions(${M_NAME}_test PRIVATE
      CACHALOT_SOURCE_DIR="${CMAKE_SOURCE_DIR}" CACHALOT_BINARY_DIR="${CMAKE_BINARY_DIR}")
    set(prefix ${M_NAME}.)
    include(GoogleTest)
    gtest_discover_tests(${M_NAME}_test TEST_PREFIX ${prefix} TEST_FILTER -*Fixture*:*Slow*
                         DISCOVERY_MODE PRE_TEST PROPERTIES LABELS unit)
    gtest_discover_tests(${M_NAME}_test TEST_PREFIX ${prefix} TEST_FILTER *Fixture*
                         TEST_LIST ${M_NAME}_fixture_tests DISCOVERY_MODE PRE_TEST
                         PROPERTIES LABELS fixtures)
    gtest_discover_tests(${M_NAME}_test TEST_PREFIX ${prefix} TEST_FILTER *Slow*:-*Fixture*
                         TEST_LIST ${M_NAME}_slow_tests DISCOVERY_MODE PRE_TEST
                         PROPERTIES LABELS slow)
  endif()
endfunction()
