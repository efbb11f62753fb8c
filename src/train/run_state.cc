#include "train/run_state.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "io/mapped_file.h"
#include "perf/peaks.h"
#include "text/tokenizer.h"
#include "train/checkpoint_files.h"

namespace cachalot::train {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::uint64_t kMostJson = 1 << 20;

std::string generation_config(int bos, const std::vector<std::int32_t>& end_tokens) {
  json j;
  if (bos >= 0) j["bos_token_id"] = bos;
  if (end_tokens.size() == 1) j["eos_token_id"] = end_tokens[0];
  if (end_tokens.size() > 1) j["eos_token_id"] = end_tokens;
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

bool lies_in(const fs::path& file, const fs::path& folder) {
  std::error_code ignored;
  const fs::path inner = fs::weakly_canonical(file, ignored);
  const fs::path outer = fs::weakly_canonical(folder, ignored);
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

// Whether a run wrote this file, rather than somebody who will want it back: to_toml has one text
// for each recipe, and no comments.
bool is_resolved_recipe(const fs::path& file, const fs::path& run_dir) {
  try {
    const std::string text = read_file(file, kMostJson);
    return text == to_toml(parse_recipe(text, file.string(), {}, run_dir));
  } catch (const Error&) {
    return false;
  }
}

// RUN/model is a link that each checkpoint replaces; nothing else that has this name may go.
void check_model_link(const fs::path& run_dir) {
  const fs::path link = run_dir / "model";
  std::error_code error;
  const auto type = fs::symlink_status(link, error).type();
  if (type == fs::file_type::not_found) return;
  if (type == fs::file_type::symlink &&
      fs::read_symlink(link, error).parent_path() == kCheckpointsFolder) {
    return;
  }
  throw Error(Code::kUsage,
              cat(link.string(),
                  " is there already, and is no link to a checkpoint, which is what a "
                  "run puts there: choose another folder with --run, or move it"));
}

// A run that never saved anything (a typing error in the recipe, an empty corpus) is begun anew;
// what it prepared may come from another corpus. Only what a run made goes: its recipe is the first
// thing that it writes, so without one what lies there is somebody's.
void begin_anew(const Recipe& recipe, const fs::path& run_dir, bool has_run) {
  if (has_run && !is_resolved_recipe(run_dir / "recipe.toml", run_dir)) {
    throw Error(Code::kUsage, cat((run_dir / "recipe.toml").string(),
                                  " is not as a run writes it, and would be written over: choose "
                                  "another folder with --run, or move that file"));
  }
  const fs::path data = run_dir / "data";
  const std::array<fs::path, 5> prepared{run_dir / "tokenizer", data / "train.tokens",
                                         data / "train.samples", data / "validation.tokens",
                                         data / "validation.samples"};
  std::vector<std::string> inputs = recipe.data.tokens;
  inputs.insert(inputs.end(), {recipe.data.tokenizer, recipe.model.init_from});
  for (const fs::path& own : prepared) {
    for (const std::string& input : inputs) {
      if (input.empty() || !lies_in(input, own)) continue;
      throw Error(Code::kUsage,
                  cat("the recipe reads ", input, ", where a run in ", run_dir.string(),
                      " keeps what it prepares itself: choose another folder with "
                      "--run, or move that file"));
    }
    if (!has_run && fs::exists(own)) {
      throw Error(Code::kUsage, cat(own.string(), " is there already, and ", run_dir.string(),
                                    " has no recipe.toml, so no run made it: choose another folder "
                                    "with --run, or move what is there"));
    }
  }
  if (!has_run && fs::exists(run_dir / "metrics.jsonl")) {
    throw Error(Code::kUsage, cat((run_dir / "metrics.jsonl").string(),
                                  " is there already, but no recipe.toml beside it: choose another "
                                  "folder with --run, or move that file"));
  }
  // Nothing is thrown away for a text that is not there to make it anew.
  for (const auto* texts :
       {&recipe.data.corpus, &recipe.data.conversations, &recipe.data.held_out_conversations}) {
    for (const std::string& text : *texts) (void)io::MappedFile(text);
  }
  for (const fs::path& own : prepared) fs::remove_all(own);
  write_file_atomically(run_dir / "recipe.toml", to_toml(recipe));
}

// Names of a config that are in both files with different values.
std::string differing_names(const json& before, const json& now) {
  std::string names;
  if (!before.is_object()) return names;
  for (const auto& [name, value] : before.items()) {
    if (const auto other = now.find(name); other != now.end() && *other != value) {
      names +=
          cat(names.empty() ? "" : ", ", name, " (", value.dump(), ", now ", other->dump(), ")");
    }
  }
  return names;
}

}  // namespace

FoundCheckpoint begin_run_folder(const Recipe& recipe, const TrainOptions& options,
                                 const std::function<void(const std::string&)>& message) {
  const fs::path stored = options.run_dir / "recipe.toml";
  check_model_link(options.run_dir);
  const bool has_run = fs::exists(stored);
  for (const char* written :
       {"recipe.toml", "metrics.jsonl", "data/train.tokens", "data/train.samples",
        "data/validation.tokens", "data/validation.samples", "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json"}) {
    remove_leftovers(options.run_dir / written);
  }
  if (!options.resume) {
    if (has_checkpoints(options.run_dir)) {
      throw Error(Code::kUsage, cat(options.run_dir.string(),
                                    " already holds a run: continue it with --resume, or choose "
                                    "another folder with --run"));
    }
    begin_anew(recipe, options.run_dir, has_run);
    return {};
  }
  if (!has_run) {
    if (has_checkpoints(options.run_dir)) {
      throw Error(Code::kUsage,
                  cat(options.run_dir.string(),
                      " has checkpoints but no recipe.toml, so what they "
                      "were trained by is not known: copy the recipe.toml that the newest of its "
                      "checkpoints holds there, or choose another folder with --run"));
    }
    message("nothing to resume in " + options.run_dir.string() + ": starting from the beginning");
    begin_anew(recipe, options.run_dir, has_run);
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
  if (!found.path) begin_anew(recipe, options.run_dir, has_run);  // its text may have changed
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
  content.generation_config_json = generation_config(s.config.bos_token_id, s.end_tokens);
  json trainer;
  trainer["step"] = s.state.step;
  trainer["sequences"] = s.state.sequences;
  trainer["optimizer_steps"] = s.optimizer.steps();
  trainer["skipped_steps"] = s.state.skipped;
  trainer["skipped_in_a_row"] = s.state.skipped_in_a_row;
  trainer["seconds"] = s.state.seconds;
  trainer["fitted_steps"] = s.state.fitted_steps;
  trainer["seed"] = s.recipe.run.seed;
  trainer["data_hash"] = s.data_hash;
  content.trainer_json = trainer.dump(2) + "\n";
  content.other_files["recipe.toml"] = to_toml(s.recipe);
  content.copied_files = s.tokenizer_files;
  return write_checkpoint(s.run_dir, s.state.step, content, s.recipe.run.keep_last,
                          s.whole_checkpoints);
}

void check_same_model(const fs::path& checkpoint, const model::Config& config,
                      const fs::path& tokenizer) {
  const fs::path file = checkpoint / "config.json";
  const json before = json::parse(read_file(file, kMostJson), nullptr, /*allow_exceptions=*/false);
  const std::string names = differing_names(before, json::parse(model::to_json(config)));
  if (!names.empty()) {
    throw Error(Code::kUsage,
                cat(file.string(), " differs from the model that the recipe asks for in ", names,
                    ". Give model.config the contents that the run began with, or start a new run "
                    "(model.init_from takes the weights alone)"));
  }
  if (tokenizer.empty() || !fs::exists(checkpoint / "tokenizer.json")) return;
  if (text::Tokenizer::load(checkpoint).fingerprint() ==
      text::Tokenizer::load(tokenizer).fingerprint()) {
    return;
  }
  throw Error(
      Code::kUsage,
      cat("the tokenizer in ", tokenizer.string(), " is not the one that ", checkpoint.string(),
          " was trained with: put that one back (the checkpoint holds it), or start a new "
          "run"));
}

void load_state(const fs::path& checkpoint, std::uint64_t data_hash, model::Parameters& parameters,
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
    // Checkpoints of older versions do not say.
    if (trainer.value("data_hash", data_hash) != data_hash) {
      throw Error(Code::kUsage,
                  cat(checkpoint.string(),
                      " was trained on other tokens than those that the run has now: put back the "
                      "text or token files that it began with, or start a new run (model.init_from "
                      "takes the weights alone)"));
    }
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
