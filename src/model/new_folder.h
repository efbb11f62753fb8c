// A model folder that is whole or not there: it grows beside its place under a hidden name, without
// a config.json until the end, and is renamed.
//
// Owns:    the folder it grows in, removed unless committed. A process that is killed leaves it
//          behind under its hidden name, ".NAME.tmp-PID", where nothing takes it for a model.
// Threads: one caller.
// Errors:  kUsage (the target is there and not an empty folder, or is a link that leads nowhere),
//          kIo with the path and what the system said, also where the disk has less room than the
//          folder is going to need.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot::model {

class NewFolder {
 public:
  // `bytes`: what is going to be written.
  NewFolder(const std::filesystem::path& target, std::uint64_t bytes);
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  const std::filesystem::path& path() const noexcept { return path_; }  // where it grows
  // The config.json, then everything to disk and under its name.
  void commit(std::string_view config_json);

  // kUsage unless `target` is not there or an empty folder; a link to one is followed. Returns it
  // with its name last.
  static std::filesystem::path checked(const std::filesystem::path& target);

 private:
  std::filesystem::path target_;
  std::filesystem::path path_;
};

// On the disk when it returns. `to` must not be there.
void copy_whole_file(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace cachalot::model
