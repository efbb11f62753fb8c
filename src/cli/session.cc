#include "cli/session.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include <spdlog/spdlog.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "cli/inputs.h"
#include "infer/place_weights.h"
#include "io/json_object.h"

namespace cachalot::cli {

namespace {

namespace fs = std::filesystem;

constexpr double kProgressSeconds = 3;  // between two lines

// eos_token_id of generation_config.json: an id or a list; chat models name more there than in
// config.json.
std::vector<std::int32_t> generation_eos(const fs::path& file) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return {};
  const std::string text = read_file(file, 1 << 20);
  io::refuse_deep_json(text, file.string());
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) {
    throw Error(Code::kFormat,
                cat(file.string(), ": not a JSON object; repair it, or take the file away"));
  }
  const auto found = json.find("eos_token_id");
  if (found == json.end() || found->is_null()) return {};
  std::vector<std::int32_t> ids;
  for (const auto& id : found->is_array() ? *found : nlohmann::json::array({*found})) {
    constexpr auto kMost = std::numeric_limits<std::int32_t>::max();
    if (!id.is_number_integer() || id < 0 || id > kMost) {
      throw Error(Code::kFormat, cat(file.string(), ": eos_token_id has ", id.dump(),
                                     ", but token ids are needed"));
    }
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

Session::Session(const std::string& model_folder, const std::string& precision, int threads,
                 ModelUse use)
    : folder(model_folder), runtime({.threads = threads, .cpu = {}, .on_device = true}), model([&] {
        const auto start = std::chrono::steady_clock::now();
        model::LoadOptions options = load_options(folder, precision, runtime.context(), use);
        options.progress = [last = start](std::uint64_t bytes) mutable {
          if (seconds_since(last) < kProgressSeconds) return;
          last = std::chrono::steady_clock::now();
          spdlog::info("{:.1f} GB of weights are on the device", 1e-9 * static_cast<double>(bytes));
        };
        model::Model loaded = model::Model::load(folder, options);
        load_seconds = seconds_since(start);
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
  if (!tokenizer) {
    throw Error(Code::kUsage, cat(folder, " has no tokenizer.json, which ", what,
                                  " needs: put the model's tokenizer.json there", instead));
  }
  return *tokenizer;
}

std::vector<std::int32_t> Session::eos() const {
  const auto& ids = model.config().eos_token_ids;
  std::vector<std::int32_t> all(ids.begin(), ids.end());
  for (const std::int32_t id : generation_eos(fs::path(folder) / "generation_config.json")) {
    if (std::find(all.begin(), all.end(), id) == all.end()) all.push_back(id);
  }
  return all;
}

}  // namespace cachalot::cli
