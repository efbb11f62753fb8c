#include "text/bpe_train.h"

#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "testing/fixtures.h"
#include "text/byte_level.h"
#include "text/chat.h"
#include "text/pre_tokenizer.h"
#include "text/testing.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_write.h"

namespace cachalot::text {
namespace {

std::string sample_text() {
  std::string text;
  const Rng rng(9);
  const char* words[] = {"the ",  "whale ", "swam", " and", "\n",   "sea", "123",  "é",
                         " sang", "aaaa",   "!",    "漢字", "ship", "s",   "ing ", "\n\n"};
  for (int i = 0; i < 20000; ++i) text += words[rng.below(i, 16) * rng.below(i + 50000, 16) / 16];
  return text;
}

// The definition, slowly: count all pairs anew for every token.
TokenizerSpec by_definition(const std::string& text, int learn) {
  const PreTokenizer pre(v3_patterns());
  RegexScratch scratch;
  std::map<std::vector<std::string>, std::int64_t> words;
  pre.split(text, scratch, [&](std::string_view piece) {
    std::vector<std::string> word;
    for (const char c : piece) word.push_back(std::string(1, c));
    ++words[word];
  });
  std::map<std::string, int> ids;
  for (int b = 0; b < 256; ++b) {
    const std::string byte(1, static_cast<char>(b));
    // Byte tokens are in the order of their characters.
    int rank = 0;
    for (int other = 0; other < 256; ++other) rank += byte_alphabet()[other] < byte_alphabet()[b];
    ids[byte] = rank;
  }
  TokenizerSpec spec;
  for (int n = 0; n < learn; ++n) {
    std::map<std::pair<int, int>, std::pair<std::int64_t, std::pair<std::string, std::string>>>
        pairs;
    for (const auto& [word, count] : words) {
      for (std::size_t i = 0; i + 1 < word.size(); ++i) {
        auto& entry = pairs[{ids[word[i]], ids[word[i + 1]]}];
        entry.first += count;
        entry.second = {word[i], word[i + 1]};
      }
    }
    std::int64_t best = 1;
    std::pair<std::string, std::string> chosen;
    for (const auto& [key, entry] : pairs) {
      const auto& [count, pair] = entry;
      if (count > best && ids.count(pair.first + pair.second) == 0) best = count, chosen = pair;
    }
    if (best < 2) break;
    const std::string joined = chosen.first + chosen.second;
    ids[joined] = 256 + n;
    spec.merges.emplace_back(to_byte_level(chosen.first), to_byte_level(chosen.second));
    std::map<std::vector<std::string>, std::int64_t> next;
    for (const auto& [word, count] : words) {
      std::vector<std::string> joined_word;
      for (std::size_t i = 0; i < word.size();) {
        if (i + 1 < word.size() && word[i] == chosen.first && word[i + 1] == chosen.second) {
          joined_word.push_back(joined);
          i += 2;
        } else {
          joined_word.push_back(word[i++]);
        }
      }
      next[joined_word] += count;
    }
    words = std::move(next);
  }
  return spec;
}

TEST(BpeTrainTest, LearnsWhatTheDefinitionLearns) {
  const std::string text = sample_text();
  const std::string_view documents[] = {text};
  ThreadPool pool(1);
  const TokenizerSpec spec =
      train_bpe(documents, {.vocab_size = 261 + 60, .max_bytes = 1000}, pool);
  EXPECT_EQ(spec.merges, by_definition(text, 60).merges);
}

TEST(BpeTrainTest, ResultDoesNotDependOnThreadsOrOnFiles) {
  std::string text;
  for (int i = 0; i < 20; ++i) text += sample_text() + "x\n";
  const std::string_view whole[] = {text};
  ThreadPool one(1), three(3);
  const BpeTrainOptions options{.vocab_size = 600};
  const std::string a = tokenizer_json(train_bpe(whole, options, one));
  EXPECT_EQ(a, tokenizer_json(train_bpe(whole, options, three)));
}

TEST(BpeTrainTest, TheFileReadsBackAndTextRoundTrips) {
  const std::string text = sample_text();
  const std::string_view documents[] = {text};
  ThreadPool pool(2);
  const TokenizerSpec spec = train_bpe(documents, {.vocab_size = 400}, pool);
  const cachalot::testing::TempDir dir;
  write_tokenizer(dir.path(), spec, trained_tokenizer_config());
  const Tokenizer t = Tokenizer::load(dir.path());
  EXPECT_LE(t.vocab_size(), 400);
  EXPECT_GT(t.vocab_size(), 261);
  EXPECT_EQ(t.bos_id(), 0);
  EXPECT_EQ(t.eos_id(), 1);
  EXPECT_EQ(t.pad_id(), 2);
  EXPECT_EQ(t.token_to_id("!"), 3);
  EXPECT_EQ(t.token_to_id("<｜User｜>"), t.vocab_size() - 2);
  EXPECT_EQ(t.token_to_id("<｜Assistant｜>"), t.vocab_size() - 1);
  for (std::int32_t id = 0; id < t.vocab_size(); ++id) EXPECT_TRUE(t.has(id));
  EXPECT_EQ(t.decode(t.encode(text)), text);
  EXPECT_LT(t.encode(text).size(), text.size() / 2);
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const std::string any = testing::random_text(seed, 100);
    EXPECT_EQ(t.decode(t.encode(any)), any);
  }
  EXPECT_EQ(ChatFormat::of(t).name(), "v3, no tools");
  EXPECT_EQ(t.fingerprint(), Tokenizer(spec).fingerprint());
}

TEST(BpeTrainTest, AskingForMoreThanTheTextHasGivesLess) {
  const std::string text = "ab ab ab";
  const std::string_view documents[] = {text};
  ThreadPool pool(1);
  const Tokenizer t(train_bpe(documents, {.vocab_size = 5000}, pool));
  EXPECT_EQ(t.vocab_size(), 261 + 2);  // "ab", " ab"
}

TEST(BpeTrainTest, SpecialTokensInTheTextAreNotLearnt) {
  std::string text;
  for (int i = 0; i < 50; ++i) text += "<｜end▁of▁sentence｜>";
  const std::string_view documents[] = {text};
  ThreadPool pool(1);
  EXPECT_THROW(train_bpe(documents, {.vocab_size = 300}, pool), Error);  // nothing else is there
}

TEST(BpeTrainTest, RefusesNothingAndTooFewTokens) {
  ThreadPool pool(1);
  EXPECT_THROW(train_bpe({}, {.vocab_size = 300}, pool), Error);
  const std::string_view documents[] = {"text"};
  EXPECT_THROW(train_bpe(documents, {.vocab_size = 260}, pool), Error);
  EXPECT_EQ(Tokenizer(train_bpe(documents, {.vocab_size = 261}, pool)).vocab_size(), 261);
}

}  // namespace
}  // namespace cachalot::text
