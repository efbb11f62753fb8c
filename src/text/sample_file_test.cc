#include "text/sample_file.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>
#include <limits>
#include <string>

#include "base/error.h"
#include "testing/error_of.h"
#include "testing/fixtures.h"
#include "text/testing.h"

namespace cachalot::text {
namespace {

using cachalot::testing::error_of;

using cachalot::testing::TempDir;

constexpr std::uint64_t kIdsHash = 0x0123456789ABCDEF;
constexpr std::size_t kHeadBytes = 64;
// Where the layout in the header has its fields.
constexpr std::size_t kVersionAt = 8, kSamplesAt = 16, kPiecesAt = 24, kTokensAt = 32;

// A question and an answer; a conversation of two answers; a text that is learnt from its first
// token, with something read at its end: 7 + 17 + 8 tokens, of which 4 + 8 + 5 are learnt.
SampleTable three_samples() {
  SampleTable table;
  table.add(std::vector<SampleRun>{{3, 4}});
  table.add(std::vector<SampleRun>{{5, 2}, {4, 6}});
  table.add(std::vector<SampleRun>{{0, 5}, {3, 0}});
  table.count_learnt_bytes(40);
  table.count_learnt_bytes(2);
  return table;
}
constexpr std::uint64_t kTokens = 7 + 17 + 8;

std::string bytes_of(const SampleTable& table) {
  const TempDir dir;
  table.write(dir.path() / "train.samples", kIdsHash);
  return testing::read_all(dir.path() / "train.samples");
}

SampleTable parse(const std::string& bytes, std::uint64_t tokens = kTokens,
                  std::uint64_t ids_hash = kIdsHash) {
  return SampleTable::parse(std::as_bytes(std::span(bytes)), "some.samples", tokens, ids_hash);
}

template <class T>
void put(std::string& bytes, std::size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

// The checksum of the layout in the header, so that a changed file is read further than that.
void sum(std::string& bytes) {
  const std::uint64_t body = XXH64(bytes.data() + kHeadBytes, bytes.size() - kHeadBytes, 0);
  put(bytes, kHeadBytes - 8, XXH64(bytes.data(), kHeadBytes - 8, body));
}

void expect_three_samples(const SampleTable& table) {
  ASSERT_EQ(table.samples(), 3);
  EXPECT_EQ(table.tokens(), kTokens);
  EXPECT_EQ(table.learnt_tokens(), 4u + 8 + 5);
  EXPECT_EQ(table.learnt_bytes(), 42u);
  const std::uint64_t begins[] = {0, 7, 24}, tokens[] = {7, 17, 8};
  const std::vector<SampleRun> runs[] = {{{3, 4}}, {{5, 2}, {4, 6}}, {{0, 5}, {3, 0}}};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(table.begin(i), begins[i]);
    EXPECT_EQ(table.tokens(i), tokens[i]);
    const auto got = table.runs(i);
    EXPECT_EQ(std::vector<SampleRun>(got.begin(), got.end()), runs[i]);
  }
}

TEST(SampleFileTest, WhatIsWrittenIsRead) {
  expect_three_samples(three_samples());
  const TempDir dir;
  const auto path = dir.path() / "train.samples";
  three_samples().write(path, kIdsHash);
  expect_three_samples(SampleTable::read(path, kTokens, kIdsHash));
  EXPECT_EQ(std::filesystem::file_size(path), kHeadBytes + 3 * 4 + 5 * 8);
}

TEST(SampleFileTest, NoSampleIsATableToo) {
  const SampleTable table = parse(bytes_of(SampleTable()), 0);
  EXPECT_EQ(table.samples(), 0);
  EXPECT_EQ(table.tokens(), 0u);
}

TEST(SampleFileTest, RunsOfTheLargestNumbersAreKept) {
  constexpr std::uint32_t kMost = std::numeric_limits<std::uint32_t>::max();
  SampleTable table;
  table.add(std::vector<SampleRun>{{kMost, kMost}, {kMost, 0}});
  const SampleTable read = parse(bytes_of(table), std::uint64_t{3} * kMost);
  EXPECT_EQ(read.tokens(0), std::uint64_t{3} * kMost);
  EXPECT_EQ(read.learnt_tokens(), kMost);
}

TEST(SampleFileTest, ASampleHasTwoTokensAndNoEmptyPiece) {
  SampleTable table;
  error_of(Code::kUsage, [&] { table.add({}); });
  error_of(Code::kUsage, [&] { table.add(std::vector<SampleRun>{{0, 1}}); });
  error_of(Code::kUsage, [&] { table.add(std::vector<SampleRun>{{2, 2}, {0, 0}}); });
  EXPECT_EQ(table.samples(), 0);
  EXPECT_EQ(table.tokens(), 0u);
  table.add(std::vector<SampleRun>{{1, 1}});
  EXPECT_EQ(table.tokens(0), 2u);
}

TEST(SampleFileTest, EveryCutAndEveryChangedByteIsNoticed) {
  const std::string whole = bytes_of(three_samples());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    error_of(Code::kFormat, [&] { parse(whole.substr(0, size)); });
  }
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const int bit : {0x01, 0x40, 0x80}) {
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ bit);
      error_of(Code::kFormat, [&] { parse(changed); });
    }
  }
  error_of(Code::kFormat, [&] { parse(whole + "x"); });
  error_of(Code::kFormat, [&] { parse(whole + std::string(8, '\0')); });
}

