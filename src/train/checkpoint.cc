// Finding and checking checkpoints; checkpoint_write.cc writes them.
#include "train/checkpoint.h"

#include <algorithm>

#include "base/error.h"
#include "train/checkpoint_files.h"

namespace cachalot::train {

namespace fs = std::filesystem;

static fs::path created(const fs::path& run_dir) {
  checked("create the folder", run_dir,
          [&](std::error_code& error) { fs::create_directories(run_dir, error); });
  return run_dir / "lock";
}

RunLock::RunLock(const fs::path& run_dir) : lock_(created(run_dir)) {}

static std::string check_files(const fs::path& folder, bool contents) {
  try {
    const auto recorded = read_checksums(folder / kChecksumsFile);
    for (const char* needed : {"config.json", "optimizer.safetensors", "trainer.json"}) {
      if (!recorded.contains(needed)) return cat(kChecksumsFile, " does not list ", needed);
    }
    for (const auto& [name, want] : recorded) {
      std::error_code error;
      const auto status = fs::status(folder / name, error);
      if (!fs::exists(status)) return cat(name, " is missing");
      if (!fs::is_regular_file(status)) return cat(name, " is not a file");
      const auto bytes = fs::file_size(folder / name, error);
      if (!error && bytes != want.bytes) {
        return cat(name, " has ", bytes, " bytes instead of ", want.bytes);
      }
    }
    if (!contents) return {};
    for (const auto& [name, want] : recorded) {  // sizes first: they cost nothing
      if (io::file_checksum(folder / name) != want) {
        return cat(name, " has other bytes than were written (checksum)");
      }
    }
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}

std::string check_checkpoint(const fs::path& folder) { return check_files(folder, true); }

std::string check_checkpoint_sizes(const fs::path& folder) { return check_files(folder, false); }

FoundCheckpoint find_newest_checkpoint(const fs::path& run_dir) {
  const fs::path all = run_dir / kCheckpointsFolder;
  FoundCheckpoint found;
  std::error_code missing;
  if (!fs::exists(all, missing)) return found;
  clean_leftovers(all);
  auto steps = list_steps(all);
  std::reverse(steps.begin(), steps.end());
  for (const std::int64_t step : steps) {
    const fs::path folder = all / step_folder(step);
    const std::string why = check_checkpoint(folder);
    if (why.empty()) {
      found.path = folder;
      found.step = step;
      break;
    }
    found.skipped.push_back({folder, why});
  }
  return found;
}

}  // namespace cachalot::train
