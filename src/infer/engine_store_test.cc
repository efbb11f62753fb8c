// What the engine gives to the prefix store, and when.
#include <gtest/gtest.h>

#include <memory>

#include "infer/engine_case_test.h"
#include "infer/prefix_blocks.h"

namespace cachalot::infer {
namespace {

// A store that holds nothing in RAM: a block that is offered twice is counted twice.
struct StoreFixture : Fixture {
  testing::TempDir dir;

  std::unique_ptr<PrefixStore> open(MtpMode mtp) const {
    const model::CacheShape shape(model.config(), LatentFormat::kF32);
    const PrefixStoreConfig config{
        .folder = (dir.path() / cat("store-", name(mtp))).string(),
        .ram_bytes = 0,
        .queue_bytes = static_cast<std::int64_t>(9 * (shape.page_bytes() + 2048))};
    return std::make_unique<PrefixStore>(
        config, prefix_identity(folder, rt.context(), model, shape, model::AttentionMode::kAbsorbed,
                                mtp != MtpMode::kOff));
  }
};

std::int64_t blocks_in(PrefixStore& store, std::span<const std::int32_t> tokens) {
  return store.lookup(tokens, [](int, auto) { return true; }).hit_tokens / kLatentBlock;
}

// The queue has room for the eight blocks of a chunk, not for all of the prompt.
TEST(EngineStoreTest, APromptsBlocksAreStoredAsItIsRead) {
  const StoreFixture f;
  for (const MtpMode mtp : {MtpMode::kOff, MtpMode::kOn}) {
    const auto store = f.open(mtp);
    Engine engine(f.rt.context(), f.model, {.mtp = mtp, .store = store.get()});
    const Request r = f.request(3 * 512 + 10, 4, 31);
    engine.submit(r);
    for (std::uint64_t chunk = 1; chunk <= 3; ++chunk) {
      engine.step();
      EXPECT_EQ(store->counters().inserted, 8 * chunk);
      EXPECT_TRUE(store->flush());
    }
    engine.run();
    EXPECT_TRUE(store->flush());
    EXPECT_EQ(store->counters().dropped, 0U);
    EXPECT_EQ(store->counters().inserted, 24U);  // each of them once
    EXPECT_EQ(blocks_in(*store, r.prompt), 24);
    // What came from the store is not stored again; what follows it is.
    Engine second(f.rt.context(), f.model, {.mtp = mtp, .store = store.get()});
    Request longer = r;
    const auto more = random_tokens(3 * kLatentBlock, f.vocab, 32);
    longer.prompt.insert(longer.prompt.end(), more.begin(), more.end());
    const Result result = second.run(longer);
    EXPECT_EQ(result.timings.hit_tokens(), 24 * kLatentBlock);
    EXPECT_EQ(result.tokens(), f.alone(longer).tokens());
    EXPECT_EQ(store->counters().inserted, 27U);
    EXPECT_TRUE(store->flush());
    EXPECT_EQ(blocks_in(*store, longer.prompt), 27);
  }
}

// Blocks of what is generated are there as soon as they are full, with those rows of the MTP layer
// that a text which does not draft would not need yet; each is given once.
TEST(EngineStoreTest, GeneratedBlocksAreStoredAsTheyFill) {
  const StoreFixture f;
  for (const MtpMode mtp : {MtpMode::kOff, MtpMode::kOn, MtpMode::kAuto}) {
    SCOPED_TRACE(name(mtp));
    const auto store = f.open(mtp);
    Engine engine(f.rt.context(), f.model, {.mtp = mtp, .store = store.get()});
    Request r = f.request(10, 3 * kLatentBlock, 51);
    std::vector<std::int32_t> text = r.prompt;
    r.on_token = [&](const NewToken& token) {
      text.push_back(token.token);
      return true;
    };
    engine.submit(r);
    while (engine.step()) {
      EXPECT_TRUE(store->flush());
      const auto read = static_cast<std::int64_t>(text.size()) - 1;  // the last token is not
      ASSERT_EQ(blocks_in(*store, text), read / kLatentBlock) << text.size() << " tokens";
    }
    EXPECT_EQ(store->counters().inserted, 3U);
    EXPECT_EQ(store->counters().dropped, 0U);
    // Another process that opens the folder goes on from there.
    Request again = r;
    again.on_token = nullptr;
    again.prompt = text;
    again.max_tokens = 4;
    const Result result =
        Engine(f.rt.context(), f.model, {.mtp = mtp, .store = store.get()}).run(again);
    EXPECT_EQ(result.timings.hit_tokens(), 3 * kLatentBlock);
    EXPECT_EQ(result.tokens(), f.alone(again).tokens());
  }
}

// A text that slid is another text, and its blocks are stored from its new beginning on.
TEST(EngineStoreTest, ATextThatSlidIsStoredUnderItsNewBeginning) {
  const StoreFixture f;
  for (const MtpMode mtp : {MtpMode::kOff, MtpMode::kOn}) {
    const auto store = f.open(mtp);
    Engine engine(f.rt.context(), f.model, {.mtp = mtp, .kept_texts = 0, .store = store.get()});
    Request r = f.request(f.context - 6, 30, 3);
    r.sampling = {};  // greedy: no draw that depends on the place in the output
    r.context_end = ContextEnd::kSlide;
    Result got;
    r.on_done = [&](const Result& result) { got = result; };
    engine.submit(r);
    while (engine.step()) {
      EXPECT_TRUE(store->flush());
    }
    ASSERT_EQ(got.choices.front().slides, 1);
    EXPECT_TRUE(store->flush());
    EXPECT_EQ(store->counters().dropped, 0U);
    std::vector<std::int32_t> text = r.prompt;
    text.insert(text.end(), got.tokens().begin(), got.tokens().begin() + 7);
    Request second = r;
    second.on_done = nullptr;
    second.prompt.assign(text.begin() + static_cast<std::ptrdiff_t>(text.size() / 2), text.end());
    second.max_tokens = 23;
    const Result again = engine.run(second);
    const auto usable = static_cast<int>(second.prompt.size()) - 1;
    EXPECT_EQ(again.timings.hit_tokens(), usable / kLatentBlock * kLatentBlock);
    EXPECT_EQ(again.tokens(), f.alone(second).tokens());
  }
}

// Cancelled while it is read, given up for others and read again, one of several choices: what a
// text leaves in the store is what it has read, and others get the same answers from it.
TEST(EngineStoreTest, WhatTextsLeaveIsTheirs) {
  const StoreFixture f;
  for (const MtpMode mtp : {MtpMode::kOff, MtpMode::kOn}) {
    const auto store = f.open(mtp);
    {
      Engine engine(f.rt.context(), f.model, {.mtp = mtp, .store = store.get()});
      const Request r = f.request(3 * 512, 4, 41);
      const RequestId id = engine.submit(r);
      engine.step();
      EXPECT_TRUE(store->flush());
      engine.cancel(id);
      engine.run();
      EXPECT_TRUE(store->flush());
      EXPECT_EQ(blocks_in(*store, r.prompt), 8);
      EXPECT_EQ(store->counters().inserted, 8U);
      EXPECT_EQ(engine.run(r).tokens(), f.alone(r).tokens());
    }
    Engine engine(
        f.rt.context(), f.model,
        {.mtp = mtp, .prefill_chunk = 70, .cache_bytes = f.pages(6), .store = store.get()});
    std::vector<Request> requests;
    for (std::uint64_t i = 0; i < 8; ++i) {
      requests.push_back(f.request(90 + 40 * static_cast<int>(i % 3), 70, i % 4));
      requests.back().priority = static_cast<int>(i % 3);
      requests.back().n = i == 4 ? 3 : 1;
    }
    for (int turn = 0; turn < 2; ++turn) {
      const auto results = engine.run(requests);
      EXPECT_GT(engine.stats().preemptions, 0);
      for (std::size_t i = 0; i < requests.size(); ++i) {
        const Result want = f.alone(requests[i]);
        for (std::size_t c = 0; c < want.choices.size(); ++c) {
          EXPECT_EQ(results[i].choices[c].tokens, want.choices[c].tokens) << i << " choice " << c;
        }
      }
    }
  }
}

}  // namespace
}  // namespace cachalot::infer
