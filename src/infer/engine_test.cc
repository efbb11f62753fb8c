// What the engine does with many requests: who goes first, who waits, who shares.
#include "infer/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "infer/engine_case_test.h"
#include "infer/prefix_blocks.h"

namespace cachalot::infer {
namespace {

TEST(EngineTest, ACancelledRequestEndsWithWhatItHas) {
  const Fixture f;
  Engine engine(f.rt.context(), f.model);
  Result cancelled, other, waiting;
  Request a = f.request(9, 40, 1), b = f.request(5, 20, 2), c = f.request(4, 4, 3);
  a.on_done = [&](const Result& r) { cancelled = r; };
  b.on_done = [&](const Result& r) { other = r; };
  c.on_done = [&](const Result& r) { waiting = r; };
  const RequestId id = engine.submit(a);
  engine.submit(b);
  for (int i = 0; i < 5; ++i) engine.step();
  const RequestId never = engine.submit(c);
  engine.cancel(id);
  engine.cancel(never);
  engine.cancel(12345);  // nobody
  engine.run();
  EXPECT_EQ(cancelled.finish(), Finish::kCancelled);
  const auto whole = f.alone(a).tokens();
  ASSERT_GE(cancelled.tokens().size(), 5u);
  EXPECT_LT(cancelled.tokens().size(), whole.size());
  EXPECT_TRUE(std::equal(cancelled.tokens().begin(), cancelled.tokens().end(), whole.begin()));
  EXPECT_EQ(waiting.finish(), Finish::kCancelled);
  EXPECT_TRUE(waiting.tokens().empty());
  EXPECT_EQ(other.tokens(), f.alone(b).tokens());
  EXPECT_EQ(engine.stats().finished, 3);
}

TEST(EngineTest, HigherPriorityGoesFirstAndTakesThePlaceOfLower) {
  const Fixture f;
  Engine engine(f.rt.context(), f.model, {.max_running = 1});
  std::vector<int> order;
  std::vector<Result> results(3);
  std::vector<Request> requests;
  for (int i = 0; i < 3; ++i) {
    Request r = f.request(6, 12, static_cast<std::uint64_t>(i));
    r.priority = i == 2 ? 5 : 0;
    r.on_done = [&, i](const Result& result) {
      order.push_back(i);
      results[static_cast<std::size_t>(i)] = result;
    };
    requests.push_back(r);
  }
  engine.submit(requests[0]);
  engine.submit(requests[1]);
  for (int i = 0; i < 4; ++i) engine.step();
  engine.submit(requests[2]);
  engine.run();
  EXPECT_EQ(order, (std::vector<int>{2, 0, 1}));
  EXPECT_EQ(results[0].preemptions, 1);
  EXPECT_EQ(results[1].preemptions, 0);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(results[i].tokens(), f.alone(requests[i]).tokens());
}

TEST(EngineTest, MoreThanMayWaitAreRefused) {
  const Fixture f;
  Engine engine(f.rt.context(), f.model, {.max_running = 1, .max_waiting = 2});
  for (int i = 0; i < 2; ++i) engine.submit(f.request(3, 3, 1));
  try {
    engine.submit(f.request(3, 3, 1));
    FAIL() << "a third request was taken";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kBusy);
  }
  engine.step();  // one of them has its place now
  engine.submit(f.request(3, 3, 1));
  engine.run();
  EXPECT_EQ(engine.stats().finished, 3);
  // run() has more than may wait come one after the other.
  EXPECT_EQ(engine.run(std::vector<Request>(7, f.request(3, 3, 1))).size(), 7u);
}

// Choices begin together, so more of them than run at once never would.
TEST(EngineTest, MoreChoicesThanRunAtOnceAreRefused) {
  const Fixture f;
  Engine engine(f.rt.context(), f.model, {.max_running = 3});
  Request request = f.request(3, 3, 1);
  request.n = 4;
  EXPECT_THROW(engine.submit(request), Error);
  EXPECT_THROW(engine.run(request), Error);
  request.n = 3;
  EXPECT_EQ(engine.run(request).choices.size(), 3U);
}

// Choices that begin where a prompt ends have their places while it is read.
TEST(EngineTest, ChoicesYetToBeginCountAmongThoseThatRun) {
  const Fixture f;
  Engine engine(f.rt.context(), f.model, {.prefill_chunk = 16, .max_running = 4});
  std::vector<Request> requests{f.request(60, 12, 1), f.request(5, 20, 2), f.request(6, 20, 3)};
  requests[0].n = 3;
  std::vector<Result> results(requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i].on_done = [&, i](const Result& r) { results[i] = r; };
    engine.submit(requests[i]);
  }
  engine.step();
  EXPECT_EQ(engine.stats().running, 2);  // the prompt of three choices, and one text more
  EXPECT_EQ(engine.stats().waiting, 1);
  while (engine.step()) {
    EXPECT_LE(engine.stats().running, 4);
  }
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const Result want = f.alone(requests[i]);
    for (std::size_t c = 0; c < want.choices.size(); ++c) {
      EXPECT_EQ(results[i].choices[c].tokens, want.choices[c].tokens) << i << " choice " << c;
    }
    EXPECT_EQ(results[i].preemptions, 0);
  }
}

