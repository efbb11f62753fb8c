#include "text/tokenizer_write.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"

namespace cachalot::text {

using Json = nlohmann::ordered_json;

static Json split_rule(const std::string& pattern) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", pattern}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

static Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

static Json pre_tokenizer(const TokenizerSpec& spec) {
  Json steps = Json::array();
  for (const std::string& pattern : spec.patterns) steps.push_back(split_rule(pattern));
  steps.push_back(byte_level(/*use_regex=*/false));
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

static Json added_tokens(const TokenizerSpec& spec) {
  Json list = Json::array();
  for (const AddedToken& a : spec.added) {
    list.push_back({{"id", a.id},
                    {"content", a.content},
                    {"single_word", a.single_word},
                    {"lstrip", a.lstrip},
                    {"rstrip", a.rstrip},
                    {"normalized", a.normalized},
                    {"special", a.special}});
  }
  return list;
}

static Json model(const TokenizerSpec& spec) {
  std::vector<std::pair<std::string, std::int32_t>> by_id = spec.vocab;
  std::sort(by_id.begin(), by_id.end(),
            [](const auto& a, const auto& b) { return a.second < b.second; });
  Json vocab = Json::object();
  // Not operator[]: an ordered object looks through all it has for every new key.
  auto& members = vocab.get_ref<Json::object_t&>();
  for (auto& [token, id] : by_id) members.push_back({token, id});
  Json merges = Json::array();
  for (const auto& [left, right] : spec.merges) merges.push_back(left + ' ' + right);
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", spec.ignore_merges},
          {"vocab", vocab},
          {"merges", merges}};
}

std::string tokenizer_json(const TokenizerSpec& spec) {
  const Json file = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", added_tokens(spec)},
                     {"normalizer", {{"type", "Sequence"}, {"normalizers", Json::array()}}},
                     {"pre_tokenizer", pre_tokenizer(spec)},
                     {"post_processor", byte_level(false)},
                     {"decoder", byte_level(true)},
                     {"model", model(spec)}};
  return file.dump(2) + "\n";
}

std::string tokenizer_config_json(const TokenizerConfig& config) {
  const auto token = [](const std::optional<std::string>& t) { return t ? Json(*t) : Json(); };
  Json file = {{"add_bos_token", config.add_bos_token}, {"add_eos_token", config.add_eos_token},
               {"bos_token", token(config.bos_token)},  {"clean_up_tokenization_spaces", false},
               {"eos_token", token(config.eos_token)},  {"legacy", true},
               {"pad_token", token(config.pad_token)},  {"tokenizer_class", "LlamaTokenizerFast"},
               {"unk_token", token(config.unk_token)}};
  if (!config.chat_template.empty()) file["chat_template"] = config.chat_template;
  return file.dump(2) + "\n";
}

void write_tokenizer(const std::filesystem::path& folder, const TokenizerSpec& spec,
                     const TokenizerConfig& config) {
  write_file_atomically(folder / "tokenizer.json", tokenizer_json(spec));
  write_file_atomically(folder / "tokenizer_config.json", tokenizer_config_json(config));
}

}  // namespace cachalot::text
