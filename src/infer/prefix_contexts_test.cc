#include "infer/prefix_contexts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "infer/prefix_case_test.h"
#include "infer/prefix_store.h"

namespace cachalot::infer {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Outcome = SavedContext::Outcome;

constexpr std::size_t kPayload = 5000;

class PrefixContextsTest : public ::testing::Test {
 protected:
  void open(const std::string& model = "model", std::int64_t context_bytes = 4 << 20) {
    store_.reset();
    PrefixStoreConfig config;
    config.folder = folder_.store();
    config.ram_bytes = 0;  // all from disk
    config.disk_bytes = 8 << 20;
    config.context_bytes = context_bytes;
    store_ = std::make_unique<PrefixStore>(config, PrefixIdentity{model, "bf16", kPayload},
                                           PrefixHooks{nullptr, [this] { return now_; }});
  }
  void SetUp() override { open(); }

  std::vector<int> put(std::vector<int> choices) {
    const auto tokens = sequence(choices);
    store_->insert(tokens, 0, [&](int block, auto out) { fill_payload(tokens, block, out); });
    store_->flush();
    return tokens;
  }
  std::int64_t hit(const std::vector<int>& tokens) {
    return store_
        ->lookup(tokens,
                 [&](int block, std::span<const std::byte> payload) {
                   const auto want = payload_of(tokens, block, kPayload);
                   return std::equal(want.begin(), want.end(), payload.begin(), payload.end());
                 })
        .hit_tokens;
  }
  void bury() {  // until FIFO has given up all that was written before
    for (int i = 0; i < 250; ++i) {
      std::vector<int> choices;
      for (int b = 0; b < 10; ++b) choices.push_back(++fresh_);
      put(choices);
    }
  }

  TemporaryFolder folder_;
  std::int64_t now_ = 1'000'000;
  int fresh_ = 1000;
  std::unique_ptr<PrefixStore> store_;
};

TEST_F(PrefixContextsTest, OutliveTheBoundAndRestarts) {
  const auto a = put({1, 2, 3});
  const auto b = put({4, 5});
  const auto saved = store_->save_context("a", a);
  EXPECT_EQ(saved.outcome, Outcome::kSaved) << saved.text;
  EXPECT_EQ(saved.tokens, 192);
  EXPECT_EQ(saved.bytes, 3 * 5000);
  bury();
  EXPECT_EQ(hit(a), 192);
  EXPECT_EQ(hit(b), 0);
  EXPECT_EQ(store_->counters().context_blocks, 3u);
  open();
  EXPECT_EQ(hit(a), 192);
  const auto list = store_->contexts();
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0].name, "a");
  EXPECT_EQ(list[0].tokens, 192);
  EXPECT_EQ(list[0].bytes, 15000);
  EXPECT_EQ(list[0].expires, 0);
  EXPECT_TRUE(list[0].usable);
  EXPECT_TRUE(store_->delete_context("a"));
  EXPECT_FALSE(store_->delete_context("a"));
  EXPECT_EQ(hit(a), 0);
  EXPECT_EQ(store_->counters().context_bytes, 0u);
  open();
  EXPECT_THAT(store_->contexts(), IsEmpty());
  EXPECT_THAT(store_->reports(), IsEmpty());
}

TEST_F(PrefixContextsTest, KeepTheBeginningThatIsThere) {
  auto tokens = put({1, 2});
  tokens.resize(500, 9);
  EXPECT_EQ(store_->save_context("a", tokens).tokens, 128);
  const auto nothing = store_->save_context("b", sequence(std::vector<int>{7}));
  EXPECT_EQ(nothing.outcome, Outcome::kNothing);
  EXPECT_THAT(nothing.text, HasSubstr("after its prompt has run"));
  EXPECT_EQ(store_->contexts().size(), 1u);
}

TEST_F(PrefixContextsTest, ShareTheirBeginnings) {
  const auto a = put({1, 2, 3});
  const auto b = put({1, 2, 4});
  store_->save_context("a", a);
  const auto one = store_->counters().context_bytes;
  store_->save_context("b", b);
  const auto both = store_->counters().context_bytes;
  EXPECT_LT(both - one, 2 * kPayload);  // one new block
  bury();
  EXPECT_TRUE(store_->delete_context("a"));
  EXPECT_EQ(hit(b), 192);  // its first blocks lie in a's segment, which stays
  open();
  EXPECT_EQ(hit(b), 192);
  EXPECT_TRUE(store_->delete_context("b"));
  EXPECT_EQ(store_->counters().context_bytes, 0u);
  EXPECT_EQ(hit(b), 0);
}

