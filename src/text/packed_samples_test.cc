#include "text/packed_samples.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "testing/error_of.h"
#include "testing/fixtures.h"

namespace cachalot::text {
namespace {

using cachalot::testing::error_of;

using cachalot::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Runs = std::vector<SampleRun>;

// A token file of ids 0, 1, 2, ... and samples over it: a token shows where it was taken from.
struct Files {
  explicit Files(const std::vector<Runs>& samples) {
    for (const Runs& runs : samples) table.add(runs);
    std::vector<std::int32_t> ids(table.tokens());
    std::iota(ids.begin(), ids.end(), 0);
    TokenFileWriter writer(tokens(), static_cast<int>(ids.size()) + 1, /*tokenizer_fingerprint=*/7);
    writer.append(ids);
    writer.commit();
    table.write(path(), TokenFile(tokens()).ids_hash());
  }
  std::filesystem::path tokens() const { return dir.path() / "train.tokens"; }
  std::filesystem::path path() const { return dir.path() / "train.samples"; }
  PackedSamples packed(const PackedOptions& options) const { return {tokens(), path(), options}; }

  TempDir dir;
  SampleTable table;
};

// Samples of so many rows, of which all is learnt.
std::vector<Runs> of_rows(const std::vector<std::uint32_t>& rows) {
  std::vector<Runs> samples;
  for (const std::uint32_t n : rows) samples.push_back({{1, n}});
  return samples;
}

std::vector<Runs> random_samples(int count, std::uint64_t seed) {
  const Rng rng(seed);
  std::vector<Runs> samples;
  std::uint64_t draw = 0;
  for (int i = 0; i < count; ++i) {
    Runs runs;
    const auto pieces = rng.below(draw++, 3);
    for (std::uint64_t k = 0; k <= pieces; ++k) {
      const auto read = static_cast<std::uint32_t>(rng.below(draw++, 12));
      const auto learnt = static_cast<std::uint32_t>(rng.below(draw++, 6));
      runs.push_back({read + (learnt == 0), learnt});
    }
    if (runs.size() == 1 && runs[0].read + runs[0].learnt == 1) runs.push_back({1, 0});
    samples.push_back(runs);
  }
  return samples;
}

std::vector<std::uint8_t> flags_of(const Runs& runs) {
  std::vector<std::uint8_t> flags;
  for (const SampleRun& run : runs) {
    flags.insert(flags.end(), run.read, 0);
    flags.insert(flags.end(), run.learnt, 1);
  }
  return flags;
}

SampleTokens window_of(const PackedSamples& data, std::int64_t index) {
  SampleTokens out;
  data.append(index, out);
  return out;
}

// The samples of a window, by their numbers in the file.
std::vector<int> members(const Files& files, const PackedSamples& data, std::int64_t index) {
  const SampleTokens window = window_of(data, index);
  std::vector<int> numbers;
  std::size_t at = 0;
  for (const std::int32_t length : window.lengths) {
    for (int i = 0; i < files.table.samples(); ++i) {
      if (files.table.begin(i) == static_cast<std::uint64_t>(window.tokens[at])) {
        numbers.push_back(i);
      }
    }
    at += static_cast<std::size_t>(length);
  }
  EXPECT_EQ(at, window.tokens.size());
  EXPECT_EQ(numbers.size(), window.lengths.size());
  return numbers;
}

TEST(PackedSamplesTest, ASampleGoesIntoTheFullestWindowThatItFits) {
  // 3 fits the room of 4 beside 6 and that of 3 beside 7: the latter is full with it, and 4 has a
  // place. 5 fits none; 2 fits only beside it.
  const Files files(of_rows({6, 7, 3, 4, 5, 2}));
  const PackedSamples data = files.packed({.seq_len = 10, .shuffle = false});
  ASSERT_EQ(data.windows(), 3);
  EXPECT_THAT(members(files, data, 0), ElementsAre(0, 3));
  EXPECT_THAT(members(files, data, 1), ElementsAre(1, 2));
  EXPECT_THAT(members(files, data, 2), ElementsAre(4, 5));
  EXPECT_EQ(data.samples(), 6);
  EXPECT_EQ(data.rows(), 27);
  EXPECT_EQ(data.cut(), 0);
  EXPECT_EQ(data.left_out(), 0);
}

TEST(PackedSamplesTest, OfMoreThanSixtyFourOpenWindowsTheFullestIsClosed) {
  // Only the last fits beside another in a window of 100, best beside the first.
  for (const int between : {63, 64}) {
    std::vector<std::uint32_t> rows(static_cast<std::size_t>(between), 51);
    rows.insert(rows.begin(), 60);
    rows.push_back(40);
    const Files files(of_rows(rows));
    const PackedSamples data = files.packed({.seq_len = 100, .shuffle = false});
    ASSERT_EQ(data.windows(), between + 1);
    if (between == 63) {
      EXPECT_THAT(members(files, data, 0), ElementsAre(0, between + 1));
    } else {
      EXPECT_THAT(members(files, data, 0), ElementsAre(0));
      EXPECT_THAT(members(files, data, 1), ElementsAre(1, between + 1));
    }
  }
}

TEST(PackedSamplesTest, NotShuffledWindowsFollowTheirFirstSamplesInEveryEpoch) {
  const Files files(random_samples(300, 1));
  const PackedSamples data = files.packed({.seq_len = 40, .shuffle = false});
  std::int32_t last = -1;
  for (std::int64_t i = 0; i < data.windows(); ++i) {
    const SampleTokens window = window_of(data, i);
    EXPECT_GT(window.tokens[0], last) << i;
    last = window.tokens[0];
    EXPECT_EQ(window.tokens, window_of(data, i + 3 * data.windows()).tokens);
  }
}

// What one epoch must be, by the definition: each sample that has a learnt token among those that
// can be predicted, once, its first seq_len + 1 tokens.
void expect_an_epoch(const Files& files, const std::vector<Runs>& samples,
                     const PackedSamples& data, std::int64_t epoch, std::int64_t seq_len) {
  std::map<std::int32_t, std::vector<std::uint8_t>> want;  // by first token: flags
  std::int64_t cut = 0, rows = 0;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    std::vector<std::uint8_t> flags = flags_of(samples[i]);
    const bool longer = static_cast<std::int64_t>(flags.size()) > seq_len + 1;
    if (longer) flags.resize(static_cast<std::size_t>(seq_len) + 1);
    if (std::count(flags.begin() + 1, flags.end(), 1) == 0) continue;
    cut += longer;
    rows += static_cast<std::int64_t>(flags.size()) - 1;
    want[static_cast<std::int32_t>(files.table.begin(static_cast<std::int64_t>(i)))] = flags;
  }
  EXPECT_EQ(data.samples(), static_cast<std::int64_t>(want.size()));
  EXPECT_EQ(data.left_out(), static_cast<std::int64_t>(samples.size() - want.size()));
  EXPECT_EQ(data.cut(), cut);
  EXPECT_EQ(data.rows(), rows);
  for (std::int64_t i = 0; i < data.windows(); ++i) {
    const SampleTokens window = window_of(data, epoch * data.windows() + i);
    ASSERT_FALSE(window.lengths.empty());
    ASSERT_EQ(window.tokens.size(), window.learnt.size());
    ASSERT_LE(window.tokens.size(), static_cast<std::size_t>(seq_len) + window.lengths.size());
    std::size_t at = 0;
    for (const std::int32_t length : window.lengths) {
      const auto found = want.find(window.tokens[at]);
      ASSERT_NE(found, want.end()) << "a second time, or never to be seen: " << window.tokens[at];
      const auto flags = window.learnt.begin() + static_cast<std::ptrdiff_t>(at);
      ASSERT_EQ(std::vector<std::uint8_t>(flags, flags + length), found->second);
      for (std::int32_t t = 0; t < length; ++t) {
        ASSERT_EQ(window.tokens[at + static_cast<std::size_t>(t)], found->first + t);
      }
      want.erase(found);
      at += static_cast<std::size_t>(length);
    }
    ASSERT_EQ(at, window.tokens.size());
  }
  EXPECT_TRUE(want.empty()) << want.size() << " samples were not met";
}

TEST(PackedSamplesTest, AnEpochMeetsEachSampleOnceWholeOrCut) {
  const auto samples = random_samples(500, 2);
  const Files files(samples);
  for (const bool shuffle : {false, true}) {
    for (const std::int64_t seq_len : {1, 7, 20, 48, 1000, 1 << 20}) {
      const PackedSamples data = files.packed({.seq_len = seq_len, .seed = 3, .shuffle = shuffle});
      for (const std::int64_t epoch : {0, 1, 5}) {
        SCOPED_TRACE(cat("seq_len ", seq_len, ", epoch ", epoch, ", shuffle ", shuffle));
        expect_an_epoch(files, samples, data, epoch, seq_len);
      }
    }
  }
}

TEST(PackedSamplesTest, TheSeedDrawsPackingAndOrder) {
  const Files files(random_samples(500, 4));
  const PackedSamples a = files.packed({.seq_len = 50, .seed = 11});
  const PackedSamples b = files.packed({.seq_len = 50, .seed = 11});
  const PackedSamples c = files.packed({.seq_len = 50, .seed = 12});
  ASSERT_EQ(a.windows(), b.windows());
  ASSERT_GE(a.windows(), 100);
  int another_seed = 0, another_epoch = 0;
  for (std::int64_t i = 0; i < a.windows(); ++i) {
    const SampleTokens window = window_of(a, i);
    EXPECT_EQ(window.tokens, window_of(b, i).tokens);
    EXPECT_EQ(window.learnt, window_of(b, i).learnt);
    EXPECT_EQ(window.lengths, window_of(b, i).lengths);
    another_seed += window.tokens == window_of(c, i).tokens;
    another_epoch += window.tokens == window_of(a, i + a.windows()).tokens;
  }
  // One window of a hundred agrees by chance in another epoch, fewer with another seed.
  EXPECT_LT(another_seed, 10);
  EXPECT_LT(another_epoch, 10);
}

TEST(PackedSamplesTest, ShortSamplesFillTheWindows) {
  // A window is opened only where every open one has less room than the sample needs. With samples
  // of at most a twentieth of a window, all but the last are more than 95 % full.
  constexpr std::int64_t kSeqLen = 2000;
  const Rng rng(5);
  std::vector<std::uint32_t> rows;
  for (std::uint64_t i = 0; i < 4000; ++i) {
    rows.push_back(1 + static_cast<std::uint32_t>(rng.below(i, kSeqLen / 20)));
  }
  const Files files(of_rows(rows));
  for (const bool shuffle : {false, true}) {
    const PackedSamples data = files.packed({.seq_len = kSeqLen, .seed = 1, .shuffle = shuffle});
    int less = 0;
    for (std::int64_t i = 0; i < data.windows(); ++i) {
      const SampleTokens window = window_of(data, i);
      less += (window.tokens.size() - window.lengths.size()) * 100 <= kSeqLen * 95;
    }
    EXPECT_LE(less, 1);
    EXPECT_GE(data.rows() * 100, (data.windows() - 1) * kSeqLen * 95);
  }
}

TEST(PackedSamplesTest, WhatHasNothingToLearnIsLeftOut) {
  const std::vector<Runs> samples = {
      {{5, 1}},          // 6 tokens, the last learnt
      {{0, 1}, {3, 0}},  // only the first, which nothing predicts
      {{4, 0}},          // nothing
      {{0, 2}},          // the second
      {{3, 1}, {9, 2}},  // the fourth, and more past the cut
  };
  const Files files(samples);
  const PackedSamples longer = files.packed({.seq_len = 5, .shuffle = false});
  EXPECT_EQ(longer.samples(), 3);
  EXPECT_EQ(longer.left_out(), 2);
  EXPECT_EQ(longer.cut(), 1);
  EXPECT_EQ(longer.rows(), 5 + 1 + 5);
  // One row less, and the first sample's learnt token is cut off.
  const PackedSamples shorter = files.packed({.seq_len = 4, .shuffle = false});
  EXPECT_EQ(shorter.samples(), 2);
  EXPECT_EQ(shorter.left_out(), 3);
  EXPECT_EQ(shorter.cut(), 1);
  EXPECT_EQ(shorter.rows(), 1 + 4);
}

TEST(PackedSamplesTest, LongSamplesHaveWindowsOfTheirOwn) {
  const Files files(of_rows({30, 10, 11, 9}));
  const PackedSamples data = files.packed({.seq_len = 10, .shuffle = false});
  ASSERT_EQ(data.windows(), 4);
  EXPECT_EQ(data.cut(), 2);
  for (int i = 0; i < 4; ++i) {
    EXPECT_THAT(members(files, data, i), ElementsAre(i));
    EXPECT_THAT(window_of(data, i).lengths, ElementsAre(i == 3 ? 10 : 11));
  }
}

TEST(PackedSamplesTest, ASingleSampleIsEveryWindow) {
  const Files files({Runs{{2, 1}, {1, 1}}});
  const PackedSamples data = files.packed({.seq_len = 8, .seed = 9});
  ASSERT_EQ(data.windows(), 1);
  SampleTokens out;
  for (const std::int64_t index : {std::int64_t{0}, std::int64_t{1}, std::int64_t{1} << 40}) {
    out.clear();
    data.append(index, out);
    EXPECT_THAT(out.tokens, ElementsAre(0, 1, 2, 3, 4));
    EXPECT_THAT(out.learnt, ElementsAre(0, 0, 1, 0, 1));
    EXPECT_THAT(out.lengths, ElementsAre(5));
  }
}

TEST(PackedSamplesTest, AWindowIsAddedBehindTheOthers) {
  const Files files(of_rows({3, 2, 4}));
  const PackedSamples data = files.packed({.seq_len = 5, .shuffle = false});
  SampleTokens out;
  data.append(1, out);
  data.append(0, out);
  EXPECT_THAT(out.lengths, ElementsAre(5, 4, 3));
  EXPECT_THAT(out.tokens, ElementsAre(7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 6));
  EXPECT_THAT(out.learnt, ElementsAre(0, 1, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1));
}

TEST(PackedSamplesTest, SaysWhatCannotBe) {
  const Files files(of_rows({3, 2}));
  error_of(Code::kConfig, [&] { files.packed({.seq_len = 0}); });
  error_of(Code::kConfig, [&] { files.packed({.seq_len = (std::int64_t{1} << 30) + 1}); });
  const PackedSamples data = files.packed({.seq_len = 5});
  error_of(Code::kUsage, [&] { window_of(data, -1); });

  const Files nothing({Runs{{4, 0}}, Runs{{6, 1}}});
  EXPECT_THAT(error_of(Code::kConfig, [&] { nothing.packed({.seq_len = 5}); }),
              HasSubstr("has 2 samples, but none has anything to learn in its first 5 + 1 tokens"));
  error_of(Code::kFormat, [&] { PackedSamples(nothing.tokens(), files.path(), {.seq_len = 5}); });
}

}  // namespace
}  // namespace cachalot::text
