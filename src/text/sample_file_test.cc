#include "text/sample_file.h"

#include <gtest/gtest.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "testing/fixtures.h"

namespace cachalot::text {
namespace {

const std::vector<std::vector<SampleRun>> kSamples = {
    {{3, 2}}, {{0, 2}}, {{5, 0}, {1, 4}}, {{1, 1}, {2, 2}, {3, 0}}};

SampleTable table() {
  SampleTable t;
  for (const auto& runs : kSamples) t.add(runs);
  t.count_learnt_bytes(40);
  return t;
}

Code code_of(const std::function<void()>& what) {
  try {
    what();
  } catch (const Error& e) {
    return e.code();
  }
  return Code::kInternal;
}

class SampleFile : public ::testing::Test {
 protected:
  SampleFile() { table().write(path_, 77); }
  std::string bytes() const { return read_file(path_, 1 << 20); }
  static SampleTable parse(const std::string& text, std::uint64_t tokens = 26,
                           std::uint64_t hash = 77) {
    return SampleTable::parse(std::as_bytes(std::span(text)), "t.samples", tokens, hash);
  }

  testing::TempDir dir_;
  std::filesystem::path path_ = dir_.path() / "t.samples";
};

TEST_F(SampleFile, GivesBackWhatWasWritten) {
  const SampleTable t = SampleTable::read(path_, 26, 77);
  ASSERT_EQ(t.samples(), 4);
  EXPECT_EQ(t.tokens(), 26U);  // 5 + 2 + 10 + 9
  EXPECT_EQ(t.learnt_tokens(), 11U);
  EXPECT_EQ(t.learnt_bytes(), 40U);
  const std::uint64_t begins[] = {0, 5, 7, 17}, tokens[] = {5, 2, 10, 9};
  for (std::size_t s = 0; s < 4; ++s) {
    const auto sample = static_cast<std::int64_t>(s);
    EXPECT_EQ(t.begin(sample), begins[s]);
    EXPECT_EQ(t.tokens(sample), tokens[s]);
    const auto runs = t.runs(sample);
    EXPECT_EQ(std::vector<SampleRun>(runs.begin(), runs.end()), kSamples[s]);
  }
}

TEST_F(SampleFile, IsAsLongAsItsLayoutSays) { EXPECT_EQ(bytes().size(), 64U + 4 * 4 + 8 * 7); }

TEST_F(SampleFile, OfOtherTokensIsRefused) {
  EXPECT_EQ(code_of([&] { parse(bytes(), 25); }), Code::kFormat);
  EXPECT_EQ(code_of([&] { parse(bytes(), 26, 78); }), Code::kFormat);
  EXPECT_NO_THROW(parse(bytes(), 26, 0));  // whose they are is not asked
}

TEST_F(SampleFile, EveryDamageIsSeen) {
  const std::string whole = bytes();
  for (std::size_t i = 0; i < whole.size(); ++i) {
    for (const char bit : {'\x01', '\x80'}) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ bit);
      EXPECT_EQ(code_of([&] { parse(damaged); }), Code::kFormat) << i;
    }
  }
  for (std::size_t n = 0; n < whole.size(); ++n) {
    EXPECT_EQ(code_of([&] { parse(whole.substr(0, n)); }), Code::kFormat) << n;
  }
  EXPECT_EQ(code_of([&] { parse(whole + std::string(8, '\0')); }), Code::kFormat);
}

TEST_F(SampleFile, WhatCannotBeASampleIsRefused) {
  SampleTable t;
  const auto refused = [&](const std::vector<SampleRun>& runs) {
    return code_of([&] { t.add(runs); }) == Code::kUsage;
  };
  EXPECT_TRUE(refused({}));
  EXPECT_TRUE(refused({{1, 0}}));
  EXPECT_TRUE(refused({{0, 0}, {5, 5}}));
  EXPECT_TRUE(refused({{0xFFFFFFFF, 0xFFFFFFFF}}));
  EXPECT_EQ(t.samples(), 0);
}

}  // namespace
}  // namespace cachalot::text
