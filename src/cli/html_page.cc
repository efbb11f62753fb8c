#include "cli/html_page.h"

#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"
#include "report/html.h"

namespace cachalot::cli {

void add_html_flag(CLI::App& command, std::string& file) {
  command
      .add_option("--html", file,
                  "Write the result as one page that needs nothing else: tables, charts, sliders")
      ->check([](const std::string& name) {
        return name.empty() ? std::string("--html needs the name of a file") : std::string();
      })
      ->type_name("FILE");
}

void check_html(const std::string& file) {
  if (file.empty()) return;
  std::error_code unknown;
  if (std::filesystem::is_directory(file, unknown)) {
    throw Error(Code::kIo, cat("--html ", file, " is a folder; name a file in it."));
  }
  try {
    const AtomicFile trial(file);  // removed again
  } catch (const Error& e) {
    throw Error(Code::kIo, cat("--html ", file, " cannot be written: ", e.what()));
  }
}

void write_html(const std::string& file, report::Page page, const Globals& globals) {
  if (file.empty()) return;
  page.command = globals.command_line;
  page.version = kVersion;
  write_file_atomically(file, report::to_html(page));
}

}  // namespace cachalot::cli
