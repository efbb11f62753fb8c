#include "infer/prefix_key.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unordered_set>

#include "infer/prefix_case_test.h"

namespace cachalot::infer {
namespace {

using ::testing::HasSubstr;

const ChainSecret kSecret = [] {
  ChainSecret secret;
  for (std::size_t i = 0; i < secret.size(); ++i) secret[i] = static_cast<std::uint8_t>(mix(i));
  return secret;
}();
const PrefixIdentity kIdentity{"model", "bf16", 100};

TEST(PrefixKeyTest, SharedExactlyAsFarAsTheTokens) {
  const KeyChain chain(kIdentity, kSecret);
  std::vector<int> a = sequence(std::vector<int>{1, 2, 3, 4});
  const auto want = chain.places(a);
  ASSERT_EQ(want.size(), 4u);
  // Any one token changes the keys from its block on, and none before.
  for (std::size_t t = 0; t < a.size(); ++t) {
    std::vector<int> b = a;
    b[t] ^= 1 << (t % 31);
    const auto got = chain.places(b);
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].key == want[i].key, i < t / kBlockTokens) << "token " << t << " block " << i;
    }
  }
}

TEST(PrefixKeyTest, WholeBlocksOnly) {
  const KeyChain chain(kIdentity, kSecret);
  const auto tokens = sequence(std::vector<int>{1, 2});
  EXPECT_EQ(chain.places({}).size(), 0u);
  EXPECT_EQ(chain.places(std::span(tokens).first(63)).size(), 0u);
  EXPECT_EQ(chain.places(std::span(tokens).first(64)).size(), 1u);
  EXPECT_EQ(chain.places(std::span(tokens).first(127)).size(), 1u);
}

TEST(PrefixKeyTest, PlacesSayWhatTheyAre) {
  const KeyChain chain(kIdentity, kSecret);
  const auto tokens = sequence(std::vector<int>{7, 7, 7});  // equal blocks at different places
  const auto places = chain.places(tokens);
  std::unordered_set<BlockKey, BlockKeyHash> keys;
  BlockKey parent = chain.root();
  for (std::size_t i = 0; i < places.size(); ++i) {
    EXPECT_EQ(places[i].parent, parent);
    EXPECT_EQ(places[i].position, i);
    EXPECT_TRUE(std::equal(places[i].tokens.begin(), places[i].tokens.end(),
                           tokens.begin() + static_cast<std::ptrdiff_t>(i) * kBlockTokens));
    parent = places[i].key;
    keys.insert(parent);
  }
  EXPECT_EQ(keys.size(), 3u);
}

TEST(PrefixKeyTest, IdentitiesAndSecretsNeverMeet) {
  ChainSecret other = kSecret;
  for (auto& byte : other) byte = static_cast<std::uint8_t>(byte ^ 0x55);
  std::unordered_set<BlockKey, BlockKeyHash> roots;
  roots.insert(KeyChain({"model", "bf16", 100}, kSecret).root());
  roots.insert(KeyChain({"model2", "bf16", 100}, kSecret).root());
  roots.insert(KeyChain({"model", "fp8", 100}, kSecret).root());
  roots.insert(
      KeyChain({"modelb", "f16", 100}, kSecret).root());  // the same letters, cut elsewhere
  roots.insert(KeyChain({"model", "bf16", 101}, kSecret).root());
  roots.insert(KeyChain({"model", "bf16", 100}, other).root());
  EXPECT_EQ(roots.size(), 6u);
  EXPECT_EQ(KeyChain(kIdentity, kSecret).root(), KeyChain(kIdentity, kSecret).root());
  EXPECT_NE(random_secret(), random_secret());
}

TEST(PrefixKeyTest, FingerprintKnowsWhereItsPartsEnd) {
  const auto of = [](std::vector<std::string_view> parts) { return fingerprint(parts); };
  EXPECT_EQ(of({"a", "b"}), of({"a", "b"}));
  EXPECT_NE(of({"ab"}), of({"a", "b"}));
  EXPECT_NE(of({"a", "b"}), of({"b", "a"}));
  EXPECT_NE(of({"a", ""}), of({"a"}));
  EXPECT_EQ(of({"a"}).size(), 32u);
}

TEST(PrefixKeyTest, RefusesAnIdentityThatSaysNothing) {
  EXPECT_THAT(error_of(Code::kUsage,
                       [] {
                         KeyChain({"", "bf16", 100}, kSecret);
                       }),
              HasSubstr("names no model"));
  error_of(Code::kUsage, [] { KeyChain({"m", "", 100}, kSecret); });
  EXPECT_THAT(error_of(Code::kUsage,
                       [] {
                         KeyChain({"m", "bf16", 0}, kSecret);
                       }),
              HasSubstr("payload of 0 bytes"));
  error_of(Code::kUsage, [] { KeyChain({"m", "bf16", std::size_t{1} << 40}, kSecret); });
}

}  // namespace
}  // namespace cachalot::infer
