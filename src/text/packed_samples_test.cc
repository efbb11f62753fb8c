#include "text/packed_samples.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/error.h"
#include "base/rng.h"
#include "testing/fixtures.h"

namespace cachalot::text {
namespace {

class Packed : public ::testing::Test {
 protected:
  // The first token of each sample is its number, the others say how far they are from it.
  void write(const std::vector<std::vector<SampleRun>>& samples) {
    SampleTable table;
    TokenFileWriter writer(tokens_, 1 << 20, 5);
    for (std::size_t s = 0; s < samples.size(); ++s) {
      table.add(samples[s]);
      std::vector<std::int32_t> ids = {static_cast<std::int32_t>(s)};
      for (std::uint64_t i = 1; i < table.tokens(static_cast<std::int64_t>(s)); ++i) {
        ids.push_back(static_cast<std::int32_t>(1000 + i));
      }
      writer.append(ids);
      writer.count_document(0);
    }
    writer.commit();
    table.write(samples_, TokenFile(tokens_).ids_hash());
  }
  // Samples of 2 to `most` tokens, the last of each learnt.
  void write_random(int count, std::uint64_t most) {
    const Rng rng(4);
    std::vector<std::vector<SampleRun>> samples;
    for (int i = 0; i < count; ++i) {
      const std::uint64_t tokens = 2 + rng.below(static_cast<std::uint64_t>(i), most - 1);
      samples.push_back({{static_cast<std::uint32_t>(tokens - 1), 1}});
    }
    write(samples);
  }
  PackedSamples open(std::int64_t seq_len, std::uint64_t seed = 1, bool shuffle = true) const {
    return {tokens_, samples_, {.seq_len = seq_len, .seed = seed, .shuffle = shuffle}};
  }
  // Sample numbers of each window of an epoch; checks what every window has to be.
  static std::vector<std::vector<int>> epoch(const PackedSamples& p, std::int64_t number,
                                             std::int64_t seq_len) {
    std::vector<std::vector<int>> windows;
    std::int64_t all = 0;
    for (std::int64_t w = 0; w < p.windows(); ++w) {
      SampleTokens t;
      p.append(number * p.windows() + w, t);
      EXPECT_EQ(t.tokens.size(), t.learnt.size());
      std::size_t begin = 0;
      std::int64_t rows = 0;
      windows.emplace_back();
      for (const std::int32_t length : t.lengths) {
        const int sample = t.tokens[begin];
        const auto whole = static_cast<std::int64_t>(p.table().tokens(sample));
        EXPECT_EQ(length, std::min(whole, seq_len + 1));
        for (int i = 1; i < length; ++i) EXPECT_EQ(t.tokens[begin + i], 1000 + i);
        windows.back().push_back(sample);
        rows += length - 1;
        begin += static_cast<std::size_t>(length);
      }
      EXPECT_EQ(begin, t.tokens.size());
      EXPECT_GE(rows, 1);
      EXPECT_LE(rows, seq_len);
      all += rows;
    }
    EXPECT_EQ(all, p.rows());
    return windows;
  }
  static std::multiset<int> joined(const std::vector<std::vector<int>>& windows) {
    std::multiset<int> all;
    for (const auto& window : windows) all.insert(window.begin(), window.end());
    return all;
  }

