// Conversations into the token files and samples of a run.
#include <optional>

#include "base/error.h"
#include "text/conversation_files.h"
#include "train/run_data_parts.h"

namespace cachalot::train {

namespace fs = std::filesystem;

namespace {

using Lines = std::span<const text::ConversationLines::Line>;

std::vector<fs::path> paths(const std::vector<std::string>& names) {
  return {names.begin(), names.end()};
}

// Conversations to train on, and those held out: the last of them, or files of their own.
struct HeldApart {
  text::ConversationLines given;
  std::optional<text::ConversationLines> more;
  Lines train, held_out;

  explicit HeldApart(const DataRecipe& data)
      : given(paths(data.conversations)), train(given.lines()) {
    if (!data.held_out_conversations.empty()) {
      held_out = more.emplace(paths(data.held_out_conversations)).lines();
      return;
    }
    if (data.validation_fraction == 0) return;
    const std::size_t all = train.size();
    const auto kept =
        static_cast<std::size_t>(static_cast<double>(all) * (1 - data.validation_fraction));
    held_out = train.subspan(kept);
    train = train.first(kept);
    if (!train.empty() && !held_out.empty()) return;
    throw Error(Code::kConfig,
                cat("data.validation_fraction = ", data.validation_fraction, " of ", all,
                    " conversation(s) leaves ", kept, " to learn from and ", all - kept,
                    " to validate on: give more, or others to validate on "
                    "(data.held_out_conversations), or set it to 0"));
  }
};

// A new run has opened the files before, so only a resume can find one gone.
HeldApart open_conversations(const DataRecipe& data, const std::string& lacks) {
  try {
    return HeldApart(data);
  } catch (const Error& e) {
    if (e.code() != Code::kIo) throw;
    throw Error(Code::kIo,
                cat(e.what(), " The run's samples have to be made from these conversations (",
                    lacks, "): put the file there, or what the run had made of it"));
  }
}

// Why these two cannot be trained on as they lie there; empty where they can.
std::string why_unusable(const fs::path& tokens, const fs::path& samples,
                         const text::Tokenizer& tokenizer) {
  if (std::string why = train::why_unusable(tokens, tokenizer); !why.empty()) return why;
  if (!fs::exists(samples)) return cat(samples.string(), " is missing");
  try {
    const text::TokenFile file(tokens);
    (void)text::SampleTable::read(samples, file.info().tokens, file.ids_hash());
    return {};
  } catch (const Error&) {
    return cat(samples.string(), " is damaged, or of other tokens");
  }
}

}  // namespace

RunData from_conversations(const Recipe& recipe, const fs::path& run_dir, ThreadPool& pool,
                           const DataProgress& progress) {
  RunData data;
  data.tokenizer = tokenizer_folder(recipe, run_dir);
  const auto tokenizer = text::Tokenizer::load(data.tokenizer);
  describe(tokenizer, data);
  const fs::path folder = run_dir / "data";
  data.train = folder / "train.tokens";
  data.train_samples = folder / "train.samples";
  if (recipe.data.validation_fraction > 0 || !recipe.data.held_out_conversations.empty()) {
    data.validation = folder / "validation.tokens";
    data.validation_samples = folder / "validation.samples";
  }
  std::string lacks = why_unusable(data.train, data.train_samples, tokenizer);
  if (lacks.empty() && !data.validation.empty()) {
    lacks = why_unusable(data.validation, data.validation_samples, tokenizer);
  }
  if (lacks.empty()) return data;

  const HeldApart apart = open_conversations(recipe.data, lacks);
  create_folder(folder);
  const auto encode = [&](const text::ConversationLines& all, Lines lines, const fs::path& tokens,
                          const fs::path& samples, const char* what) {
    if (why_unusable(tokens, samples, tokenizer).empty()) return;
    text::encode_conversations(
        tokenizer, all, lines, tokens, samples, pool,
        [&](std::uint64_t done, std::uint64_t total) { progress(what, done, total); });
    data.encoded.insert(data.encoded.end(), {tokens, samples});
  };
  encode(apart.given, apart.train, data.train, data.train_samples, "encoding the conversations");
  if (data.validation.empty()) return data;
  encode(apart.more ? *apart.more : apart.given, apart.held_out, data.validation,
         data.validation_samples, "encoding the held-out conversations");
  return data;
}

}  // namespace cachalot::train