TEST(EngineTest, RunsWhatItsCallbacksBring) {
  const Fixture f;
  Engine engine(f.rt.context(), f.model);
  std::vector<std::int32_t> answer;
  Request first = f.request(5, 2, 1), second = f.request(6, 4, 2);
  second.on_done = [&](const Result& r) { answer = r.tokens(); };
  first.on_done = [&](const Result&) { engine.submit(second); };
  engine.submit(first);
  engine.run();
  EXPECT_EQ(answer, f.alone(second).tokens());
}

// A request that waits already leaves fewer places for those of run().
TEST(EngineTest, RunMakesRoomWhereOthersWait) {
  const Fixture f;
  Engine engine(f.rt.context(), f.model, {.max_running = 1, .max_waiting = 2});
  int done = 0;
  Request other = f.request(4, 3, 1);
  other.on_done = [&](const Result&) { ++done; };
  engine.submit(other);
  const std::vector<Request> requests{f.request(3, 3, 2), f.request(3, 3, 3)};
  const auto results = engine.run(requests);
  EXPECT_EQ(results[0].tokens(), f.alone(requests[0]).tokens());
  EXPECT_EQ(results[1].tokens(), f.alone(requests[1]).tokens());
  EXPECT_EQ(done, 1);
}

TEST(EngineTest, ChoicesShareThePromptAndAreThoseOfSingleRequests) {
  const Fixture f;
  for (const MtpMode mtp : {MtpMode::kOff, MtpMode::kOn}) {
    Engine engine(f.rt.context(), f.model, {.mtp = mtp, .kept_texts = 0});
    Request r = f.request(2 * kLatentBlock + 5, 20, 7);
    r.n = 5;
    Result got;
    r.on_done = [&](const Result& result) { got = result; };
    engine.submit(r);
    engine.step();
    // Two whole pages once, and for each choice the third of its own, as soon as it writes it.
    engine.step();
    EXPECT_EQ(engine.stats().running, 5);
    EXPECT_LE(engine.stats().pages - engine.stats().free_pages, 2 + 5);
    engine.run();
    EXPECT_EQ(engine.stats().free_pages, engine.stats().pages);
    ASSERT_EQ(got.choices.size(), 5u);
    r.n = 1;
    for (const Choice& choice : got.choices) {
      EXPECT_EQ(choice.tokens, f.alone(r).tokens());
      ++r.stream;
    }
    EXPECT_EQ(got.timings.new_tokens, 100);
  }
}

