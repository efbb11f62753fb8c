#include "text/tokenizer_json.h"

#include <simdjson.h>

#include "base/error.h"
#include "text/pre_tokenizer.h"

namespace cachalot::text {
namespace {

namespace dom = simdjson::dom;

class Reader {
 public:
  explicit Reader(const std::string& file) : file_(file) {}

  [[noreturn]] void bad(const std::string& what) const {
    throw Error(Code::kFormat, cat(file_, ": ", what));
  }
  [[noreturn]] void unsupported(const std::string& what) const {
    throw Error(Code::kUnsupported, cat(file_, ": ", what));
  }

  dom::object document(dom::parser& parser, std::string_view json) const {
    dom::element root;
    if (const auto error = parser.parse(json.data(), json.size()).get(root)) {
      bad(cat("not valid JSON: ", simdjson::error_message(error)));
    }
    return object(root, "the file");
  }
  dom::object object(dom::element value, std::string_view field) const {
    dom::object result;
    if (value.get(result)) bad(cat(field, " must be an object"));
    return result;
  }
  dom::array array(dom::element value, std::string_view field) const {
    dom::array result;
    if (value.get(result)) bad(cat(field, " must be an array"));
    return result;
  }
  std::string_view string(dom::element value, std::string_view field) const {
    std::string_view result;
    if (value.get(result)) bad(cat(field, " must be a string"));
    return result;
  }
  std::int32_t token_id(dom::element value, std::string_view token) const {
    std::int64_t id = 0;
    if (value.get(id) || id < 0 || id > kMaxTokenId) {
      bad(cat("token '", token, "' must have an id from 0 to ", kMaxTokenId));
    }
    return static_cast<std::int32_t>(id);
  }
  // Absent and null are the same to these files.
  static bool get(dom::object from, std::string_view key, dom::element& value) {
    return from[key].get(value) == simdjson::SUCCESS && !value.is_null();
  }
  dom::element need(dom::object from, std::string_view key, std::string_view where) const {
    dom::element value;
    if (!get(from, key, value)) bad(cat(where, " lacks \"", key, '"'));
    return value;
  }
  bool flag(dom::object from, std::string_view key, bool fallback) const {
    dom::element value;
    if (!get(from, key, value)) return fallback;
    bool result = false;
    if (value.get(result)) bad(cat('"', key, "\" must be true or false"));
    return result;
  }

  void normalizer(dom::object root) const;
  void pre_tokenizer(dom::element value, std::vector<std::string>& patterns, int depth) const;
  void split(dom::object rule, std::vector<std::string>& patterns) const;
  void byte_level(dom::object rule, std::vector<std::string>& patterns) const;
  void model(dom::object root, TokenizerSpec& spec) const;
  void merges(dom::array list, TokenizerSpec& spec) const;
  void added(dom::object root, TokenizerSpec& spec) const;
  std::optional<std::string> token_field(dom::object root, std::string_view key) const;

