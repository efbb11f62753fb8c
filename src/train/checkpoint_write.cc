// Writing a checkpoint: beside, synced, renamed, then the oldest removed.
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "train/checkpoint.h"
#include "train/checkpoint_files.h"

namespace cachalot::train {

namespace fs = std::filesystem;

namespace {

// A folder that is removed unless it was renamed away.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(fs::path path) : path_(std::move(path)) {
    checked("create the folder", path_,
            [&](std::error_code& error) { fs::create_directory(path_, error); });
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const fs::path& path() const noexcept { return path_; }

 private:
  fs::path path_;
};

void rename_checked(const fs::path& from, const fs::path& to) {
  checked("rename to", to, [&](std::error_code& error) { fs::rename(from, to, error); });
}

// Puts `fresh` in the place of `target`; what was there is in `fresh` afterwards, to be removed.
// The exchange is one step where the file system can: at no instant is there no folder of that
// step.
void replace_folder(const fs::path& fresh, const fs::path& target) {
  if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) return;
  if (errno == ENOENT) {  // nothing there yet: the usual case
    rename_checked(fresh, target);
    return;
  }
  const fs::path old = fresh.string() + "-old";
  rename_checked(target, old);
  rename_checked(fresh, target);
  rename_checked(old, fresh);
}

std::string bytes_of(const fs::path& file) {
  constexpr std::uint64_t kMostBytes = 1ull << 30;
  return read_file(file, kMostBytes);
}

void write_files(const fs::path& folder, const CheckpointContent& content) {
  io::write_model_safetensors(folder, content.model);
  io::write_safetensors(folder / "optimizer.safetensors", content.optimizer);
  std::map<std::string, std::string> texts = content.other_files;
  for (const fs::path& file : content.copied_files) {
    texts[file.filename().string()] = bytes_of(file);
  }
  texts["config.json"] = content.config_json;
  texts["generation_config.json"] = content.generation_config_json;
  texts["trainer.json"] = content.trainer_json;
  for (const auto& [name, text] : texts) write_file_atomically(folder / name, text);

  Checksums checksums;
  for (const auto& entry : fs::directory_iterator(folder)) {
    checksums[entry.path().filename().string()] = io::file_checksum(entry.path());
  }
  write_file_atomically(folder / kChecksumsFile, to_json(checksums));
  sync_folder(folder);
}

// A folder that is being removed is renamed first, so that a half-removed one is never seen.
void prune(const fs::path& checkpoints, std::int64_t newest, int keep_last) {
  auto steps = list_steps(checkpoints);
  // Newer ones were found damaged when this run was resumed; they are left for a person to look at
  // until their step is written again.
  std::erase_if(steps, [&](std::int64_t step) { return step > newest; });
  const auto keep = static_cast<std::size_t>(std::max(keep_last, 1));
  for (std::size_t i = 0; i + keep < steps.size(); ++i) {
    const fs::path doomed = checkpoints / cat(kTemporaryPrefix, "removed-", steps[i]);
    rename_checked(checkpoints / step_folder(steps[i]), doomed);
    checked("remove", doomed, [&](std::error_code& error) { fs::remove_all(doomed, error); });
  }
}

}  // namespace

fs::path write_checkpoint(const fs::path& run_dir, std::int64_t step,
                          const CheckpointContent& content, int keep_last) {
  const fs::path all = run_dir / kCheckpointsFolder;
  checked("create the folder", all,
          [&](std::error_code& error) { fs::create_directories(all, error); });
  sync_folder(run_dir);
  clean_leftovers(all);
  const fs::path target = all / step_folder(step);
  {
    const TemporaryFolder fresh(all / cat(kTemporaryPrefix, step));
    write_files(fresh.path(), content);
    replace_folder(fresh.path(), target);
  }
  sync_folder(all);
  prune(all, step, keep_last);
  return target;
}

}  // namespace cachalot::train
