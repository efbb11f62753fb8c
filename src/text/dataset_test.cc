#include "text/dataset.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "base/error.h"
#include "testing/error_of.h"
#include "testing/fixtures.h"
#include "text/testing.h"

namespace cachalot::text {
namespace {

using cachalot::testing::error_of;

using cachalot::testing::TempDir;

// Ids 0, 1, 2, ...: a sample shows where it was taken from.
std::filesystem::path count_up(const TempDir& dir, int tokens, int vocab) {
  const auto path = dir.path() / "count.tokens";
  TokenFileWriter writer(path, vocab, /*tokenizer_fingerprint=*/7);
  std::vector<std::int32_t> ids(tokens);
  std::iota(ids.begin(), ids.end(), 0);
  writer.append(std::span(ids).first(tokens / 3));
  writer.append(std::span(ids).subspan(tokens / 3));
  writer.count_document(123);
  writer.commit();
  return path;
}

TEST(TokenFileTest, WritesAndReadsBothWidths) {
  for (const int vocab : {1000, 65536, 65537, 200000}) {
    const TempDir dir;
    const TokenFile file(count_up(dir, 1000, vocab));
    EXPECT_EQ(file.info().tokens, 1000u);
    EXPECT_EQ(file.info().documents, 1u);
    EXPECT_EQ(file.info().text_bytes, 123u);
    EXPECT_EQ(file.info().tokenizer, 7u);
    std::vector<std::int32_t> got(7);
    file.read(993, got);
    for (int i = 0; i < 7; ++i) EXPECT_EQ(got[i], 993 + i);
    file.verify();
    error_of(Code::kUsage, [&] { file.read(994, got); });
    error_of(Code::kUsage, [&] { file.read(~std::uint64_t{0}, got); });
    const auto size = std::filesystem::file_size(dir.path() / "count.tokens");
    EXPECT_EQ(size, 128u + 1000u * (vocab <= 65536 ? 2 : 4));
  }
}

TEST(TokenFileTest, RefusesAnIdPastTheVocabulary) {
  const TempDir dir;
  error_of(Code::kUsage, [&] { count_up(dir, 11, 10); });
  EXPECT_TRUE(std::filesystem::is_empty(dir.path())) << "a failed write left something behind";
}

TEST(TokenFileTest, EveryCutAndEveryChangedFrameByteIsNoticed) {
  const TempDir dir;
  const std::string whole = testing::read_all(count_up(dir, 40, 100));
  const auto path = dir.path() / "bad.tokens";
  for (std::size_t size = 0; size < whole.size(); ++size) {
    testing::write_all(path, whole.substr(0, size));
    error_of(Code::kFormat, [&] { TokenFile file(path); });
  }
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string changed = whole;
    changed[at] ^= 0x40;
    testing::write_all(path, changed);
    error_of(Code::kFormat, [&] { TokenFile(path).verify(); });
  }
  testing::write_all(path, whole + "x");
  error_of(Code::kFormat, [&] { TokenFile file(path); });
}

TEST(TokenFileTest, AnIdPastTheVocabularyIsMetWhenRead) {
  const TempDir dir;
  const auto path = count_up(dir, 40, 100);
  std::string bytes = testing::read_all(path);
  bytes[64 + 2 * 5] = 100;
  testing::write_all(path, bytes);
  const TokenFile file(path);
  std::vector<std::int32_t> got(10);
  const std::string text = error_of(Code::kFormat, [&] { file.read(0, got); });
  EXPECT_NE(text.find("id 100 at position 5"), std::string::npos) << text;
}

TEST(PermuteIndexTest, IsAPermutationThatDependsOnSeedAndStream) {
  for (const std::uint64_t n : {1, 2, 3, 5, 16, 17, 64, 65, 1000, 4097}) {
    std::set<std::uint64_t> seen;
    for (std::uint64_t i = 0; i < n; ++i) seen.insert(permute_index(i, n, 1, 2));
    EXPECT_EQ(seen.size(), n);
    EXPECT_LT(*seen.rbegin(), n);
  }
  int same_seed = 0, same_stream = 0, in_place = 0;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const auto base = permute_index(i, 1000, 1, 2);
    same_seed += base == permute_index(i, 1000, 3, 2);
    same_stream += base == permute_index(i, 1000, 1, 3);
    in_place += base == i;
  }
  // One in a thousand agrees by chance; 20 of 1000 would be a marvel.
  EXPECT_LT(same_seed, 20);
  EXPECT_LT(same_stream, 20);
  EXPECT_LT(in_place, 20);
}

TEST(DatasetTest, InOrderWindowsOverlapByTheirTargets) {
  const TempDir dir;
  const auto path = count_up(dir, 101, 200);
  for (const int ahead : {1, 2}) {
    const Dataset data(path, {.seq_len = 10, .ahead = ahead, .shuffle = false});
    EXPECT_EQ(data.windows(), ahead == 1 ? 10 : 9);
    std::vector<std::int32_t> out(data.sample_tokens());
    for (std::int64_t i = 0; i < 3 * data.windows(); ++i) {
      data.sample(i, out);
      for (int t = 0; t < 10 + ahead; ++t) {
        ASSERT_EQ(out[t], (i % data.windows()) * 10 + t);
      }
    }
  }
}

TEST(DatasetTest, AnEpochMeetsEachWindowOnceAndTheNextInAnotherOrder) {
  const TempDir dir;
  const Dataset data(count_up(dir, 1009, 2000), /*seq_len=*/10, /*seed=*/5);
  EXPECT_EQ(data.windows(), 99);  // one is given up for the phase
  std::vector<std::vector<std::uint64_t>> epochs(3);
  for (std::int64_t i = 0; i < 3 * data.windows(); ++i) {
    std::vector<std::int32_t> out(data.sample_tokens());
    data.sample(i, out);
    for (int t = 1; t < 11; ++t) ASSERT_EQ(out[t], out[0] + t);
    ASSERT_EQ(data.position(i), static_cast<std::uint64_t>(out[0]));
    epochs[i / data.windows()].push_back(out[0]);
  }
  for (auto& epoch : epochs) {
    const std::set<std::uint64_t> starts(epoch.begin(), epoch.end());
    ASSERT_EQ(starts.size(), 99u);
    for (const auto start : starts) ASSERT_EQ(start % 10, *starts.begin() % 10);
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_NE(epochs[1], epochs[2]);
}

TEST(DatasetTest, TheSameNumberGivesTheSameSample) {
  const TempDir dir;
  const auto path = count_up(dir, 500, 600);
  const Dataset a(path, 7, 11), b(path, 7, 11), c(path, 7, 12);
  int same = 0;
  for (std::int64_t i = 1000; i < 1100; ++i) {
    EXPECT_EQ(a.position(i), b.position(i));
    same += a.position(i) == c.position(i);
  }
  EXPECT_LT(same, 20);
}

TEST(DatasetTest, OneWindowIsEnoughAndLessIsAnError) {
  const TempDir dir;
  const auto path = count_up(dir, 12, 100);
  EXPECT_EQ(Dataset(path, {.seq_len = 10, .ahead = 2}).windows(), 1);
  error_of(Code::kConfig, [&] { Dataset(path, {.seq_len = 11, .ahead = 2}); });
  error_of(Code::kConfig, [&] { Dataset(path, {.seq_len = 0}); });
  const Dataset data(path, 10, 1);
  std::vector<std::int32_t> wrong(10);
  error_of(Code::kUsage, [&] { data.sample(0, wrong); });
}

}  // namespace
}  // namespace cachalot::text
