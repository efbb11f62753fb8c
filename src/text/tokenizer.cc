#include "text/tokenizer.h"

#include <mutex>

#include "base/atomic_file.h"
#include "base/error.h"
#include "text/added_tokens.h"
#include "text/byte_level.h"
#include "text/pre_tokenizer.h"
#include "text/token_tables.h"
#include "text/tokenizer_json.h"
#include "text/utf8.h"

namespace cachalot::text {

namespace {

// What one call of encode needs for itself.
struct Encoder {
  RegexScratch scratch;
  BpeCache cache;
};

// Encoders at rest. As many as there were calls at the same time.
class EncoderPool {
 public:
  std::unique_ptr<Encoder> take() {
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        auto encoder = std::move(idle_.back());
        idle_.pop_back();
        return encoder;
      }
    }
    return std::make_unique<Encoder>();
  }
  void give_back(std::unique_ptr<Encoder> encoder) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(encoder));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Encoder>> idle_;
};

// tokenizer.json of the largest vocabularies has tens of megabytes.
constexpr std::uint64_t kMaxFile = 512u << 20;

}  // namespace

struct Tokenizer::State {
  State(const TokenizerSpec& spec, TokenizerConfig config_, const std::string& file)
      : tables(spec, file),
        added(spec.added),
        pre(spec.patterns),
        bpe(tables.byte_tokens, tables.merges),
        ignore_merges(spec.ignore_merges),
        config(std::move(config_)),
        fingerprint(hash_spec(spec)) {
    tables.merges = {};
    set_config(std::move(config));
  }
  void set_config(TokenizerConfig next) {
    config = std::move(next);
    const auto find = [&](const std::optional<std::string>& token) -> std::optional<std::int32_t> {
      if (!token) return std::nullopt;
      const auto found = tables.ids.find(*token);
      if (found == tables.ids.end()) {
        throw Error(Code::kFormat, cat("tokenizer_config.json names the token '", *token,
                                       "', which tokenizer.json does not have"));
      }
      return found->second;
    };
    bos = find(config.bos_token);
    eos = find(config.eos_token);
    pad = find(config.pad_token);
  }
  void encode_piece(std::string_view piece, Encoder& encoder,
                    std::vector<std::int32_t>& out) const {
    encoder.cache.get(piece, out, [&](std::string_view p, std::vector<std::int32_t>& to) {
      if (ignore_merges) {
        const auto found = tables.ids.find(to_byte_level(p));
        // An added token written like this piece's bytes stands for something else, and one that is
        // not in the vocabulary is only found by itself.
        if (found != tables.ids.end() && tables.in_vocabulary[found->second] != 0 &&
            tables.bytes[found->second] == p) {
          to.push_back(found->second);
          return;
        }
      }
      bpe.encode(p, to);
    });
  }
  void encode(std::string_view text, bool plain, std::vector<std::int32_t>& out) const;

  TokenTables tables;
  AddedTokens added;
  PreTokenizer pre;
  Bpe bpe;
  bool ignore_merges;
  TokenizerConfig config;
  std::uint64_t fingerprint;
  std::optional<std::int32_t> bos, eos, pad;
  mutable EncoderPool encoders;
};

void Tokenizer::State::encode(std::string_view text, bool plain,
                              std::vector<std::int32_t>& out) const {
  std::string repaired;
  if (!is_valid_utf8(text)) text = repaired = replace_invalid_utf8(text);
  auto encoder = encoders.take();
  const std::vector<TextPart> parts = plain ? std::vector<TextPart>{{text, -1}} : added.cut(text);
  for (const TextPart& part : parts) {
    if (part.id >= 0) {
      out.push_back(part.id);
      continue;
    }
    pre.split(part.text, encoder->scratch,
              [&](std::string_view piece) { encode_piece(piece, *encoder, out); });
  }
  encoders.give_back(std::move(encoder));
}

