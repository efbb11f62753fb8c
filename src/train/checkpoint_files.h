// The names and files of a run's checkpoints folder: what writing and finding share.
//
// Errors: kIo with the path and what the system said; kFormat for a checksums.json that lies.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <system_error>
#include <vector>

#include "base/error.h"
#include "io/checksum.h"

namespace cachalot::train {

inline constexpr const char* kCheckpointsFolder = "checkpoints";
inline constexpr const char* kChecksumsFile = "checksums.json";
inline constexpr const char* kTemporaryPrefix = ".tmp-";

std::string step_folder(std::int64_t step);  // "step-20"
// Steps that have a folder, rising. Other names are left alone.
std::vector<std::int64_t> list_steps(const std::filesystem::path& checkpoints);
// Removes folders that a killed writer left.
void clean_leftovers(const std::filesystem::path& checkpoints);

using Checksums = std::map<std::string, io::FileChecksum>;
std::string to_json(const Checksums& checksums);
Checksums read_checksums(const std::filesystem::path& file);

// Calls action(error_code&), and throws kIo "cannot <what> <path>: ..." where it failed.
template <class Action>
void checked(const char* what, const std::filesystem::path& path, Action&& action) {
  std::error_code error;
  action(error);
  if (error) {
    throw Error(Code::kIo, cat("cannot ", what, " ", path.string(), ": ", error.message(), "."));
  }
}

}  // namespace cachalot::train
