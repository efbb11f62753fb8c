#include "cli/html_page.h"

#include "base/atomic_file.h"
#include "cli/output_file.h"
#include "report/html.h"

namespace cachalot::cli {

void add_html_flag(CLI::App& command, std::string& file) {
  add_output_file(command, "--html", file,
                  "Write the result as one page that needs nothing else: tables, charts, sliders");
}

std::string html_text(report::Page page, const Globals& globals) {
  page.command = globals.command_line;
  page.version = kVersion;
  return report::to_html(page);
}

void write_html(const std::string& file, report::Page page, const Globals& globals) {
  if (file.empty()) return;
  write_file_atomically(file, html_text(std::move(page), globals));
}

}  // namespace cachalot::cli
