// Checkpoints of a run: folders `checkpoints/step-N/`, each a Hugging Face model folder plus
// `optimizer.safetensors`, `trainer.json` and `checksums.json` (size and XXH3-128 of every file);
// with a mean of the weights also the folder `ema/`, a model folder of its own.
//
// A checkpoint is written into a hidden folder beside, every file and the folder synced, and then
// renamed: killed at any instant, the newest complete checkpoint is whole and the half-written one
// is not seen.
//
// Owns:    nothing; the tensors to write are borrowed during the call.
// Threads: one writer per run, which a RunLock ensures across processes.
// Errors:  kBusy (the run is held, with the holder's process id), kIo (full disk, permission: the
//          new folder is removed, older checkpoints are untouched).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "io/safetensors.h"

namespace cachalot::train {

inline constexpr const char* kAverageFolder = "ema";

// Creates the run folder where it is missing, and holds it: `run_dir/lock`.
class RunLock {
 public:
  explicit RunLock(const std::filesystem::path& run_dir);

 private:
  FileLock lock_;
};

struct CheckpointContent {
  std::span<const io::TensorToWrite> model;      // model.safetensors, or shards
  std::span<const io::TensorToWrite> optimizer;  // m, v
  std::span<const io::TensorToWrite> ema;        // of the model's tensors; empty: none is kept
  std::string config_json;
  std::string generation_config_json;
  std::string trainer_json;                         // step, data position, counters, ...
  std::map<std::string, std::string> other_files;   // name -> content, such as recipe.toml
  std::vector<std::filesystem::path> copied_files;  // tokenizer.json, ...: by their own names
};

// Writes `run_dir/checkpoints/step-N` (replacing one of that step), points `run_dir/model` at it,
// then removes the oldest until `keep_last` of the steps up to N remain. Needs the RunLock. Returns
// the folder.
std::filesystem::path write_checkpoint(const std::filesystem::path& run_dir, std::int64_t step,
                                       const CheckpointContent& content, int keep_last);

// Makes `run_dir/model` a link to this one of the run's checkpoints, in one step.
void point_model_at(const std::filesystem::path& run_dir, const std::filesystem::path& checkpoint);

struct SkippedCheckpoint {
  std::filesystem::path path;
  std::string why;
};
struct FoundCheckpoint {
  std::optional<std::filesystem::path> path;  // nothing: none is whole
  std::int64_t step = 0;
  std::vector<SkippedCheckpoint> skipped;  // newer than `path`, and damaged
};

// The newest checkpoint whose files all have their recorded size and checksum. Removes what killed
// writers left behind, so it needs the RunLock.
FoundCheckpoint find_newest_checkpoint(const std::filesystem::path& run_dir);

// Empty where the folder is whole, else what is wrong with it.
std::string check_checkpoint(const std::filesystem::path& folder);

}  // namespace cachalot::train
