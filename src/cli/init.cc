// cachalot init: a model folder of random weights, in the shape of a config.json or a recipe.
#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <optional>

#include "base/atomic_file.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/finite.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/remarks.h"
#include "cli/weight_options.h"
#include "model/init.h"
#include "runtime/runtime.h"
#include "text/tokenizer.h"
#include "train/run_model.h"

namespace cachalot::cli {

namespace {

namespace fs = std::filesystem;

struct Options {
  std::string config, target;
  std::string dtype;  // empty: what the config says
  WeightOptions weights;
  std::uint64_t seed = 1;
  double std = 0;
  double shard_gb = 5;
  std::string tokenizer;
};

struct Shape {
  model::Config config;
  std::string json;  // the config.json it came from
  model::WeightFormat format = model::WeightFormat::kBf16;
};

// The files of a tokenizer: a folder that has tokenizer.json, or that file.
struct TokenizerFiles {
  std::vector<fs::path> files;
  train::TokenizerFacts facts;
};

TokenizerFiles find_tokenizer(const std::string& path) {
  TokenizerFiles found;
  if (path.empty()) return found;
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    throw Error(Code::kIo, cat("--tokenizer ", path,
                               ": there is no such file or folder; name a tokenizer.json, or a "
                               "folder that has one"));
  }
  const bool is_folder = fs::is_directory(path, ignored);
  if (!is_folder && fs::path(path).filename() != "tokenizer.json") {
    throw Error(Code::kUsage,
                cat("--tokenizer ", path,
                    " is neither a folder nor a tokenizer.json, which is needed: name "
                    "one, or a folder that has one"));
  }
  const fs::path folder = is_folder ? fs::path(path) : fs::path(path).parent_path();
  const auto tokenizer = text::Tokenizer::load(folder.empty() ? fs::path(".") : folder);
  found.facts = {tokenizer.vocab_size(), tokenizer.bos_id().value_or(-1),
                 tokenizer.eos_id().value_or(-1), true};
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}) {
    if (fs::is_regular_file(folder / name, ignored)) found.files.push_back(folder / name);
  }
  return found;
}

Shape read_shape(const std::string& path, const TokenizerFiles& tokenizer) {
  Shape shape;
  if (fs::path(path).extension() == ".toml") {
    shape.config = train::model_config(train::load_recipe(path), tokenizer.facts);
    shape.json = model::to_json(shape.config);
    return shape;
  }
  constexpr std::uint64_t kMostBytes = 16 << 20;
  std::error_code ignored;
  const fs::path file =
      fs::is_directory(path, ignored) ? fs::path(path) / "config.json" : fs::path(path);
  std::vector<std::string> remarks;
  shape.config = model::load_config(file, &remarks);
  say_remarks(remarks);
  shape.json = read_file(file, kMostBytes);
  shape.format = model::format_of(shape.config);
  if (shape.config.vocab_size < tokenizer.facts.vocab_size) {
    throw Error(Code::kConfig, cat(file.string(), ": vocab_size is ", shape.config.vocab_size,
                                   ", but the tokenizer has ", tokenizer.facts.vocab_size,
                                   " tokens: raise vocab_size, or take the model's own tokenizer"));
  }
  return shape;
}

// "[===>   ] 1.20 of 8.25 GiB, 412.0 MiB/s, 0:17 left"
std::string progress_text(double done, double all, double seconds) {
  std::string text =
      fmt::format("{} {} of {}", bar(done, all), human_bytes(done), human_bytes(all));
  if (done <= 0 || seconds <= 0) return text;
  const double rate = done / seconds;
  return text + fmt::format(", {}/s, {} left", human_bytes(rate), clock_text((all - done) / rate));
}

void run(const Options& o, const Globals& globals) {
  model::InitOptions options;
  const TokenizerFiles tokenizer = find_tokenizer(o.tokenizer);
  const Shape shape = read_shape(o.config, tokenizer);
  options.format = o.dtype.empty() ? shape.format : model::parse_weight_format(o.dtype);
  apply(o.weights, options);
  refuse_tied_head(o.weights, shape.config);
  if (o.dtype.empty() && !o.weights.given() && shape.config.packed.enabled) {
    options.packed = shape.config.packed;  // as the config says
  }
  options.seed = o.seed;
  options.std = o.std;
  options.shard_bytes = static_cast<std::uint64_t>(o.shard_gb * 0x1p30);
  options.files = tokenizer.files;
  const runtime::Runtime rt({.threads = globals.threads, .cpu = {}});
  Progress progress;
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  options.progress = [&](std::uint64_t done, std::uint64_t all) {
    progress.show(progress_text(static_cast<double>(done), static_cast<double>(all), seconds()),
                  done == all);
  };
  const model::InitReport report =
      model::init_model(rt.context(), shape.config, shape.json, o.target, options);
  if (globals.json) {
    Json files = Json::array();
    for (const fs::path& file : options.files) files.push_back(file.filename().string());
    print_json({{"out", o.target},
                {"dtype", model::name(options.format)},
                {"seed", o.seed},
                {"parameters", report.parameters},
                {"tensors", report.tensors},
                {"fp8_tensors", report.fp8_tensors},
                {"packed_tensors", report.packed_tensors},
                {"bytes", report.bytes},
                {"copied_files", files},
                {"seconds", seconds()}});
    return;
  }
  print_line(fmt::format("{}: {} parameters in {}, {} tensors ({} in FP8, {} packed), {}, {:.1f} s",
                         o.target, human_count(static_cast<double>(report.parameters)),
                         model::name(options.format), report.tensors, report.fp8_tensors,
                         report.packed_tensors, human_bytes(static_cast<double>(report.bytes)),
                         seconds()));
}

}  // namespace

void add_init(CLI::App& root, Globals& globals) {
  CLI::App* command =
      add_command(root, globals, "init", "Write a model folder of random weights, for benchmarks");
  auto o = std::make_shared<Options>();
  command
      ->add_option("config", o->config,
                   "config.json, a folder that has one, or a recipe (.toml) whose [model] is taken")
      ->required()
      ->type_name("CONFIG");
  command->add_option("target", o->target, "Model folder to write; must not be there, or be empty")
      ->required()
      ->type_name("DIR");
  command
      ->add_option("--dtype", o->dtype,
                   "Form of the weights, as `cachalot convert` writes it; unless given, the one "
                   "that the config.json names (a recipe: bf16)")
      ->type_name("f32|bf16|fp8|int8|int4");
  add_weight_options(command, o->weights);
  command->add_option("--seed", o->seed, "Of the random numbers")
      ->check(seed_range())
      ->type_name("N");
  command
      ->add_option("--std", o->std,
                   "Standard deviation of the weights; 0 takes initializer_range of the config")
      ->check(finite_range(0, 10))
      ->type_name("X");
  command->add_option("--shard-size", o->shard_gb, "Most GiB of a file of weights")
      ->check(finite_range(0.0001, 1e6))
      ->type_name("GIB");
  command
      ->add_option("--tokenizer", o->tokenizer,
                   "Copy this tokenizer in: tokenizer.json, or a folder that has it")
      ->type_name("PATH");
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
