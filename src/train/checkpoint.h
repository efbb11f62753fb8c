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
#include <set>
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
// then removes those of steps up to N that are older than the newest `keep_last` whole ones. A
// damaged one does not count, and goes when it is older than these. Needs the RunLock. Returns the
// folder.
// `known_whole`: steps that this process wrote or checked, to which N is added. Of these the sizes
// are compared and not every byte, which would be read again at each save.
std::filesystem::path write_checkpoint(const std::filesystem::path& run_dir, std::int64_t step,
                                       const CheckpointContent& content, int keep_last,
                                       std::set<std::int64_t>& known_whole);

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
// Likewise, but looks at no file's content: what is cut short or missing shows at no cost.
std::string check_checkpoint_sizes(const std::filesystem::path& folder);

}  // namespace cachalot::train
