// The files of the web page, as they lie in the source tree (web/, third_party/).
//
// Threads: constants.
// Errors:  none.
#pragma once

#include <string_view>
#include <vector>

namespace cachalot::serve {

struct PageFile {
  std::string_view path;  // "/", "/page.css", "/sse.js"
  std::string_view content_type;
  std::string_view text;
};

// nullptr where there is no such file.
const PageFile* page_file(std::string_view path);
const std::vector<PageFile>& page_files();

// What the page may load and run: files of this server alone.
inline constexpr std::string_view kPagePolicy =
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' "
    "data:; "
    "connect-src 'self'; frame-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'";

}  // namespace cachalot::serve
