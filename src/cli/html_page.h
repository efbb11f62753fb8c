// The flag --html of the commands that can show their result as a page, and the page's way to disk.
//
// Errors: kIo naming the path that cannot be written, before the work begins; kUsage for no name.
#pragma once

#include <string>

#include "cli/command.h"
#include "report/page.h"

namespace cachalot::cli {

void add_html_flag(CLI::App& command, std::string& file);

// Throws where `file` could not be written; leaves nothing behind. Empty: no page is wanted.
void check_html(const std::string& file);
// With the command line and the version filled in; written whole or not at all.
void write_html(const std::string& file, report::Page page, const Globals& globals);

}  // namespace cachalot::cli