TEST_F(PrefixContextsTest, SavingAgainReplaces) {
  const auto a = put({1, 2});
  const auto b = put({3});
  store_->save_context("x", a, {.ttl_seconds = 10});
  EXPECT_TRUE(store_->pin_context("x"));
  store_->save_context("x", b);
  ASSERT_EQ(store_->contexts().size(), 1u);
  EXPECT_EQ(store_->contexts()[0].tokens, 64);
  EXPECT_EQ(store_->contexts()[0].expires, 0);
  EXPECT_TRUE(store_->contexts()[0].pinned);
  bury();
  EXPECT_EQ(hit(a), 0);
  EXPECT_EQ(hit(b), 64);
}

TEST_F(PrefixContextsTest, ExpireUnlessPinned) {
  const auto a = put({1});
  const auto b = put({2});
  store_->save_context("a", a, {.ttl_seconds = 100});
  store_->save_context("b", b, {.ttl_seconds = 100});
  EXPECT_TRUE(store_->pin_context("b"));
  EXPECT_FALSE(store_->pin_context("c"));
  now_ += 99;
  EXPECT_EQ(store_->contexts().size(), 2u);
  now_ += 1;
  ASSERT_EQ(store_->contexts().size(), 1u);
  EXPECT_EQ(store_->contexts()[0].name, "b");
  open();
  EXPECT_EQ(store_->contexts().size(), 1u);
  EXPECT_TRUE(store_->unpin_context("b"));
  EXPECT_THAT(store_->contexts(), IsEmpty());
  EXPECT_FALSE(store_->unpin_context("b"));
  EXPECT_EQ(store_->counters().context_bytes, 0u);
  // Also where it happened while the store was closed.
  store_->save_context("a", a, {.ttl_seconds = 5});
  now_ += 5;
  open();
  EXPECT_EQ(store_->counters().context_bytes, 0u);
}

TEST_F(PrefixContextsTest, QuotaAndRoom) {
  const auto a = put({1, 2, 3});
  const auto over = store_->save_context("a", a, {.quota_bytes = 3 * 5000 - 1});
  EXPECT_EQ(over.outcome, Outcome::kOverQuota);
  EXPECT_EQ(over.bytes, 15000);
  EXPECT_THAT(over.text, HasSubstr("15000"));
  EXPECT_EQ(store_->save_context("a", a, {.quota_bytes = 3 * 5000}).outcome, Outcome::kSaved);
  open("model", 60000);
  EXPECT_EQ(hit(a), 192);
  std::vector<int> choices;
  for (int b = 0; b < 12; ++b) choices.push_back(100 + b);
  const auto large = put(choices);
  const auto before = bytes_under(folder_.path());
  const auto full = store_->save_context("large", large);
  EXPECT_EQ(full.outcome, Outcome::kFull);
  EXPECT_THAT(full.text, HasSubstr("60000"));
  EXPECT_LE(bytes_under(folder_.path()), before);  // nothing is left of it
  EXPECT_EQ(store_->contexts().size(), 1u);
  EXPECT_EQ(store_->save_context("small", put({50})).outcome, Outcome::kSaved);
  EXPECT_LE(store_->counters().context_bytes, 60000u);
}

TEST_F(PrefixContextsTest, NamesAreNames) {
  const auto a = put({1});
  for (const std::string& name : {std::string(), std::string(129, 'x'), std::string("a\nb")}) {
    error_of(Code::kUsage, [&] { store_->save_context(name, a); });
  }
  EXPECT_EQ(store_->save_context("Über alles/../x", a).outcome, Outcome::kSaved);
}

TEST_F(PrefixContextsTest, OfAnotherModelAreKeptAndNotUsed) {
  const auto a = put({1, 2});
  store_->save_context("a", a);
  open("other");
  ASSERT_EQ(store_->contexts().size(), 1u);
  EXPECT_FALSE(store_->contexts()[0].usable);
  EXPECT_EQ(hit(a), 0);
  put({3});
  bury();
  open();
  EXPECT_EQ(hit(a), 128);
}

}  // namespace
}  // namespace cachalot::infer
