#include "train/run_data.h"

#include "text/bpe_train.h"
#include "text/corpus.h"
#include "text/tokenizer_write.h"

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

// The tokenizer's folder; trains one first where the recipe asks for that.
fs::path tokenizer_folder(const Recipe& recipe, const fs::path& run_dir,
                          const text::CorpusSplit* split, ThreadPool& pool,
                          const DataProgress& progress) {
  if (!recipe.data.tokenizer.empty()) return recipe.data.tokenizer;
  if (recipe.data.train_bpe == 0) return recipe.model.init_from;
  const fs::path folder = run_dir / "tokenizer";
  if (fs::exists(folder / "tokenizer.json") && fs::exists(folder / "tokenizer_config.json"))
    return folder;
  fs::create_directories(folder);
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

RunData from_token_files(const Recipe& recipe) {
  const auto& files = recipe.data.tokens;
  if (files.size() > 2) {
    throw Error(Code::kConfig,
                cat("data.tokens has ", files.size(),
                    " files; needed is one to train on and, after it, at most one to validate on"));
  }
  RunData data;
  data.train = files[0];
  if (files.size() > 1) data.validation = files[1];
  data.tokenizer = recipe.data.tokenizer;
  data.vocab_size = static_cast<int>(text::TokenFile(data.train).info().vocab_size);
  return data;
}

}  // namespace

std::vector<fs::path> RunData::tokenizer_files() const {
  std::vector<fs::path> files;
  if (tokenizer.empty()) return files;
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
    if (fs::exists(tokenizer / name)) files.push_back(tokenizer / name);
  }
  return files;
}

RunData prepare_data(const Recipe& recipe, const fs::path& run_dir, ThreadPool& pool,
                     const DataProgress& progress) {
  if (!recipe.data.tokens.empty()) return from_token_files(recipe);
  const text::Corpus corpus(corpus_options(recipe.data));
  text::SplitOptions split_options;
  split_options.validation_fraction = recipe.data.validation_fraction;
  const text::CorpusSplit split = text::split_corpus(corpus.documents(), split_options);

  RunData data;
  data.tokenizer = tokenizer_folder(recipe, run_dir, &split, pool, progress);
  const text::Tokenizer tokenizer = text::Tokenizer::load(data.tokenizer);
  data.vocab_size = tokenizer.vocab_size();
  data.bos = tokenizer.bos_id().value_or(-1);
  data.eos = tokenizer.eos_id().value_or(-1);

  fs::create_directories(run_dir / "data");
  data.train = run_dir / "data" / "train.tokens";
  if (!usable(data.train, tokenizer)) {
    text::encode_documents(tokenizer, split.train, data.train, pool,
                           [&](std::uint64_t done, std::uint64_t total) {
                             progress("encoding the training text", done, total);
                           });
  }
  if (!split.validation.empty()) {
    data.validation = run_dir / "data" / "validation.tokens";
    if (!usable(data.validation, tokenizer)) {
      text::encode_documents(tokenizer, split.validation, data.validation, pool,
                             [&](std::uint64_t done, std::uint64_t total) {
                               progress("encoding the held-out text", done, total);
                             });
    }
  }
  return data;
}

}  // namespace cachalot::train
