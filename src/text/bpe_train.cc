#include "text/bpe_train.h"

#include <algorithm>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "text/added_tokens.h"
#include "text/byte_level.h"
#include "text/chat.h"
#include "text/pre_tokenizer.h"
#include "text/utf8.h"

namespace cachalot::text {
namespace {

constexpr const char* kBos = "<｜begin▁of▁sentence｜>";
constexpr const char* kEos = "<｜end▁of▁sentence｜>";
constexpr const char* kPad = "<｜▁pad▁｜>";
constexpr const char* kChatTokens[] = {"<｜User｜>", "<｜Assistant｜>"};
constexpr std::int32_t kSpecials = 3;
constexpr std::int32_t kChats = 2;
constexpr std::int32_t kFirstLearnt = kSpecials + 256;

using WordCounts = std::unordered_map<std::string_view, std::int64_t>;

void count_words(const PreTokenizer& pre, const AddedTokens& added, std::string_view text,
                 WordCounts& counts) {
  RegexScratch scratch;
  for (const TextPart& part : added.cut(text)) {
    if (part.id < 0) {
      pre.split(part.text, scratch, [&](std::string_view piece) { ++counts[piece]; });
    }
  }
}

// The words of the corpus, sorted, with how often each stands there. Each stretch of text is
// counted on its own, so that sums do not depend on which thread met which.
std::vector<std::pair<std::string_view, std::int64_t>> sorted_words(
    std::span<const std::string_view> documents, const std::vector<AddedToken>& added_tokens,
    ThreadPool& pool, const Progress& progress) {
  const PreTokenizer pre(v3_patterns());
  const AddedTokens added(added_tokens);
  std::uint64_t done = 0, total = 0;
  for (const std::string_view document : documents) total += document.size();
  WordCounts all;
  const auto add = [&](std::span<const std::string_view> group) {
    std::vector<WordCounts> counts(group.size());
    auto count = [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) count_words(pre, added, group[i], counts[i]);
    };
    pool.run(static_cast<std::int64_t>(group.size()), /*grain=*/1, count);
    for (std::size_t i = 0; i < group.size(); ++i) {
      for (const auto& [word, n] : counts[i]) all[word] += n;
      done += group[i].size();
    }
    if (progress) progress(done, total);
  };
  std::vector<std::string_view> group;
  constexpr std::size_t kGroup = 64;
  for (const std::string_view document : documents) {
    for (const std::string_view part : cut_after_newlines(document, 256 << 10)) {
      group.push_back(part);
      if (group.size() == kGroup) add(group), group.clear();
    }
  }
  add(group);
  std::vector<std::pair<std::string_view, std::int64_t>> words(all.begin(), all.end());
  std::sort(words.begin(), words.end());
  return words;
}

struct Pair {
  std::int32_t left, right;
  bool operator==(const Pair&) const = default;
  bool operator<(const Pair& other) const {
    return left != other.left ? left < other.left : right < other.right;
  }
};
struct PairHash {
  std::size_t operator()(const Pair& p) const noexcept {
    const std::uint64_t key = (std::uint64_t{static_cast<std::uint32_t>(p.left)} << 32 |
                               static_cast<std::uint32_t>(p.right)) *
                              0x9E3779B97F4A7C15u;
    return key ^ key >> 32;
  }
};

// Words as token sequences, the count of every adjacent pair, and the words each pair was seen in.
class Merger {
 public:
  Merger(std::span<const std::pair<std::string_view, std::int64_t>> words,
         const BpeTrainOptions& options);

  struct Learnt {
    Pair pair;
    std::int32_t joined;
  };
  // The most frequent pair, joined everywhere; false when no pair is left to learn.
  bool step(Learnt& learnt);
  const std::string& bytes(std::int32_t token) const { return tokens_[token]; }

 private:
  struct Word {
    std::vector<std::int32_t> tokens;
    std::int64_t count;
  };
  struct Seen {
    std::int64_t count = 0;
    std::vector<std::int32_t> words;  // perhaps more than once, perhaps no longer
  };
  struct Candidate {
    std::int64_t count;
    Pair pair;
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : other.pair < pair;
    }
  };
  void add(Pair pair, std::int64_t count, std::int32_t word) {
    Seen& seen = pairs_[pair];
    seen.count += count;
    if (seen.words.empty() || seen.words.back() != word) seen.words.push_back(word);
    touched_.push_back(pair);
  }
  void join(Pair pair, std::int32_t joined, std::int32_t word);

  BpeTrainOptions options_;
  std::vector<std::string> tokens_;  // bytes by id
  std::unordered_set<std::string> known_;
  std::vector<Word> words_;
  std::unordered_map<Pair, Seen, PairHash> pairs_;
  std::priority_queue<Candidate> queue_;
  std::vector<Pair> touched_;  // pairs that grew in this step
};

Merger::Merger(std::span<const std::pair<std::string_view, std::int64_t>> words,
               const BpeTrainOptions& options)
    : options_(options), tokens_(kFirstLearnt) {
  // Byte tokens in the order of their characters, as DeepSeek-V3 has them.
  std::array<std::int32_t, 256> byte_token{};
  std::array<int, 256> order{};
  for (int b = 0; b < 256; ++b) order[b] = b;
  std::sort(order.begin(), order.end(),
            [](int a, int b) { return byte_alphabet()[a] < byte_alphabet()[b]; });
  for (int i = 0; i < 256; ++i) {
    byte_token[order[i]] = kSpecials + i;
    tokens_[kSpecials + i] = std::string(1, static_cast<char>(order[i]));
  }
  words_.reserve(words.size());
  for (const auto& [text, count] : words) {
    Word word{{}, count};
    for (const char c : text) word.tokens.push_back(byte_token[static_cast<unsigned char>(c)]);
    const auto index = static_cast<std::int32_t>(words_.size());
    for (std::size_t i = 0; i + 1 < word.tokens.size(); ++i) {
      add({word.tokens[i], word.tokens[i + 1]}, count, index);
    }
    words_.push_back(std::move(word));
  }
  touched_.clear();
  for (const auto& [pair, seen] : pairs_) queue_.push({seen.count, pair});
}

