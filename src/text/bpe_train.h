// Learns a byte-level BPE vocabulary from text, split by DeepSeek-V3's patterns.
//
// The most frequent adjacent pair of tokens is joined, again and again; of equally frequent pairs
// the one with the smaller ids, so that the result depends on the text and the options alone.
//
// Threads: the caller's pool counts words; the result does not depend on its size.
// Errors:  kConfig for a vocabulary too small for its fixed tokens, or an empty corpus.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/thread_pool.h"
#include "text/corpus.h"
#include "text/tokenizer.h"

namespace cachalot::text {

struct BpeTrainOptions {
  // All ids together: 3 special tokens, 256 bytes, the learnt ones, <｜User｜> and <｜Assistant｜>.
  // A corpus without enough pairs gives fewer.
  int vocab_size = 8192;
  std::int64_t min_count = 2;  // a pair met less often is not worth a token
  std::size_t max_bytes = 32;  // of one token
};

// BOS 0, EOS 1, pad 2, then bytes, then learnt tokens, then the chat tokens: as DeepSeek-V3 has
// them.
TokenizerSpec train_bpe(std::span<const std::string_view> documents, const BpeTrainOptions& options,
                        ThreadPool& pool, const Progress& progress = {});

// What tokenizer_config.json says of such a tokenizer: BOS added, DeepSeek-V3's chat format.
TokenizerConfig trained_tokenizer_config();

}  // namespace cachalot::text
