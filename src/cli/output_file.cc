#include "cli/output_file.h"

#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"

namespace cachalot::cli {

namespace {

namespace fs = std::filesystem;

// A file beside `path`, removed again.
void try_to_write(const std::string& flag, const std::string& name, const fs::path& path) {
  try {
    const AtomicFile trial(path);
  } catch (const Error& e) {
    throw Error(Code::kIo, cat(flag, " ", name, " cannot be written: ", e.what(),
                               " Name a place that you may write to."));
  }
}

}  // namespace

CLI::Option* add_output_file(CLI::App& command, const std::string& flag, std::string& file,
                             const std::string& help) {
  return command.add_option(flag, file, help)
      ->check([flag](const std::string& name) {
        return name.empty() ? flag + " needs the name of a file" : std::string();
      })
      ->type_name("FILE");
}

void check_output_file(const std::string& flag, const std::string& file) {
  if (file.empty()) return;
  const fs::path path(file);
  std::error_code unknown;
  if (fs::is_directory(path, unknown) || !path.has_filename()) {
    throw Error(Code::kIo, cat(flag, " ", file, " is a folder; name a file in it."));
  }
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (!fs::exists(folder, unknown) && !unknown) {
    throw Error(Code::kIo, cat(flag, " ", file, " cannot be written: there is no folder ",
                               folder.string(), ". Make it first, or name another file."));
  }
  try_to_write(flag, file, path);
}

void check_output_folder(const std::string& flag, const std::string& folder) {
  if (folder.empty()) return;
  // What is there already of the way to it.
  fs::path there = fs::absolute(folder).lexically_normal();
  std::error_code unknown;
  while (!fs::exists(there, unknown) && there.has_relative_path()) there = there.parent_path();
  if (!fs::is_directory(there, unknown)) {
    throw Error(Code::kIo, cat(flag, " ", folder, " cannot be made: ", there.string(),
                               " is no folder. Name another one."));
  }
  try_to_write(flag, folder, there / "trial");
}

}  // namespace cachalot::cli