TEST(SampleFileTest, AFileOfOtherTokensSaysWhatToDo) {
  const std::string bytes = bytes_of(three_samples());
  for (const auto& other : {std::pair{kTokens + 1, kIdsHash}, {kTokens, kIdsHash + 1}}) {
    const std::string text =
        error_of(Code::kFormat, [&] { parse(bytes, other.first, other.second); });
    EXPECT_NE(text.find("some.samples is of another token file"), std::string::npos) << text;
    EXPECT_NE(text.find("Delete it: it is made again from the conversations."), std::string::npos)
        << text;
  }
  expect_three_samples(parse(bytes, /*tokens=*/0, /*ids_hash=*/0));
}

TEST(SampleFileTest, AMissingFileIsNotADamagedOne) {
  const TempDir dir;
  error_of(Code::kIo, [&] { SampleTable::read(dir.path() / "none", kTokens, kIdsHash); });
}

TEST(SampleFileTest, ANewerVersionIsNamed) {
  std::string bytes = bytes_of(three_samples());
  put<std::uint32_t>(bytes, kVersionAt, 2);
  sum(bytes);
  const std::string text = error_of(Code::kFormat, [&] { parse(bytes); });
  EXPECT_NE(text.find("has version 2, this build reads 1"), std::string::npos) << text;
}

// With right checksums. Memory for what these promise would be std::bad_alloc, not an Error; the
// last two wrap around to the size that the body has.
TEST(SampleFileTest, NumbersThatTheFileDoesNotBearOutAllocateNothing) {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
  const std::string whole = bytes_of(three_samples());
  const std::pair<std::uint64_t, std::uint64_t> promises[] = {
      {kMost, 5},
      {3, kMost},
      {kMost, kMost},
      {4, 5},
      {3, 6},
      {2, 5},
      {3, 4},
      {3 + (std::uint64_t{1} << 62), 5},
      {3, 5 + (std::uint64_t{1} << 61)},
  };
  for (const auto& [samples, pieces] : promises) {
    std::string bytes = whole;
    put(bytes, kSamplesAt, samples);
    put(bytes, kPiecesAt, pieces);
    sum(bytes);
    const std::string text = error_of(Code::kFormat, [&] { parse(bytes); });
    EXPECT_NE(text.find(cat("promises ", samples, " samples of ", pieces, " pieces")),
              std::string::npos)
        << text;
  }
}

TEST(SampleFileTest, SamplesThatDoNotCoverTheTokensAreRefused) {
  const std::string whole = bytes_of(three_samples());
  const std::size_t pieces_at = kHeadBytes + 3 * 4;
  const auto refused = [&](const char* what, auto&& change, std::uint64_t tokens = kTokens) {
    std::string bytes = whole;
    change(bytes);
    sum(bytes);
    const std::string text = error_of(Code::kFormat, [&] { parse(bytes, tokens); });
    EXPECT_NE(text.find(what), std::string::npos) << text;
  };
  using Text = std::string;
  const auto pieces = [](int a, int b, int c) {
    return [=](Text& bytes) {
      put<std::uint32_t>(bytes, kHeadBytes, a);
      put<std::uint32_t>(bytes, kHeadBytes + 4, b);
      put<std::uint32_t>(bytes, kHeadBytes + 8, c);
    };
  };
  refused("past its 5", pieces(1, 2, 3));
  refused("past its 5", pieces(1, -1, 2));
  refused("samples of 4 pieces", pieces(1, 2, 1));
  refused("sample 0 that cannot be", pieces(0, 3, 2));
  refused("has no token", [&](Text& bytes) { put<std::uint64_t>(bytes, pieces_at + 4 * 8, 0); });
  refused("more than its 32 tokens",
          [&](Text& bytes) { put<std::uint32_t>(bytes, pieces_at + 8, 6); });
  refused("pieces and 31 tokens", [&](Text& bytes) { put<std::uint32_t>(bytes, pieces_at, 2); });
  refused(
      "promises 5 and 33", [&](Text& bytes) { put<std::uint64_t>(bytes, kTokensAt, 33); }, 33);
}

}  // namespace
}  // namespace cachalot::text
