# cachalot_embed(TARGET FUNCTION FOLDER EXTENSION): the files FOLDER/*.EXTENSION as text inside the library TARGET,
# so that they are found by name wherever the program runs. Declares nothing: a header of the target declares
#   std::span<const cachalot::EmbeddedFile> FUNCTION();
function(cachalot_embed target function folder extension)
  file(GLOB files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/*.${extension})
  list(SORT files)
  set(items "")
  foreach(file IN LISTS files)
    get_filename_component(name ${file} NAME_WLE)
    file(READ ${file} text)
    string(APPEND items "    {\"${name}\", R\"=====(${text})=====\"},\n")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  endforeach()
  string(REPLACE "::" ";" parts ${function})
  list(POP_BACK parts name)
  list(JOIN parts "::" namespace)
  set(source ${CMAKE_BINARY_DIR}/generated/${target}_${name}.cc)
  file(CONFIGURE OUTPUT ${source} @ONLY CONTENT [=[
#include <span>

#include "base/embedded_file.h"

namespace @namespace@ {

std::span<const cachalot::EmbeddedFile> @name@();
std::span<const cachalot::EmbeddedFile> @name@() {
  static constexpr cachalot::EmbeddedFile kFiles[] = {
@items@  };
  return kFiles;
}

}  // namespace @namespace@
]=])
  target_sources(${target} PRIVATE ${source})
endfunction()