TEST(EngineTest, ALongPromptDoesNotStopTheOthers) {
  const Fixture f;
  Engine engine(f.rt.context(), f.model,
                {.mtp = MtpMode::kOff, .prefill_chunk = 64, .max_gap_seconds = 1e-9});
  Request stream = f.request(4, 1 << 20, 1);
  stream.max_tokens = f.context - 4;
  int streamed = 0;
  stream.on_token = [&](const NewToken&) { return ++streamed > 0; };
  engine.submit(stream);
  engine.step();
  const int length = f.context / 2;
  Request prompt = f.request(length, 1, 2);
  bool done = false;
  prompt.on_done = [&](const Result&) { done = true; };
  engine.submit(prompt);
  int passes = 0;
  while (!done) {
    const int before = streamed;
    engine.step();
    EXPECT_EQ(streamed, before + 1);
    ++passes;
  }
  // The first pass beside others knows no speed yet and takes 64; then the least there is, 16.
  EXPECT_GE(passes, (length - 64) / 16);
}

// More texts read than a pass has rows for: an even share is none, and the first to come must not
// wait for all who come later.
TEST(EngineTest, ManyPromptsAtOnceAreReadInTheirOrder) {
  const Fixture f;
  constexpr int kRequests = 12;
  Engine engine(f.rt.context(), f.model, {.mtp = MtpMode::kOff, .prefill_chunk = 4});
  std::vector<int> done, all;
  std::vector<Request> requests;
  std::vector<Result> results(kRequests);
  for (int i = 0; i < kRequests; ++i) {
    Request r = f.request(20, 3, static_cast<std::uint64_t>(i));
    r.on_done = [&, i](const Result& result) {
      done.push_back(i);
      results[static_cast<std::size_t>(i)] = result;
    };
    requests.push_back(r);
    engine.submit(r);
    all.push_back(i);
  }
  engine.run();
  EXPECT_EQ(done, all);
  for (std::size_t i = 0; i < kRequests; ++i) {
    EXPECT_EQ(results[i].tokens(), f.alone(requests[i]).tokens());
  }
}

