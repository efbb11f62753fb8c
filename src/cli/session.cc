#include "cli/session.h"

#include <chrono>
#include <filesystem>

#include <spdlog/spdlog.h>

#include "base/error.h"
#include "cli/inputs.h"
#include "cli/remarks.h"
#include "infer/place_weights.h"
#include "model/end_tokens.h"
#include "model/init.h"

namespace cachalot::cli {

namespace {

namespace fs = std::filesystem;

constexpr double kProgressSeconds = 3;  // between two lines

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// f32 multiplies codes out: that is many times what the folder takes.
void say_multiplied_out(const model::Config& config) {
  const model::WeightFormat format = model::format_of(config);
  if (format == model::WeightFormat::kF32 || format == model::WeightFormat::kBf16) return;
  spdlog::info(
      "the weights are {} and are multiplied out to f32, which is large and slow; --precision bf16 "
      "reads them as they lie",
      model::name(format));
}

[[noreturn]] void refuse_without_tokenizer(const std::string& folder, const std::string& what,
                                           const std::string& instead) {
  throw Error(Code::kUsage, cat(folder, " has no tokenizer.json, which ", what,
                                " needs: put the model's tokenizer.json there", instead));
}

}  // namespace

void require_tokenizer_file(const std::string& folder, const std::string& what,
                            const std::string& instead) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) return;  // which is said where it is opened
  if (fs::exists(fs::path(folder) / "tokenizer.json", ignored)) return;
  refuse_without_tokenizer(folder, what, instead);
}

Session::Session(const std::string& model_folder, const std::string& asked, int threads,
                 ModelUse use)
    : folder(model_folder), runtime({.threads = threads, .cpu = {}, .on_device = true}), model([&] {
        const auto start = std::chrono::steady_clock::now();
        model::LoadOptions options = load_options(folder, asked, runtime.context(), use);
        options.progress = [last = start](std::uint64_t bytes) mutable {
          if (seconds_since(last) < kProgressSeconds) return;
          last = std::chrono::steady_clock::now();
          spdlog::info("{:.1f} GB of weights are on the device", 1e-9 * static_cast<double>(bytes));
        };
        if (options.precision == Precision::kF32) {
          say_multiplied_out(model::load_config(fs::path(folder) / "config.json"));
        }
        model::Model loaded = model::Model::load(folder, options);
        load_seconds = seconds_since(start);
        say_remarks(loaded.remarks());
        const bool f32 = loaded.precision() == Precision::kF32;
        precision = asked != kAutoPrecision ? asked : f32 ? "f32" : "bf16";
        return loaded;
      }()) {
  if (context().device == nullptr) {
    const infer::WeightPlacement placed = infer::place_weights(runtime, model);
    if (placed.nodes > 1) spdlog::info("{}", placed.text());
  }
  std::error_code ignored;
  if (fs::exists(fs::path(folder) / "tokenizer.json", ignored)) {
    try {
      tokenizer.emplace(text::Tokenizer::load(folder));
    } catch (const Error& e) {  // token ids need none
      unusable_tokenizer_ = std::make_unique<Error>(e);
      spdlog::warn("no text, only token ids: {}", e.what());
    }
  }
}

const text::Tokenizer& Session::need_tokenizer(const std::string& what,
                                               const std::string& instead) const {
  if (unusable_tokenizer_) throw Error(*unusable_tokenizer_);
  if (!tokenizer) refuse_without_tokenizer(folder, what, instead);
  return *tokenizer;
}

std::vector<std::int32_t> Session::eos() const { return model::end_tokens(model.config(), folder); }

}  // namespace cachalot::cli