void Merger::join(Pair pair, std::int32_t joined, std::int32_t word) {
  std::vector<std::int32_t>& t = words_[word].tokens;
  const std::int64_t count = words_[word].count;
  std::size_t out = 0;
  for (std::size_t i = 0; i < t.size();) {
    if (i + 1 >= t.size() || t[i] != pair.left || t[i + 1] != pair.right) {
      t[out++] = t[i++];
      continue;
    }
    // t[0, out) is done, what stands behind is not: its pairs change from old to new neighbours.
    if (out > 0) {
      pairs_[{t[out - 1], pair.left}].count -= count;
      add({t[out - 1], joined}, count, word);
    }
    if (i + 2 < t.size()) {
      pairs_[{pair.right, t[i + 2]}].count -= count;
      add({joined, t[i + 2]}, count, word);
    }
    t[out++] = joined;
    i += 2;
  }
  t.resize(out);
}

bool Merger::step(Learnt& learnt) {
  while (!queue_.empty()) {
    const Candidate top = queue_.top();
    queue_.pop();
    const auto found = pairs_.find(top.pair);
    if (found == pairs_.end() || top.count <= 0) continue;
    if (found->second.count != top.count) {  // it shrank since: back, with what it is worth now
      if (found->second.count > 0 && found->second.count < top.count) {
        queue_.push({found->second.count, top.pair});
      }
      continue;
    }
    if (top.count < options_.min_count) return false;
    const std::string joined = tokens_[top.pair.left] + tokens_[top.pair.right];
    // A token has one pair only: "ab"+"c" is not learnt where "a"+"bc" was.
    if (joined.size() > options_.max_bytes || !known_.insert(joined).second) continue;
    const auto id = static_cast<std::int32_t>(tokens_.size());
    tokens_.push_back(joined);
    std::vector<std::int32_t> words = std::move(found->second.words);
    pairs_.erase(found);
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    touched_.clear();
    for (const std::int32_t word : words) join(top.pair, id, word);
    pairs_.erase(top.pair);  // join counted it down where it overlaps itself
    std::sort(touched_.begin(), touched_.end());
    touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
    for (const Pair& pair : touched_) {
      if (const auto it = pairs_.find(pair); it != pairs_.end()) {
        queue_.push({it->second.count, pair});
      }
    }
    learnt = {top.pair, id};
    return true;
  }
  return false;
}

AddedToken special_token(const char* content, std::int32_t id) {
  return {.id = id, .content = content, .special = true};
}

}  // namespace

TokenizerSpec train_bpe(std::span<const std::string_view> documents, const BpeTrainOptions& options,
                        ThreadPool& pool, const Progress& progress) {
  const std::int64_t learn = std::int64_t{options.vocab_size} - kFirstLearnt - kChats;
  if (learn < 0 || options.vocab_size > kMaxTokenId) {
    throw Error(Code::kConfig, cat("a vocabulary of ", options.vocab_size, " is not possible: ",
                                   kFirstLearnt + kChats, " tokens are fixed (", kSpecials,
                                   " special, 256 bytes, ", kChats, " for chats), and at most ",
                                   kMaxTokenId, " are allowed"));
  }
  TokenizerSpec spec;
  spec.patterns = v3_patterns();
  spec.added = {special_token(kBos, 0), special_token(kEos, 1), special_token(kPad, 2)};
  for (const char* content : kChatTokens)
    spec.added.push_back({.content = content, .normalized = true});
  const auto words = sorted_words(documents, spec.added, pool, progress);
  if (words.empty())
    throw Error(Code::kConfig, "the corpus is empty: there is nothing to learn from");

  Merger merger(words, options);
  for (const char* content : {kBos, kEos, kPad}) {
    spec.vocab.emplace_back(content, static_cast<std::int32_t>(spec.vocab.size()));
  }
  for (std::int32_t id = kSpecials; id < kFirstLearnt; ++id) {
    spec.vocab.emplace_back(to_byte_level(merger.bytes(id)), id);
  }
  Merger::Learnt learnt{};
  for (std::int64_t i = 0; i < learn && merger.step(learnt); ++i) {
    spec.merges.emplace_back(to_byte_level(merger.bytes(learnt.pair.left)),
                             to_byte_level(merger.bytes(learnt.pair.right)));
    spec.vocab.emplace_back(to_byte_level(merger.bytes(learnt.joined)), learnt.joined);
  }
  for (std::int32_t i = 0; i < kChats; ++i) {
    spec.added[kSpecials + i].id = static_cast<std::int32_t>(spec.vocab.size()) + i;
  }
  return spec;
}

TokenizerConfig trained_tokenizer_config() {
  TokenizerConfig config;
  config.bos_token = kBos;
  config.eos_token = kEos;
  config.pad_token = kPad;
  config.add_bos_token = true;
  config.chat_template = v3_chat_template();
  return config;
}

}  // namespace cachalot::text
