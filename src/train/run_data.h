// The data of a run: its tokenizer and token files, made once and kept in the run folder.
//
// Layout:  RUN/tokenizer/ (tokenizer.json, tokenizer_config.json), RUN/data/train.tokens and
//          validation.tokens. What is already there and fits the tokenizer is used as it is; where
//          all of it does, the text is not opened. Of conversations there are train.samples and
//          validation.samples too (text/sample_file.h): what belongs together and what is learnt.
// The held-out part is the end of the corpus: from the next line on where the tokenizer is a BPE,
// from the very byte on where tokens are bytes (as others cut it for losses per character).
// Errors:  kConfig (empty corpus, nothing left to validate on), kIo (a text that is gone, and what
//          it is needed for), kFormat.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "text/dataset.h"
#include "text/tokenizer.h"
#include "train/recipe.h"

namespace cachalot::train {

// what, done, total (bytes); from the calling thread.
using DataProgress = std::function<void(const std::string&, std::uint64_t, std::uint64_t)>;

struct RunData {
  std::filesystem::path train;                              // token files
  std::filesystem::path validation;                         // empty: the recipe holds nothing out
  std::filesystem::path train_samples, validation_samples;  // beside those; empty of a text
  std::filesystem::path tokenizer;  // folder; empty where the recipe gives token files alone
  int vocab_size = 0;
  int bos = -1;
  int eos = -1;
  std::vector<std::filesystem::path> tokenizer_files() const;  // to copy into checkpoints

  // Files that were encoded just now, because they were not there or no good. Where they turn out
  // to be of another text than the run began with they have to go, or they would stand in the way
  // of the right one.
  std::vector<std::filesystem::path> encoded;
  void remove_encoded() const;
};

RunData prepare_data(const Recipe& recipe, const std::filesystem::path& run_dir, ThreadPool& pool,
                     const DataProgress& progress);

}  // namespace cachalot::train
