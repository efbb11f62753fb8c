// A small file of the source tree that lies inside the program (cmake/embed.cmake makes it so).
//
// Owns:    nothing; the text lives as long as the program.
#pragma once

#include <string_view>

namespace cachalot {

struct EmbeddedFile {
  std::string_view name;  // without folder and extension
  std::string_view text;
};

}  // namespace cachalot
