#include "train/run_data.h"

#include <algorithm>
#include <optional>

#include "base/rng.h"
#include "text/bpe_train.h"
#include "text/byte_tokenizer.h"
#include "text/corpus.h"
#include "text/tokenizer_write.h"
#include "train/checkpoint_files.h"
#include "train/run_data_parts.h"

namespace cachalot::train {

namespace fs = std::filesystem;

namespace {

text::CorpusOptions corpus_options(const DataRecipe& data) {
  text::CorpusOptions options;
  options.files.assign(data.corpus.begin(), data.corpus.end());
  if (!data.document_separator.empty()) {
    options.rule = text::DocumentRule::kMarker;
    options.marker = data.document_separator;
  }
  return options;
}

}  // namespace

std::string why_unusable(const fs::path& file, const text::Tokenizer& tokenizer) {
  if (!fs::exists(file)) return cat(file.string(), " is missing");
  try {
    if (text::TokenFile(file).info().tokenizer == tokenizer.fingerprint()) return {};
    return cat(file.string(), " was made with another tokenizer");
  } catch (const Error&) {
    return cat(file.string(), " is damaged");
  }
}

void create_folder(const fs::path& folder) {
  checked("create the folder", folder,
          [&](std::error_code& error) { fs::create_directories(folder, error); });
}

fs::path tokenizer_folder(const Recipe& recipe, const fs::path& run_dir) {
  if (!recipe.data.tokenizer.empty()) return recipe.data.tokenizer;
  return recipe.data.train_bpe > 0 ? run_dir / "tokenizer" : fs::path(recipe.model.init_from);
}

void describe(const text::Tokenizer& tokenizer, RunData& data) {
  data.vocab_size = tokenizer.vocab_size();
  data.bos = tokenizer.bos_id().value_or(-1);
  data.eos = tokenizer.eos_id().value_or(-1);
}

namespace {

// A folder that the recipe names has to be there; what it lacks is said when it is opened.
bool has_tokenizer(const Recipe& recipe, const fs::path& folder) {
  return recipe.data.train_bpe == 0 ||
         (fs::exists(folder / "tokenizer.json") && fs::exists(folder / "tokenizer_config.json"));
}

void make_tokenizer(const Recipe& recipe, const fs::path& folder, const text::CorpusSplit& split,
                    ThreadPool& pool, const DataProgress& progress) {
  create_folder(folder);
  if (recipe.byte_tokens()) {
    const bool eos = recipe.data.end_documents;
    text::write_tokenizer(folder, text::byte_tokenizer(eos), text::byte_tokenizer_config(eos));
    return;
  }
  text::BpeTrainOptions options;
  options.vocab_size = recipe.data.train_bpe;
  // Only the training part: a vocabulary that has seen the held-out text would flatter the result.
  const text::TokenizerSpec spec =
      text::train_bpe(split.train, options, pool, [&](std::uint64_t done, std::uint64_t total) {
        progress("learning a vocabulary", done, total);
      });
  text::write_tokenizer(folder, spec, text::trained_tokenizer_config());
}

// A loss needs a token to read and one to predict.
void check_held_out(const text::TokenFileInfo& info, const std::string& what) {
  if (info.tokens >= 2) return;
  throw Error(Code::kConfig, cat(what, " has ", info.tokens,
                                 " token(s), and two are needed to validate on: raise "
                                 "data.validation_fraction, or set it to 0"));
}

// The file that is trained on says what another file, or a tokenizer, has to fit.
void check_same_tokenizer(const text::TokenFileInfo& train, const fs::path& train_file,
                          std::uint64_t fingerprint, const std::string& other) {
  if (train.tokenizer == 0 || fingerprint == 0 || train.tokenizer == fingerprint) return;
  throw Error(Code::kConfig,
              cat(train_file.string(), " was made with another tokenizer than ", other,
                  ": make it again from its text (data.corpus), or name its own"));
}

RunData from_token_files(const Recipe& recipe) {
  const auto& files = recipe.data.tokens;
  if (files.size() > 2) {
    throw Error(Code::kConfig,
                cat("data.tokens has ", files.size(),
                    " files; needed is one to train on and, after it, at most one to validate on"));
  }
  RunData data;
  data.train = files[0];
  const text::TokenFileInfo train = text::TokenFile(data.train).info();
  if (files.size() > 1) {
    data.validation = files[1];
    const text::TokenFileInfo held_out = text::TokenFile(data.validation).info();
    check_same_tokenizer(train, data.train, held_out.tokenizer, data.validation.string());
    if (held_out.vocab_size > train.vocab_size) {
      throw Error(Code::kConfig, cat(data.validation.string(), " has a vocabulary of ",
                                     held_out.vocab_size, ", but ", data.train.string(), " one of ",
                                     train.vocab_size, ": both need the same tokenizer"));
    }
    check_held_out(held_out, data.validation.string());
  }
  data.tokenizer = recipe.data.tokenizer;
  const fs::path own = recipe.model.init_from;  // may be without a tokenizer
  if (data.tokenizer.empty() && !own.empty() && fs::exists(own / "tokenizer.json")) {
    data.tokenizer = own;
  }
  if (!data.tokenizer.empty()) {
    const auto tokenizer = text::Tokenizer::load(data.tokenizer);
    check_same_tokenizer(train, data.train, tokenizer.fingerprint(), data.tokenizer.string());
    describe(tokenizer, data);
  }
  data.vocab_size = std::max(data.vocab_size, static_cast<int>(train.vocab_size));
  return data;
}

// As many tokens, and as evenly drawn, as the recipe asks for: nothing to learn, all to compute.
RunData from_random_tokens(const Recipe& recipe, const fs::path& run_dir) {
  constexpr std::uint64_t kStream = 0x5241'4E44'544F'4Bull;  // apart from weights and windows
  constexpr std::int64_t kPiece = 1 << 16;
  RunData data;
  data.vocab_size = recipe.model.vocab_size;
  data.train = run_dir / "data" / "train.tokens";
  create_folder(data.train.parent_path());
  const Rng rng(static_cast<std::uint64_t>(recipe.run.seed), kStream);
  text::TokenFileWriter writer(data.train, data.vocab_size, /*tokenizer_fingerprint=*/0);
  std::vector<std::int32_t> piece;
  for (std::int64_t at = 0; at < recipe.data.random_tokens; ++at) {
    const auto index = static_cast<std::uint64_t>(at);
    const auto words = static_cast<std::uint64_t>(data.vocab_size);
    piece.push_back(static_cast<std::int32_t>(rng.below(index, words)));
    if (at + 1 == recipe.data.random_tokens || std::ssize(piece) == kPiece) {
      writer.append(piece);
      piece.clear();
    }
  }
  writer.count_document(0);
  writer.commit();
  return data;
}

// The text, which is needed because of what `lacks`. A new run has opened it before, so only a
// resume can find it gone.
text::Corpus open_corpus(const DataRecipe& data, const std::string& lacks) {
  try {
    return text::Corpus(corpus_options(data));
  } catch (const Error& e) {
    if (e.code() != Code::kIo) throw;
    throw Error(Code::kIo, cat(e.what(), " The run's tokens have to be made from that text again (",
                               lacks, "): put the text back, or what the run had made of it"));
  }
}

// Makes what lacks of the run's tokenizer and tokens.
void encode_corpus(const Recipe& recipe, RunData& data, const std::string& lacks,
                   std::optional<text::Tokenizer>& tokenizer, ThreadPool& pool,
                   const DataProgress& progress) {
  const text::Corpus corpus = open_corpus(recipe.data, lacks);
  text::SplitOptions options;
  options.validation_fraction = recipe.data.validation_fraction;
  options.at_line_ends = !recipe.byte_tokens();
  const text::CorpusSplit split = text::split_corpus(corpus.documents(), options);
  if (!tokenizer) {
    make_tokenizer(recipe, data.tokenizer, split, pool, progress);
    tokenizer.emplace(text::Tokenizer::load(data.tokenizer));
  }
  create_folder(data.train.parent_path());
  const auto encode = [&](const std::vector<std::string_view>& documents, const fs::path& file,
                          const char* what) {
    if (why_unusable(file, *tokenizer).empty()) return;
    text::encode_documents(
        *tokenizer, documents, file, pool,
        [&](std::uint64_t done, std::uint64_t total) { progress(what, done, total); },
        recipe.data.end_documents);
    data.encoded.push_back(file);
  };
  encode(split.train, data.train, "encoding the training text");
  if (data.validation.empty()) return;
  if (split.validation.empty()) {
    throw Error(Code::kConfig, cat("data.validation_fraction = ", recipe.data.validation_fraction,
                                   " of ", corpus.bytes(),
                                   " bytes leaves nothing to validate on: raise it, set it to 0, "
                                   "or give more text"));
  }
  encode(split.validation, data.validation, "encoding the held-out text");
}

// Where tokenizer and tokens are whole, the text is not looked at: a resume does without it.
RunData from_text(const Recipe& recipe, const fs::path& run_dir, ThreadPool& pool,
                  const DataProgress& progress) {
  RunData data;
  data.tokenizer = tokenizer_folder(recipe, run_dir);
  data.train = run_dir / "data" / "train.tokens";
  if (recipe.data.validation_fraction > 0) {
    data.validation = run_dir / "data" / "validation.tokens";
  }
  std::optional<text::Tokenizer> tokenizer;
  std::string lacks;
  if (has_tokenizer(recipe, data.tokenizer)) {
    tokenizer.emplace(text::Tokenizer::load(data.tokenizer));
    lacks = why_unusable(data.train, *tokenizer);
    if (lacks.empty() && !data.validation.empty()) {
      lacks = why_unusable(data.validation, *tokenizer);
    }
  } else {
    lacks = cat(data.tokenizer.string(), " is not complete");
  }
  if (!lacks.empty()) encode_corpus(recipe, data, lacks, tokenizer, pool, progress);
  describe(*tokenizer, data);
  if (!data.validation.empty()) {
    check_held_out(text::TokenFile(data.validation).info(), "the held-out part");
  }
  return data;
}

}  // namespace

void RunData::remove_encoded() const {
  std::error_code ignored;  // what is left is refused again, with the same words
  for (const fs::path& file : encoded) fs::remove(file, ignored);
}

std::vector<fs::path> RunData::tokenizer_files() const {
  std::vector<fs::path> files;
  if (tokenizer.empty()) return files;
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}) {
    if (fs::exists(tokenizer / name)) files.push_back(tokenizer / name);
  }
  return files;
}

RunData prepare_data(const Recipe& recipe, const fs::path& run_dir, ThreadPool& pool,
                     const DataProgress& progress) {
  if (!recipe.data.tokens.empty()) return from_token_files(recipe);
  if (recipe.data.random_tokens > 0) return from_random_tokens(recipe, run_dir);
  if (recipe.learns_conversations()) return from_conversations(recipe, run_dir, pool, progress);
  return from_text(recipe, run_dir, pool, progress);
}

}  // namespace cachalot::train
