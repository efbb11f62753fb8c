// What a run is besides its weights, and how it goes into a checkpoint and back.
//
// trainer.json in a checkpoint holds RunState; optimizer.safetensors the moments "m.<name>" and
// "v.<name>" in the type they are kept in; model.safetensors the FP32 master weights under their
// published names; ema/, where the recipe asks for it, their mean as a model folder of its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "model/optimizer.h"
#include "model/parameters.h"
#include "train/checkpoint.h"
#include "train/recipe.h"
#include "train/trainer.h"

namespace cachalot::train {

struct RunState {
  std::int64_t step = 0;       // steps done
  std::int64_t sequences = 0;  // training sequences seen: the position in the data
  std::int64_t skipped = 0;    // steps without a finite loss or gradient
  int skipped_in_a_row = 0;    // up to and with the last step
  double seconds = 0;          // of training steps, over all resumes
  std::int64_t fitted_steps =
      0;  // schedule.steps as fitted to run.fit_minutes; 0: not fitted (yet)
};

// Checks the folder against what is asked (a new run in an empty folder; a resume with the recipe
// the run began with), writes recipe.toml for a new run, finds the checkpoint to resume.
FoundCheckpoint begin_run_folder(const Recipe& recipe, const TrainOptions& options,
                                 const std::function<void(const std::string&)>& message);

struct StateToSave {
  const std::filesystem::path& run_dir;
  const Recipe& recipe;
  const model::Config& config;
  model::Parameters& parameters;
  model::Optimizer& optimizer;
  const RunState& state;
  std::uint64_t data_hash;  // of the tokens that are trained on
  std::vector<std::filesystem::path> tokenizer_files;
  const std::vector<std::int32_t>& end_tokens;  // for generation_config.json
  std::set<std::int64_t>& whole_checkpoints;    // known so (checkpoint.h)
};
// Writes the checkpoint and points RUN/model at it.
std::filesystem::path save_state(const StateToSave& s);
// Throws kUsage where the checkpoint is of another model.config or another tokenizer (its folder,
// or none) than the run is resumed with: files that a recipe names can change behind it.
void check_same_model(const std::filesystem::path& checkpoint, const model::Config& config,
                      const std::filesystem::path& tokenizer);
// Likewise kUsage where the checkpoint is of other tokens than `data_hash`: its position would be
// one in another text.
void load_state(const std::filesystem::path& checkpoint, std::uint64_t data_hash,
                model::Parameters& parameters, model::Optimizer& optimizer, RunState& state);

// Register peak on this context's threads in FLOP/s, of the faster instruction that the precision
// may use: what MFU is measured against. Takes some milliseconds.
double measured_peak(const Context& ctx, Precision precision);

}  // namespace cachalot::train
