// The files that every page carries, as they lie in the source tree (cmake/embed.cmake).
//
// Threads: constants.
// Errors:  none.
#pragma once

#include <span>

#include "base/embedded_file.h"

namespace cachalot::report {

std::span<const EmbeddedFile> embedded_script();  // report/report.js
std::span<const EmbeddedFile> embedded_style();   // report/report.css
std::span<const EmbeddedFile> uplot_script();     // third_party/uplot
std::span<const EmbeddedFile> uplot_style();
std::span<const EmbeddedFile> uplot_licence();

}  // namespace cachalot::report
