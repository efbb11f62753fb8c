#include "train/run_state.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "perf/peaks.h"

namespace cachalot::train {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::uint64_t kMostJson = 1 << 20;

std::string generation_config(const model::Config& c) {
  json j;
  if (c.bos_token_id >= 0) j["bos_token_id"] = c.bos_token_id;
  if (c.eos_token_ids.size() == 1) j["eos_token_id"] = c.eos_token_ids[0];
  if (c.eos_token_ids.size() > 1) j["eos_token_id"] = c.eos_token_ids;
  j["do_sample"] = true;
  j["temperature"] = 0.8;
  j["top_p"] = 0.95;
  return j.dump(2) + "\n";
}

const void* find_moment(const io::Safetensors& file, const std::string& name,
                        const model::Parameter& p, DType type) {
  const io::TensorView& t = file.at(name);
  if (t.shape != p.shape()) {
    throw Error(Code::kFormat, cat(t.file, ": tensor '", name, "' is ", to_string(t.shape),
                                   ", needed is ", to_string(p.shape())));
  }
  if (t.dtype != type) {
    throw Error(Code::kUsage,
                cat(t.file, ": the moments are ", cachalot::name(t.dtype), ", but this run keeps ",
                    cachalot::name(type),
                    ". The type of a run's moments cannot change: set "
                    "optimizer.moments to what it began with, or start a new run (model.init_from "
                    "takes the weights alone)"));
  }
  return t.data;
}

bool has_checkpoints(const fs::path& run_dir) {
  const fs::path folder = run_dir / "checkpoints";
  return fs::exists(folder) && !fs::is_empty(folder);
}

// A run that never saved anything (a typing error in the recipe, an empty corpus) is begun anew;
// what it prepared may come from another corpus.
void begin_anew(const Recipe& recipe, const fs::path& run_dir) {
  fs::remove_all(run_dir / "tokenizer");
  fs::remove(run_dir / "data" / "train.tokens");
  fs::remove(run_dir / "data" / "validation.tokens");
  write_file_atomically(run_dir / "recipe.toml", to_toml(recipe));
}

}  // namespace

FoundCheckpoint begin_run_folder(const Recipe& recipe, const TrainOptions& options,
                                 const std::function<void(const std::string&)>& message) {
  const fs::path stored = options.run_dir / "recipe.toml";
  const bool has_run = fs::exists(stored);
  if (!options.resume) {
    if (has_checkpoints(options.run_dir)) {
      throw Error(Code::kUsage, cat(options.run_dir.string(),
                                    " already holds a run: continue it with --resume, or choose "
                                    "another folder with --run"));
    }
    begin_anew(recipe, options.run_dir);
    return {};
  }
  if (!has_run) {
    message("nothing to resume in " + options.run_dir.string() + ": starting from the beginning");
    begin_anew(recipe, options.run_dir);
    return {};
  }
  const Recipe before =
      parse_recipe(read_file(stored, kMostJson), stored.string(), {}, options.run_dir);
  const std::vector<std::string> changed = differences(recipe, before);
  if (!changed.empty()) {
    std::string list;
    for (const std::string& c : changed) list += "\n  " + c;
    throw Error(
        Code::kUsage,
        cat("the run in ", options.run_dir.string(), " began with another recipe:", list,
            "\nresume with the recipe it began with (", stored.string(), "), or start a new run"));
  }
  FoundCheckpoint found = find_newest_checkpoint(options.run_dir);
  for (const SkippedCheckpoint& s : found.skipped) {
    message("skipped " + s.path.string() + ": " + s.why);
  }
  // Whoever was killed between a checkpoint and its link left the link behind.
  if (found.path) point_model_at(options.run_dir, *found.path);
  message(found.path ? "resuming from " + found.path->string()
                     : "no whole checkpoint in " + options.run_dir.string() +
                           ": starting from the beginning");
  return found;
}

fs::path save_state(const StateToSave& s) {
  const std::vector<io::TensorToWrite> model = s.parameters.tensors();
  const std::vector<io::TensorToWrite> optimizer = s.optimizer.moment_tensors(s.parameters);
  CheckpointContent content;
  content.model = model;
  content.optimizer = optimizer;
  std::vector<io::TensorToWrite> average;
  if (s.optimizer.has_average()) average = s.optimizer.average_tensors(s.parameters);
  content.ema = average;
  content.config_json = model::to_json(s.config);
  content.generation_config_json = generation_config(s.config);
  json trainer;
  trainer["step"] = s.state.step;
  trainer["sequences"] = s.state.sequences;
  trainer["optimizer_steps"] = s.optimizer.steps();
  trainer["skipped_steps"] = s.state.skipped;
  trainer["skipped_in_a_row"] = s.state.skipped_in_a_row;
  trainer["seconds"] = s.state.seconds;
  trainer["fitted_steps"] = s.state.fitted_steps;
  trainer["seed"] = s.recipe.run.seed;
  content.trainer_json = trainer.dump(2) + "\n";
  content.other_files["recipe.toml"] = to_toml(s.recipe);
  content.copied_files = s.tokenizer_files;
  return write_checkpoint(s.run_dir, s.state.step, content, s.recipe.run.keep_last);
}

void load_state(const fs::path& checkpoint, model::Parameters& parameters,
                model::Optimizer& optimizer, RunState& state) {
  if (optimizer.has_average()) {
    parameters.load(io::Safetensors::open(checkpoint / kAverageFolder));
    optimizer.begin_average(parameters);
  }
  parameters.load(io::Safetensors::open(checkpoint));
  const auto moments = io::Safetensors::open(checkpoint / "optimizer.safetensors");
  for (const model::Parameter& p : parameters.list()) {
    const DType type = optimizer.moment_type();
    optimizer.set_moments(p, find_moment(moments, "m." + p.name, p, type),
                          find_moment(moments, "v." + p.name, p, type));
  }
  const fs::path file = checkpoint / "trainer.json";
  try {
    const json trainer = json::parse(read_file(file, kMostJson));
    state.step = trainer.at("step");
    state.sequences = trainer.at("sequences");
    state.skipped = trainer.at("skipped_steps");
    state.skipped_in_a_row = trainer.value("skipped_in_a_row", 0);
    state.seconds = trainer.at("seconds");
    state.fitted_steps = trainer.at("fitted_steps");
    optimizer.set_steps(trainer.at("optimizer_steps"));
  } catch (const json::exception& e) {
    throw Error(Code::kFormat, cat(file.string(), ": not what a trainer wrote: ", e.what()));
  }
}

double measured_peak(const Context& ctx, Precision precision) {
  // The best of a few: a shared machine is at times slower than it can be, never faster.
  if (ctx.device != nullptr) return ctx.device->bf16_flops();
  constexpr int kProbes = 5;
  double best = 0;
  for (int i = 0; i < kProbes; ++i) {
    const double bf16 = precision == Precision::kBF16 ? perf::bf16_gflops(ctx) : 0;
    best = std::max({best, bf16, perf::fma_gflops(ctx)});
  }
  return 1e9 * best;
}

}  // namespace cachalot::train