Tokenizer::Tokenizer(const TokenizerSpec& spec, TokenizerConfig config,
                     const std::string& file_name)
    : state_(std::make_unique<State>(spec, std::move(config), file_name)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::parse(std::string_view json, const std::string& file_name) {
  return Tokenizer(parse_tokenizer_json(json, file_name), {}, file_name);
}

Tokenizer Tokenizer::load(const std::filesystem::path& folder) {
  const auto file = folder / "tokenizer.json";
  if (!std::filesystem::exists(file)) {
    throw Error(Code::kIo, cat(folder.string(),
                               " has no tokenizer.json. A model folder needs the "
                               "one its weights were trained with: copy it there."));
  }
  Tokenizer tokenizer = parse(read_file(file, kMaxFile), file.string());
  const auto config_file = folder / "tokenizer_config.json";
  if (std::filesystem::exists(config_file)) {
    TokenizerConfig config =
        parse_tokenizer_config(read_file(config_file, kMaxFile), config_file.string());
    const auto jinja = folder / "chat_template.jinja";  // where newer folders keep the template
    if (std::filesystem::exists(jinja)) config.chat_template = read_file(jinja, kMaxFile);
    tokenizer.state_->set_config(std::move(config));
  }
  return tokenizer;
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  encode(text, ids);
  return ids;
}
void Tokenizer::encode(std::string_view text, std::vector<std::int32_t>& out) const {
  state_->encode(text, /*plain=*/false, out);
}
std::vector<std::int32_t> Tokenizer::encode_plain(std::string_view text) const {
  std::vector<std::int32_t> ids;
  state_->encode(text, /*plain=*/true, ids);
  return ids;
}

std::string Tokenizer::decode_bytes(std::span<const std::int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (const std::int32_t id : ids) {
    const std::string_view token = id_to_bytes(id);
    if (!(skip_special && state_->tables.special[id])) bytes += token;
  }
  return bytes;
}
std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::string bytes = decode_bytes(ids, skip_special);
  return is_valid_utf8(bytes) ? bytes : replace_invalid_utf8(bytes);
}

int Tokenizer::vocab_size() const noexcept { return static_cast<int>(state_->tables.bytes.size()); }
bool Tokenizer::has(std::int32_t id) const noexcept {
  return id >= 0 && id < vocab_size() && !state_->tables.bytes[id].empty();
}
bool Tokenizer::is_special(std::int32_t id) const {
  return has(id) && state_->tables.special[id] != 0;
}
bool Tokenizer::is_added(std::int32_t id) const { return has(id) && state_->tables.added[id] != 0; }
std::string_view Tokenizer::id_to_bytes(std::int32_t id) const {
  if (!has(id)) {
    throw Error(Code::kUsage,
                cat("token id ", id, " does not exist: this tokenizer has ids 0 to ",
                    vocab_size() - 1, ". Do the ids come from another model's tokenizer?"));
  }
  return state_->tables.bytes[id];
}
std::optional<std::int32_t> Tokenizer::token_to_id(std::string_view token) const {
  const auto found = state_->tables.ids.find(std::string(token));
  if (found == state_->tables.ids.end()) return std::nullopt;
  return found->second;
}

const TokenizerConfig& Tokenizer::config() const noexcept { return state_->config; }
std::optional<std::int32_t> Tokenizer::bos_id() const noexcept { return state_->bos; }
std::optional<std::int32_t> Tokenizer::eos_id() const noexcept { return state_->eos; }
std::optional<std::int32_t> Tokenizer::pad_id() const noexcept { return state_->pad; }
std::uint64_t Tokenizer::fingerprint() const noexcept { return state_->fingerprint; }

std::vector<std::string_view> Tokenizer::parts(std::string_view text,
                                               std::size_t part_bytes) const {
  if (state_->pre.splits_after_newlines() && state_->added.newline_is_safe()) {
    return cut_after_newlines(text, part_bytes);
  }
  if (text.empty()) return {};
  return {text};
}

void Tokenizer::pre_tokenize(std::string_view text, std::vector<std::string_view>& out) const {
  auto encoder = state_->encoders.take();
  state_->pre.split(text, encoder->scratch, [&](std::string_view piece) { out.push_back(piece); });
  state_->encoders.give_back(std::move(encoder));
}

}  // namespace cachalot::text
