#include "model/end_tokens.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"
#include "io/json_object.h"

namespace cachalot::model {

namespace fs = std::filesystem;

namespace {

std::vector<std::int32_t> of_generation_config(const fs::path& file) {
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

}  // namespace

std::vector<std::int32_t> end_tokens(const Config& config, const fs::path& folder) {
  std::vector<std::int32_t> all(config.eos_token_ids.begin(), config.eos_token_ids.end());
  for (const std::int32_t id : of_generation_config(folder / "generation_config.json")) {
    if (std::find(all.begin(), all.end(), id) == all.end()) all.push_back(id);
  }
  return all;
}

}  // namespace cachalot::model