// Texts that need more pages than there are, of all priorities: everybody gets their answer.
TEST(EngineTest, PagesGoToSeniorsAndEveryAnswerIsTheSame) {
  const Fixture f;
  for (const MtpMode mtp : {MtpMode::kOff, MtpMode::kOn, MtpMode::kAuto}) {
    Engine engine(f.rt.context(), f.model,
                  {.mtp = mtp, .draft_length = 2, .cache_bytes = f.pages(5)});
    std::vector<Request> requests;
    for (std::uint64_t i = 0; i < 12; ++i) {
      requests.push_back(f.request(20 + 13 * static_cast<int>(i % 5), 50, i));
      requests.back().priority = static_cast<int>(i % 3);
      requests.back().n = i == 4 ? 3 : 1;
    }
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

TEST(EngineTest, AStoreGivesAPromptBackAfterARestart) {
  const Fixture f;
  const testing::TempDir dir;
  for (const MtpMode mtp : {MtpMode::kOff, MtpMode::kOn}) {
    const model::CacheShape shape(f.model.config(), LatentFormat::kF32);
    const auto identity = prefix_identity(f.folder, f.rt.context(), f.model, shape,
                                          model::AttentionMode::kAbsorbed, mtp != MtpMode::kOff);
    const PrefixStoreConfig where{.folder = (dir.path() / "store").string()};
    Request r = f.request(3 * kLatentBlock + 9, 12, 11);
    r.logprobs = 0;
    Result first;
    {
      PrefixStore store(where, identity);
      Engine engine(f.rt.context(), f.model, {.mtp = mtp, .draft_length = 2, .store = &store});
      first = engine.run(r);
      EXPECT_EQ(first.timings.hit_tokens(), 0);
      ASSERT_TRUE(store.flush());
    }
    PrefixStore store(where, identity);
    Engine engine(f.rt.context(), f.model, {.mtp = mtp, .draft_length = 2, .store = &store});
    const Result again = engine.run(r);
    EXPECT_EQ(again.timings.hit_tokens(), 3 * kLatentBlock);
    EXPECT_EQ(again.timings.miss_tokens(), 9);
    EXPECT_EQ(again.tokens(), first.tokens());
    for (std::size_t t = 0; t < first.tokens().size(); ++t) {
      EXPECT_EQ(again.choices.front().logprobs[t].logprob,
                first.choices.front().logprobs[t].logprob);
    }
    // The MTP layer's rows came back exactly, too: it drafts the same.
    EXPECT_EQ(again.mtp().drafted, first.mtp().drafted);
    EXPECT_EQ(again.mtp().accepted, first.mtp().accepted);
    // A whole number of blocks: the last token is read again in any case.
    r.prompt.resize(2 * kLatentBlock);
    r.logprobs = -1;
    const Result whole = engine.run(r);
    EXPECT_EQ(whole.tokens(), f.alone(r).tokens());
    EXPECT_GE(whole.timings.reused_tokens, kLatentBlock - 1);
  }
}

TEST(EngineTest, ServesManyThreads) {
  const Fixture f;
  const auto engine = std::make_unique<Engine>(
      f.rt.context(), f.model,
      EngineConfig{.cache_bytes = f.pages(12), .max_running = 6, .max_waiting = 64});
  constexpr int kThreads = 4, kEach = 6;
  std::vector<std::vector<Result>> got(kThreads, std::vector<Result>(kEach));
  std::mutex mutex;
  std::condition_variable changed;
  int done = 0;
  std::jthread server([&](const std::stop_token& stop) { engine->serve(stop); });
  std::vector<std::jthread> clients;
  for (int t = 0; t < kThreads; ++t) {
    clients.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        Request r = f.request(5 + 11 * i, 16, static_cast<std::uint64_t>(10 * t + i));
        r.on_done = [&, t, i](const Result& result) {
          const std::lock_guard lock(mutex);
          got[static_cast<std::size_t>(t)][static_cast<std::size_t>(i)] = result;
          ++done;
          changed.notify_all();
        };
        const RequestId id = engine->submit(std::move(r));
        if (i == 3) engine->cancel(id);
      }
    });
  }
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return done == kThreads * kEach; });
  }
  clients.clear();
  server.request_stop();
  server.join();
  for (int t = 0; t < kThreads; ++t) {
    for (int i = 0; i < kEach; ++i) {
      const Result& result = got[static_cast<std::size_t>(t)][static_cast<std::size_t>(i)];
      const Request r = f.request(5 + 11 * i, 16, static_cast<std::uint64_t>(10 * t + i));
      const auto want = f.alone(r).tokens();
      EXPECT_EQ(result.finish(), i == 3 ? result.finish() : Finish::kLength);
      ASSERT_LE(result.tokens().size(), want.size());
      EXPECT_TRUE(std::equal(result.tokens().begin(), result.tokens().end(), want.begin()));
      if (i != 3) {
        EXPECT_EQ(result.tokens(), want);
      }
    }
  }
}

TEST(EngineTest, StoppingToServeCancelsWhatIsLeft) {
  const Fixture f;
  Engine engine(f.rt.context(), f.model);
  std::stop_source stop;
  std::vector<Finish> ends;
  for (int i = 0; i < 3; ++i) {
    Request r = f.request(4, 30, 1);
    r.on_token = [&](const NewToken&) {
      stop.request_stop();
      return true;
    };
    r.on_done = [&](const Result& result) { ends.push_back(result.finish()); };
    engine.submit(r);
  }
  engine.serve(stop.get_token());
  EXPECT_EQ(ends, (std::vector<Finish>(3, Finish::kCancelled)));
}

}  // namespace
}  // namespace cachalot::infer