 private:
  const std::string& file_;
};

void Reader::normalizer(dom::object root) const {
  dom::element value;
  if (!get(root, "normalizer", value)) return;
  const dom::object rule = object(value, "normalizer");
  const std::string_view type = string(need(rule, "type", "normalizer"), "normalizer.type");
  if (type == "Sequence" &&
      array(need(rule, "normalizers", "normalizer"), "normalizers").size() == 0) {
    return;
  }
  unsupported(cat("normalizer \"", type,
                  "\" is not supported: only a missing or an empty one is. DeepSeek-family "
                  "tokenizers have none."));
}

void Reader::pre_tokenizer(dom::element value, std::vector<std::string>& patterns,
                           int depth) const {
  const dom::object rule = object(value, "pre_tokenizer");
  const std::string_view type = string(need(rule, "type", "pre_tokenizer"), "pre_tokenizer.type");
  if (type == "Sequence" && depth == 0) {
    bool bytes = false;
    for (const dom::element part :
         array(need(rule, "pretokenizers", "pre_tokenizer"), "pretokenizers")) {
      if (bytes) unsupported("pre_tokenizer has a step after ByteLevel; ByteLevel must be last");
      pre_tokenizer(part, patterns, 1);
      bytes = string(need(object(part, "pretokenizers"), "type", "pretokenizers"), "type") ==
              "ByteLevel";
    }
    if (!bytes)
      unsupported("pre_tokenizer does not end with ByteLevel; only byte-level BPE is read");
  } else if (type == "Split") {
    split(rule, patterns);
  } else if (type == "Digits") {
    patterns.push_back(flag(rule, "individual_digits", false) ? "\\p{N}" : "\\p{N}+");
  } else if (type == "ByteLevel") {
    byte_level(rule, patterns);
  } else {
    unsupported(cat("pre_tokenizer \"", type,
                    "\" is not supported; Sequence, Split, Digits and ByteLevel are"));
  }
  if (depth == 0 && type != "Sequence" && type != "ByteLevel") {
    unsupported(cat("pre_tokenizer \"", type, "\" without ByteLevel; only byte-level BPE is read"));
  }
}

static std::string quoted(std::string_view literal) {
  std::string pattern;
  for (const char c : literal) {
    if (std::string_view("\\^$.|?*+()[]{}").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

void Reader::split(dom::object rule, std::vector<std::string>& patterns) const {
  const std::string_view behavior = string(need(rule, "behavior", "Split"), "Split.behavior");
  if (behavior != "Isolated") {
    unsupported(cat("Split behavior \"", behavior, "\" is not supported; \"Isolated\" is"));
  }
  if (flag(rule, "invert", false)) unsupported("Split with invert=true is not supported");
  const dom::object pattern = object(need(rule, "pattern", "Split"), "Split.pattern");
  dom::element text;
  if (get(pattern, "Regex", text)) {
    patterns.emplace_back(string(text, "Split.pattern.Regex"));
  } else {
    patterns.push_back(
        quoted(string(need(pattern, "String", "Split.pattern"), "Split.pattern.String")));
  }
}

void Reader::byte_level(dom::object rule, std::vector<std::string>& patterns) const {
  if (flag(rule, "add_prefix_space", true)) {
    unsupported("ByteLevel with add_prefix_space=true is not supported");
  }
  if (flag(rule, "use_regex", true)) patterns.emplace_back(kGpt2Pattern);
}

void Reader::model(dom::object root, TokenizerSpec& spec) const {
  const dom::object bpe = object(need(root, "model", "the file"), "model");
  dom::element value;
  // Files of before 2020 leave the type out; a list of merges says BPE.
  if (get(bpe, "type", value) && string(value, "model.type") != "BPE") {
    unsupported(cat("model.type \"", string(value, "model.type"),
                    "\" is not supported; byte-level \"BPE\" is"));
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (get(bpe, key, value) && !string(value, key).empty()) {
      unsupported(cat("model.", key, " is not supported"));
    }
  }
  double dropout = 0;
  if (get(bpe, "dropout", value) && (value.get(dropout) || dropout != 0)) {
    unsupported("model.dropout is not supported: encoding here is deterministic");
  }
  if (flag(bpe, "byte_fallback", false)) {
    unsupported("model.byte_fallback is not supported: this is no byte-level BPE");
  }
  spec.ignore_merges = flag(bpe, "ignore_merges", false);
  const dom::object vocab = object(need(bpe, "vocab", "model"), "model.vocab");
  spec.vocab.reserve(vocab.size());
  for (const auto entry : vocab)
    spec.vocab.emplace_back(entry.key, token_id(entry.value, entry.key));
  merges(array(need(bpe, "merges", "model"), "model.merges"), spec);
}

void Reader::merges(dom::array list, TokenizerSpec& spec) const {
  spec.merges.reserve(list.size());
  for (const dom::element entry : list) {
    std::string_view text;
    if (entry.get(text) == simdjson::SUCCESS) {  // "a b"
      const std::size_t space = text.find(' ');
      if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
        bad(cat("model.merges[", spec.merges.size(), "] '", text, "' is not two tokens"));
      }
      spec.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
      continue;
    }
    const dom::array pair = array(entry, "an entry of model.merges");  // ["a", "b"]
    if (pair.size() != 2) bad(cat("model.merges[", spec.merges.size(), "] is not two tokens"));
    spec.merges.emplace_back(string(pair.at(0), "model.merges"),
                             string(pair.at(1), "model.merges"));
  }
}

void Reader::added(dom::object root, TokenizerSpec& spec) const {
  dom::element value;
  if (!get(root, "added_tokens", value)) return;
  for (const dom::element entry : array(value, "added_tokens")) {
    const dom::object token = object(entry, "an entry of added_tokens");
    AddedToken a;
    a.content = string(need(token, "content", "added_tokens"), "added_tokens.content");
    if (a.content.empty()) bad("added_tokens has a token with empty content");
    a.id = token_id(need(token, "id", "added_tokens"), a.content);
    a.special = flag(token, "special", false);
    a.single_word = flag(token, "single_word", false);
    a.lstrip = flag(token, "lstrip", false);
    a.rstrip = flag(token, "rstrip", false);
    a.normalized = flag(token, "normalized", !a.special);
    spec.added.push_back(std::move(a));
  }
}

// A token is a string, or an object with its content.
std::optional<std::string> Reader::token_field(dom::object root, std::string_view key) const {
  dom::element value;
  if (!get(root, key, value)) return std::nullopt;
  dom::object token;
  if (value.get(token) == simdjson::SUCCESS) value = need(token, "content", key);
  return std::string(string(value, key));
}

std::string chat_template(const Reader& reader, dom::object root) {
  dom::element value;
  if (!Reader::get(root, "chat_template", value)) return "";
  dom::array named;
  if (value.get(named) != simdjson::SUCCESS) {
    return std::string(reader.string(value, "chat_template"));
  }
  for (const dom::element entry : named) {  // [{"name": "default", "template": ...}, ...]
    const dom::object item = reader.object(entry, "an entry of chat_template");
    if (reader.string(reader.need(item, "name", "chat_template"), "chat_template.name") ==
        "default") {
      return std::string(
          reader.string(reader.need(item, "template", "chat_template"), "chat_template.template"));
    }
  }
  return "";
}

}  // namespace

TokenizerSpec parse_tokenizer_json(std::string_view json, const std::string& file_name) {
  const Reader reader(file_name);
  dom::parser parser;
  const dom::object root = reader.document(parser, json);
  TokenizerSpec spec;
  reader.normalizer(root);
  dom::element pre;
  if (!Reader::get(root, "pre_tokenizer", pre)) {
    reader.unsupported("there is no pre_tokenizer; only byte-level BPE is read");
  }
  reader.pre_tokenizer(pre, spec.patterns, 0);
  reader.model(root, spec);
  reader.added(root, spec);
  return spec;
}

TokenizerConfig parse_tokenizer_config(std::string_view json, const std::string& file_name) {
  const Reader reader(file_name);
  dom::parser parser;
  const dom::object root = reader.document(parser, json);
  TokenizerConfig config;
  config.bos_token = reader.token_field(root, "bos_token");
  config.eos_token = reader.token_field(root, "eos_token");
  config.pad_token = reader.token_field(root, "pad_token");
  config.unk_token = reader.token_field(root, "unk_token");
  config.add_bos_token = reader.flag(root, "add_bos_token", false);
  config.add_eos_token = reader.flag(root, "add_eos_token", false);
  config.chat_template = chat_template(reader, root);
  return config;
}

}  // namespace cachalot::text
