#include "train/run_data.h"

#include <algorithm>

#include "base/rng.h"
#include "text/bpe_train.h"
#include "text/byte_tokenizer.h"
#include "text/corpus.h"
#include "text/tokenizer_write.h"
#include "train/checkpoint_files.h"

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

// A token file that is whole and was made with this tokenizer.
bool usable(const fs::path& file, const text::Tokenizer& tokenizer) {
  if (!fs::exists(file)) return false;
  try {
    return text::TokenFile(file).info().tokenizer == tokenizer.fingerprint();
  } catch (const Error&) {
    return false;  // damaged: it is made again
  }
}

void create_folder(const fs::path& folder) {
  checked("create the folder", folder,
          [&](std::error_code& error) { fs::create_directories(folder, error); });
}

// The tokenizer's folder; trains one first where the recipe asks for that.
fs::path tokenizer_folder(const Recipe& recipe, const fs::path& run_dir,
                          const text::CorpusSplit* split, ThreadPool& pool,
                          const DataProgress& progress) {
  if (!recipe.data.tokenizer.empty()) return recipe.data.tokenizer;
  if (recipe.data.train_bpe == 0) return recipe.model.init_from;
  const fs::path folder = run_dir / "tokenizer";
  if (fs::exists(folder / "tokenizer.json") && fs::exists(folder / "tokenizer_config.json"))
    return folder;
  create_folder(folder);
  if (recipe.byte_tokens()) {
    const bool eos = recipe.data.end_documents;
    text::write_tokenizer(folder, text::byte_tokenizer(eos), text::byte_tokenizer_config(eos));
    return folder;
  }
  text::BpeTrainOptions options;
  options.vocab_size = recipe.data.train_bpe;
  // Only the training part: a vocabulary that has seen the held-out text would flatter the result.
  const text::TokenizerSpec spec =
      text::train_bpe(split->train, options, pool, [&](std::uint64_t done, std::uint64_t total) {
        progress("learning a vocabulary", done, total);
      });
  text::write_tokenizer(folder, spec, text::trained_tokenizer_config());
  return folder;
}

// What a model needs to know of its tokenizer.
void describe(const text::Tokenizer& tokenizer, RunData& data) {
  data.vocab_size = tokenizer.vocab_size();
  data.bos = tokenizer.bos_id().value_or(-1);
  data.eos = tokenizer.eos_id().value_or(-1);
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

}  // namespace

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
  const text::Corpus corpus(corpus_options(recipe.data));
  text::SplitOptions split_options;
  split_options.validation_fraction = recipe.data.validation_fraction;
  split_options.at_line_ends = !recipe.byte_tokens();
  const text::CorpusSplit split = text::split_corpus(corpus.documents(), split_options);

  RunData data;
  data.tokenizer = tokenizer_folder(recipe, run_dir, &split, pool, progress);
  const text::Tokenizer tokenizer = text::Tokenizer::load(data.tokenizer);
  describe(tokenizer, data);

  create_folder(run_dir / "data");
  data.train = run_dir / "data" / "train.tokens";
  if (!usable(data.train, tokenizer)) {
    text::encode_documents(
        tokenizer, split.train, data.train, pool,
        [&](std::uint64_t done, std::uint64_t total) {
          progress("encoding the training text", done, total);
        },
        recipe.data.end_documents);
  }
  if (split.validation.empty() && recipe.data.validation_fraction > 0) {
    throw Error(Code::kConfig, cat("data.validation_fraction = ", recipe.data.validation_fraction,
                                   " of ", corpus.bytes(),
                                   " bytes leaves nothing to validate on: raise it, set it to 0, "
                                   "or give more text"));
  }
  if (!split.validation.empty()) {
    data.validation = run_dir / "data" / "validation.tokens";
    if (!usable(data.validation, tokenizer)) {
      text::encode_documents(
          tokenizer, split.validation, data.validation, pool,
          [&](std::uint64_t done, std::uint64_t total) {
            progress("encoding the held-out text", done, total);
          },
          recipe.data.end_documents);
    }
    check_held_out(text::TokenFile(data.validation).info(), "the held-out part");
  }
  return data;
}

}  // namespace cachalot::train
