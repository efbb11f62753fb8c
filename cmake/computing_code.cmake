# cachalot_computing_code(TARGET): the fingerprint of the code that computes, in TARGET (src/infer/computing_code.h says
# what it is for). It is taken when building: of the sources below, the compiler and its flags, by content and by path
# below the source tree alone, so that equal sources give equal fingerprints wherever and whenever they are built. An
# edit costs one small file, which is compiled again.
#
# As a script, which the tests run too:
#   cmake -DROOT=SOURCE_TREE -DLIST=FILE -DOUT=FILE.cc -P computing_code.cmake
# LIST says what compiles, then the sources, each on a line that begins with src/.
if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  file(READ ${LIST} all)
  file(STRINGS ${LIST} sources REGEX "^src/")
  foreach(source IN LISTS sources)
    file(SHA256 ${ROOT}/${source} hash)
    string(APPEND all "${hash}\n")
  endforeach()
  string(SHA256 hash "${all}")
  string(SUBSTRING ${hash} 0 32 hash)
  # Written where it changed alone, so that nothing is compiled for nothing.
  file(CONFIGURE OUTPUT ${OUT} @ONLY CONTENT [=[
#include "infer/computing_code.h"

namespace cachalot::infer {

std::string_view sources_fingerprint() noexcept { return "@hash@"; }

}  // namespace cachalot::infer
]=])
  return()
endif()

# What a model's passes are made of: `model` and what it may include (tools/layers.txt), and the kernels for it.
set(CACHALOT_COMPUTING_FOLDERS base tensor numeric io kernels kernels/cpu nn model)

function(cachalot_computing_code target)
  execute_process(COMMAND ${CMAKE_CXX_COMPILER} --version OUTPUT_VARIABLE version ERROR_QUIET)
  string(REGEX REPLACE "\n.*" "" version "${version}")
  string(TOUPPER "${CMAKE_BUILD_TYPE}" type)
  get_directory_property(options COMPILE_OPTIONS)
  get_directory_property(definitions COMPILE_DEFINITIONS)
  set(text "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}: ${version}\n${CMAKE_SYSTEM_PROCESSOR}\n")
  string(APPEND text "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${type}} ${options} ${definitions}\n")
  set(folders ${CACHALOT_COMPUTING_FOLDERS})
  if(CACHALOT_HAS_CUDA)
    list(APPEND folders kernels/cuda)
    get_target_property(cuda_options cachalot_kernels_cuda COMPILE_OPTIONS)
    string(APPEND text "CUDA ${CMAKE_CUDA_COMPILER_VERSION} ${CMAKE_CUDA_FLAGS} ${CMAKE_CUDA_FLAGS_${type}} "
                       "${cuda_options}\n")
  endif()
  set(sources "")
  foreach(folder IN LISTS folders)
    set(dir ${CMAKE_SOURCE_DIR}/src/${folder})
    file(GLOB found CONFIGURE_DEPENDS ${dir}/*.cc ${dir}/*.h ${dir}/*.inc ${dir}/*.cu ${dir}/*.cuh)
    list(FILTER found EXCLUDE REGEX "_test[.](cc|h|cu)$")
    list(FILTER found EXCLUDE REGEX "_test\\.[a-z]+$")
    list(APPEND sources ${found})
  endforeach()
  foreach(source IN LISTS sources)
    file(RELATIVE_PATH name ${CMAKE_SOURCE_DIR} ${source})
    string(APPEND text "${name}\n")
  endforeach()
  set(list ${CMAKE_BINARY_DIR}/generated/computing_code.txt)
  set(out ${CMAKE_BINARY_DIR}/generated/computing_code.cc)
  file(CONFIGURE OUTPUT ${list} @ONLY CONTENT "${text}")
  set(script ${CMAKE_CURRENT_FUNCTION_LIST_FILE})
  add_custom_command(OUTPUT ${out}
                     COMMAND ${CMAKE_COMMAND} -DROOT=${CMAKE_SOURCE_DIR} -DLIST=${list} -DOUT=${out} -P ${script}
                     DEPENDS ${list} ${script} ${sources} COMMENT "Naming the code that computes" VERBATIM)
  target_sources(${target} PRIVATE ${out})
endfunction()
