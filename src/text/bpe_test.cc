#include "text/bpe.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "base/rng.h"

namespace cachalot::text {
namespace {

using Ids = std::vector<std::int32_t>;

std::array<std::int32_t, 256> identity() {
  std::array<std::int32_t, 256> tokens{};
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

// The definition: join the leftmost pair of the lowest rank until there is none.
Ids by_definition(const std::vector<Merge>& merges, std::string_view piece) {
  std::map<std::pair<int, int>, std::size_t> ranks;
  for (std::size_t i = 0; i < merges.size(); ++i) ranks[{merges[i].left, merges[i].right}] = i;
  Ids ids;
  for (const char c : piece) ids.push_back(static_cast<unsigned char>(c));
  for (;;) {
    std::size_t best = merges.size(), where = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = ranks.find({ids[i], ids[i + 1]});
      if (found != ranks.end() && found->second < best) best = found->second, where = i;
    }
    if (best == merges.size()) return ids;
    ids[where] = merges[best].joined;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(where) + 1);
  }
}

// Random merges over the letters a, b, c and what was joined before.
std::vector<Merge> random_merges(std::uint64_t seed, int n) {
  const Rng rng(seed);
  std::vector<Merge> merges;
  std::map<std::pair<int, int>, bool> seen;
  for (int i = 0; i < n; ++i) {
    const auto pick = [&](int word) {
      const auto k = static_cast<int>(rng.block(i)[word] % (3 + merges.size()));
      return k < 3 ? 'a' + k : 256 + k - 3;
    };
    const Merge merge{pick(0), pick(1), static_cast<std::int32_t>(256 + merges.size())};
    if (!seen[{merge.left, merge.right}]) merges.push_back(merge);
    seen[{merge.left, merge.right}] = true;
  }
  return merges;
}

TEST(BpeTest, ShortAndLongPiecesFollowTheDefinition) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const auto merges = random_merges(seed, 30);
    const Bpe bpe(identity(), merges);
    const Rng rng(seed, 1);
    // Around the length where the heap takes over (96), and well past it.
    for (const int length : {0, 1, 2, 3, 10, 95, 96, 97, 98, 300}) {
      std::string piece;
      for (int i = 0; i < length; ++i) {
        piece += static_cast<char>('a' + rng.below(length * 1000 + i, seed % 3 == 0 ? 1 : 4));
      }
      Ids got;
      bpe.encode(piece, got);
      ASSERT_EQ(got, by_definition(merges, piece)) << "seed " << seed << ", length " << length;
    }
  }
}

TEST(BpeTest, AMegabyteOfOneLetterTakesNoSquareTime) {
  const std::vector<Merge> merges = {{'a', 'a', 256}, {256, 256, 257}};
  const Bpe bpe(identity(), merges);
  Ids got;
  bpe.encode(std::string((1 << 20) + 1, 'a'), got);
  EXPECT_EQ(got.size(), (std::size_t{1} << 18) + 1);
  EXPECT_EQ(got.front(), 257);
  EXPECT_EQ(got.back(), 'a');
}

TEST(BpeCacheTest, RemembersAndNeverMixesUp) {
  BpeCache cache;
  int encoded = 0;
  const auto encode = [&](std::string_view piece, Ids& out) {
    ++encoded;
    for (const char c : piece) out.push_back(c);
  };
  const Rng rng(3);
  for (int i = 0; i < 200000; ++i) {
    const std::string piece = std::to_string(rng.below(i, 100000));
    Ids got;
    cache.get(piece, got, encode);
    ASSERT_EQ(std::string(got.begin(), got.end()), piece);
  }
  EXPECT_LT(encoded, 200000);
  encoded = 0;
  const std::string too_long(31, 'x'), too_many(9, 'y');
  for (int i = 0; i < 2; ++i) {
    Ids got;
    cache.get(too_long, got, encode);
    cache.get(too_many, got, encode);
    EXPECT_EQ(got.size(), 40u);
  }
  EXPECT_EQ(encoded, 4);
}

}  // namespace
}  // namespace cachalot::text
