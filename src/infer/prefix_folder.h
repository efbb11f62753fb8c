// The folder of a prefix store: who may use it, and what its format is.
//
//   STORE      what this folder is, the format's version, the secret of its keys; written once
//   lock       held by the process that has it open
//   db/        RocksDB's files
//   incoming/  files on their way into db/; emptied at every opening
//
// Owns:    the lock, as long as it lives.
// Threads: one.
// Errors:  kBusy (another process has it), kFormat (not a prefix store), kUnsupported (a newer
//          version), kIo. Each names the folder and says what to do. A damaged STORE is no error:
//          the store starts afresh, reported.
#pragma once

#include <filesystem>
#include <optional>

#include "base/atomic_file.h"
#include "infer/prefix_key.h"
#include "infer/prefix_reports.h"

namespace cachalot::infer {

inline constexpr int kStoreVersion = 1;

class PrefixFolder {
 public:
  PrefixFolder(std::filesystem::path path, const Report& report);

  const std::filesystem::path& path() const noexcept { return path_; }
  std::filesystem::path database() const { return path_ / "db"; }
  std::filesystem::path incoming() const { return path_ / "incoming"; }
  const ChainSecret& secret() const noexcept { return secret_; }

 private:
  void refuse_a_strangers_folder() const;
  void read_or_create(const Report& report);

  std::filesystem::path path_;
  std::optional<FileLock> lock_;
  ChainSecret secret_{};
};

}  // namespace cachalot::infer
