// The flag --html of the commands that can show their result as a page, and the page's way to disk.
//
// Errors: kUsage for no name; kIo where the page cannot be written, which check_output_file
//         (output_file.h) says before the work begins.
#pragma once

#include <string>

#include "cli/command.h"
#include "report/page.h"

namespace cachalot::cli {

void add_html_flag(CLI::App& command, std::string& file);

// The page's text, with the command line and the version filled in.
std::string html_text(report::Page page, const Globals& globals);
// The same into a file, written whole or not at all.
void write_html(const std::string& file, report::Page page, const Globals& globals);

}  // namespace cachalot::cli
