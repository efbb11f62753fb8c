// Writing a checkpoint: beside, synced, renamed, then the oldest removed.
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>

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
  if (std::error_code ignored; !fs::exists(target, ignored)) {
    rename_checked(fresh, target);  // a system that refuses exchanges before it looks at paths
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

using Texts = std::map<std::string, std::string>;

// What makes a folder a Hugging Face model, beside its weights.
Texts model_texts(const CheckpointContent& content) {
  Texts texts;
  for (const fs::path& file : content.copied_files) {
    texts[file.filename().string()] = bytes_of(file);
  }
  texts["config.json"] = content.config_json;
  texts["generation_config.json"] = content.generation_config_json;
  return texts;
}

void write_model(const fs::path& folder, std::span<const io::TensorToWrite> tensors,
                 const Texts& texts) {
  io::write_model_safetensors(folder, tensors);
  for (const auto& [name, text] : texts) write_file_atomically(folder / name, text);
}

void write_files(const fs::path& folder, const CheckpointContent& content) {
  Texts texts = model_texts(content);
  if (!content.ema.empty()) {
    const fs::path ema = folder / kAverageFolder;
    checked("create the folder", ema,
            [&](std::error_code& error) { fs::create_directory(ema, error); });
    write_model(ema, content.ema, texts);
    sync_folder(ema);
  }
  texts.insert(content.other_files.begin(), content.other_files.end());
  texts["trainer.json"] = content.trainer_json;
  write_model(folder, content.model, texts);
  io::write_safetensors(folder / "optimizer.safetensors", content.optimizer);

  Checksums checksums;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    const std::string name = entry.path().lexically_relative(folder).generic_string();
    checksums[name] = io::file_checksum(entry.path());
  }
  write_file_atomically(folder / kChecksumsFile, to_json(checksums));
  sync_folder(folder);
}

// A folder that is being removed is renamed first, so that a half-removed one is never seen.
void remove_step(const fs::path& checkpoints, std::int64_t step) {
  const fs::path doomed = checkpoints / cat(kTemporaryPrefix, "removed-", step);
  rename_checked(checkpoints / step_folder(step), doomed);
  checked("remove", doomed, [&](std::error_code& error) { fs::remove_all(doomed, error); });
}

// Removes what is older than the newest `keep_last` whole ones, damaged ones among it: those that
// lie between the whole ones stay, for a person to look at, and push nothing out.
void prune(const fs::path& checkpoints, std::int64_t newest, int keep_last,
           std::set<std::int64_t>& known_whole) {
  auto steps = list_steps(checkpoints);
  // Newer ones were found damaged when this run was resumed; they are left for a person to look at
  // until their step is written again.
  std::erase_if(steps, [&](std::int64_t step) { return step > newest; });
  const auto keep = static_cast<std::size_t>(std::max(keep_last, 1));
  if (steps.size() <= keep) return;  // whatever they are
  std::size_t whole = 0;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const fs::path folder = checkpoints / step_folder(*step);
    if (whole == keep) {
      remove_step(checkpoints, *step);
      known_whole.erase(*step);
      continue;
    }
    const bool known = known_whole.contains(*step);
    if (!(known ? check_checkpoint_sizes(folder) : check_checkpoint(folder)).empty()) continue;
    known_whole.insert(*step);
    ++whole;
  }
}

}  // namespace

void point_model_at(const fs::path& run_dir, const fs::path& checkpoint) {
  const fs::path link = run_dir / "model";
  const fs::path beside = run_dir / "model.new";
  checked("remove", beside, [&](std::error_code& error) { fs::remove(beside, error); });
  checked("create the link", beside, [&](std::error_code& error) {
    fs::create_directory_symlink(fs::path(kCheckpointsFolder) / checkpoint.filename(), beside,
                                 error);
  });
  rename_checked(beside, link);
  sync_folder(run_dir);
}

fs::path write_checkpoint(const fs::path& run_dir, std::int64_t step,
                          const CheckpointContent& content, int keep_last,
                          std::set<std::int64_t>& known_whole) {
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
  point_model_at(run_dir, target);  // before the one it points at is removed
  known_whole.insert(step);
  prune(all, step, keep_last, known_whole);
  return target;
}

}  // namespace cachalot::train