  testing::TempDir dir_;
  std::filesystem::path tokens_ = dir_.path() / "t.tokens", samples_ = dir_.path() / "t.samples";
};

TEST_F(Packed, EveryEpochHasEverySampleOnce) {
  write_random(500, 90);
  const PackedSamples p = open(64);
  EXPECT_EQ(p.samples(), 500 - p.left_out());
  const auto first = epoch(p, 0, 64), second = epoch(p, 1, 64), later = epoch(p, 7, 64);
  const std::multiset<int> all = joined(first);
  EXPECT_EQ(std::set<int>(all.begin(), all.end()).size(), all.size());
  EXPECT_EQ(std::ssize(all), p.samples());
  EXPECT_EQ(joined(second), all);
  EXPECT_EQ(joined(later), all);
  EXPECT_NE(first, second);
  // The windows stay what they are; their order is drawn anew.
  EXPECT_EQ(std::multiset(first.begin(), first.end()), std::multiset(second.begin(), second.end()));
}

TEST_F(Packed, TheSeedDrawsTheWindows) {
  write_random(300, 40);
  EXPECT_EQ(epoch(open(64, 3), 0, 64), epoch(open(64, 3), 0, 64));
  EXPECT_NE(joined({epoch(open(64, 3), 0, 64)[0]}), joined({epoch(open(64, 4), 0, 64)[0]}));
  const PackedSamples plain = open(64, 3, false);
  EXPECT_EQ(epoch(plain, 0, 64), epoch(plain, 5, 64));
  EXPECT_EQ(epoch(plain, 0, 64), epoch(open(64, 9, false), 0, 64));
}

// Short samples find a place in nearly every window: at least one row in twenty of a window's 128
// is left over by fewer than half of them.
TEST_F(Packed, WindowsAreNearlyFull) {
  write_random(4000, 60);
  const PackedSamples p = open(128);
  EXPECT_GE(static_cast<double>(p.rows()), 0.95 * 128 * static_cast<double>(p.windows()));
}

TEST_F(Packed, WhatIsLongerIsCutAndWhatThenTeachesNothingLeftOut) {
  write({{{4, 4}},          // whole: 7 rows
         {{4, 30}},         // cut, with something to learn
         {{12, 5}},         // its answer lies behind the cut
         {{2, 1}, {9, 9}},  // cut behind the first answer
         {{0, 1}, {8, 0}},  // the first token is predicted by nothing
         {{8, 1}},          // its answer is the last token
         {{9, 1}}});        // and here the first one behind the cut
  const PackedSamples p = open(8);
  EXPECT_EQ(p.samples(), 4);
  EXPECT_EQ(p.cut(), 2);
  EXPECT_EQ(p.left_out(), 3);
  EXPECT_EQ(p.rows(), 7 + 8 + 8 + 8);
  EXPECT_EQ(p.windows(), 4);
  EXPECT_EQ(joined(epoch(p, 0, 8)), (std::multiset<int>{0, 1, 3, 5}));
  std::map<int, std::vector<std::uint8_t>> learnt;
  for (std::int64_t w = 0; w < p.windows(); ++w) {
    SampleTokens t;
    p.append(w, t);
    learnt[t.tokens[0]] = t.learnt;
  }
  EXPECT_EQ(learnt[0], (std::vector<std::uint8_t>{0, 0, 0, 0, 1, 1, 1, 1}));
  EXPECT_EQ(learnt[1], (std::vector<std::uint8_t>{0, 0, 0, 0, 1, 1, 1, 1, 1}));
  EXPECT_EQ(learnt[3], (std::vector<std::uint8_t>{0, 0, 1, 0, 0, 0, 0, 0, 0}));
}

TEST_F(Packed, WindowsAreAddedBehindEachOther) {
  write({{{3, 1}}, {{5, 1}}});
  const PackedSamples p = open(5, 1, false);
  SampleTokens t;
  p.append(0, t);
  p.append(1, t);
  EXPECT_EQ(t.lengths.size(), 2U);
  EXPECT_EQ(t.tokens.size(), 10U);
  t.clear();
  EXPECT_TRUE(t.tokens.empty() && t.learnt.empty() && t.lengths.empty());
  EXPECT_THROW(p.append(-1, t), Error);
}

TEST_F(Packed, NothingToLearnIsRefused) {
  write({{{5, 0}}, {{0, 1}, {3, 0}}});
  EXPECT_THROW(open(8), Error);
  EXPECT_THROW(open(0), Error);
}

}  // namespace
}  // namespace cachalot::text
