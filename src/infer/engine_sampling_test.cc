// What the engine draws: log-probabilities, the distribution with drafts, and how texts end.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "infer/engine_case_test.h"
#include "kernels/elementwise.h"
#include "model/forward.h"

namespace cachalot::infer {
namespace {

TEST(EngineTest, LogprobsAreThoseOfTheLogits) {
  const Fixture f;
  Request r = f.request(12, 3, 5);
  r.logprobs = 4;
  const Result result = f.alone(r);
  const auto& logprobs = result.choices.front().logprobs;
  ASSERT_EQ(logprobs.size(), 3u);
  model::CachePool pool = f.pool(2);
  model::LatentCache cache(pool);
  model::Forward forward(f.rt.context(), f.model);
  std::vector<std::int32_t> text = r.prompt;
  for (std::size_t t = 0; t < 3; ++t) {
    cache.truncate(0);
    const model::Chunk chunk{text, &cache};
    const auto rows = forward.run({&chunk, 1});
    const Mat<float> logits = f.logits(forward, rows.sub_rows(rows.rows - 1, 1));
    double sum = 0;
    for (int v = 0; v < f.vocab; ++v) sum += std::exp(static_cast<double>(logits.row(0)[v]));
    const auto want = [&](std::int32_t token) {
      return static_cast<double>(logits.row(0)[token]) - std::log(sum);
    };
    EXPECT_NEAR(logprobs[t].logprob, want(result.tokens()[t]), 1e-5);
    ASSERT_EQ(logprobs[t].top.size(), 4u);
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_NEAR(logprobs[t].top[i].logprob, want(logprobs[t].top[i].token), 1e-5);
      if (i > 0) {
        EXPECT_LE(logprobs[t].top[i].logprob, logprobs[t].top[i - 1].logprob);
      }
    }
    for (int v = 0; v < f.vocab; ++v) EXPECT_LE(want(v), logprobs[t].top[0].logprob + 1e-5);
    text.push_back(result.tokens()[t]);
  }
}

// What comes after a slide is what a request with the newer half as its prompt gives.
TEST(EngineTest, ASlidingTextGoesOnFromItsNewerHalf) {
  const Fixture f;
  for (const MtpMode mtp : {MtpMode::kOff, MtpMode::kOn}) {
    Request r = f.request(f.context - 6, 30, 3);
    r.sampling = {};  // greedy: no draw that depends on the place in the output
    r.context_end = ContextEnd::kSlide;
    const Result got = f.alone(r, {.mtp = mtp, .draft_length = 3});
    EXPECT_EQ(got.finish(), Finish::kLength);
    ASSERT_EQ(got.tokens().size(), 30u);
    EXPECT_EQ(got.choices.front().slides, 1);
    std::vector<std::int32_t> text = r.prompt;
    // Seven tokens fit: the last of them has no row any more.
    text.insert(text.end(), got.tokens().begin(), got.tokens().begin() + 7);
    EXPECT_EQ(static_cast<int>(text.size()), f.context + 1);
    EXPECT_EQ(got.choices.front().forgotten, static_cast<std::int64_t>(text.size() / 2));
    Request second = r;
    second.prompt.assign(text.begin() + static_cast<std::ptrdiff_t>(text.size() / 2), text.end());
    second.max_tokens = 23;
    EXPECT_EQ(f.alone(second).tokens(),
              (std::vector<std::int32_t>(got.tokens().begin() + 7, got.tokens().end())));
    r.context_end = ContextEnd::kStop;
    EXPECT_EQ(f.alone(r, {.mtp = mtp}).finish(), Finish::kContext);
    EXPECT_EQ(f.alone(r, {.mtp = mtp}).tokens().size(), 7u);
  }
}

TEST(EngineTest, AThrowingCallbackEndsItsRequestAlone) {
  const Fixture f;
  Engine engine(f.rt.context(), f.model);
  Request bad = f.request(5, 10, 1);
  bad.n = 3;
  int seen = 0;
  bad.on_token = [&](const NewToken&) -> bool {
    if (++seen == 7) throw Error(Code::kIo, "the reader went away");
    return true;
  };
  Request good = f.request(7, 12, 2);
  Result failed, fine;
  bad.on_done = [&](const Result& r) { failed = r; };
  good.on_done = [&](const Result& r) { fine = r; };
  engine.submit(bad);
  engine.submit(good);
  engine.run();
  ASSERT_EQ(failed.choices.size(), 3u);
  for (const Choice& choice : failed.choices) EXPECT_EQ(choice.finish, Finish::kError);
  // Where the choices begin, too: the first, the second and the last token of all.
  for (const int moment : {1, 2, 3}) {
    seen = 7 - moment;
    int ends = 0;
    Request early = bad;
    early.on_done = [&](const Result& r) {
      ++ends;
      failed = r;
    };
    engine.submit(early);
    engine.run();
    EXPECT_EQ(ends, 1) << moment;
    for (const Choice& choice : failed.choices) EXPECT_EQ(choice.finish, Finish::kError) << moment;
    EXPECT_EQ(engine.stats().running + engine.stats().waiting, 0);
  }
  EXPECT_THROW(std::rethrow_exception(failed.error), Error);
  EXPECT_EQ(fine.tokens(), f.alone(good).tokens());
  seen = 0;
  EXPECT_THROW(engine.run(bad), Error);
}

// Four requests that end in one pass, one of them told by a callback that throws: each is told,
// once, and the error comes to whoever runs the engine.
TEST(EngineTest, AnOnDoneThatThrowsHarmsNobodyElse) {
  const Fixture f;
  std::vector<int> told(4, 0);
  const auto bring = [&](Engine& engine, int max_tokens) {
    std::vector<RequestId> ids;
    for (std::size_t i = 0; i < told.size(); ++i) {
      told[i] = 0;
      Request r = f.request(5, max_tokens, i);
      r.on_done = [&told, i](const Result&) {
        ++told[i];
        if (i == 0) throw Error(Code::kIo, "the reader went away");
      };
      ids.push_back(engine.submit(r));
    }
    return ids;
  };
  const std::vector<int> all(told.size(), 1);
  const auto expect_whole = [&](const Engine& engine) {
    EXPECT_EQ(told, all);
    EXPECT_EQ(engine.stats().running + engine.stats().waiting, 0);
    EXPECT_EQ(engine.stats().finished, static_cast<std::int64_t>(told.size()));
  };
  {  // at the end of a pass
    Engine engine(f.rt.context(), f.model, {.mtp = MtpMode::kOff});
    bring(engine, 2);
    EXPECT_TRUE(engine.step());
    EXPECT_THROW(engine.step(), Error);
    expect_whole(engine);
    EXPECT_FALSE(engine.step());  // it is thrown once
    EXPECT_EQ(engine.run(f.request(6, 4, 9)).tokens(), f.alone(f.request(6, 4, 9)).tokens());
  }
  {  // before one
    Engine engine(f.rt.context(), f.model, {.mtp = MtpMode::kOff});
    const auto ids = bring(engine, 40);
    EXPECT_TRUE(engine.step());
    for (const RequestId id : ids) engine.cancel(id);
    EXPECT_THROW(engine.step(), Error);
    expect_whole(engine);
  }
  {  // run() and serve() go on with the others
    Engine engine(f.rt.context(), f.model);
    Request longer = f.request(7, 12, 2);
    Result got;
    std::stop_source stop;
    longer.on_done = [&](const Result& r) {
      got = r;
      stop.request_stop();
    };
    engine.submit(longer);
    bring(engine, 2);
    EXPECT_THROW(engine.run(), Error);
    EXPECT_EQ(told, all);
    EXPECT_EQ(got.tokens(), f.alone(longer).tokens());
    got = {};
    stop = {};
    engine.submit(longer);
    bring(engine, 2);
    EXPECT_THROW(engine.serve(stop.get_token()), Error);
    EXPECT_EQ(told, all);
    EXPECT_EQ(got.tokens(), f.alone(longer).tokens());
  }
  {  // and so does run(requests)
    Engine engine(f.rt.context(), f.model);
    Request other = f.request(7, 9, 2);
    int ends = 0;
    other.on_done = [&](const Result&) { ++ends; };
    Request bad = f.request(5, 2, 1);
    bad.on_done = [](const Result&) { throw Error(Code::kIo, "the reader went away"); };
    EXPECT_THROW(engine.run(std::vector<Request>{bad, other, other}), Error);
    EXPECT_EQ(ends, 2);
  }
}

// The distribution of what is sampled with drafts is the model's: two tokens after a prompt, drawn
// often, by the remainders of their ids, against the exact probabilities.
TEST(EngineTest, SamplingWithDraftsFollowsTheTargetDistribution) {
  const Fixture f;
  constexpr int kBins = 6, kDraws = 32 * 128;
  const SamplerConfig sampling{.temperature = 2, .seed = 77};
  const std::vector<std::int32_t> prompt = random_tokens(10, f.vocab, 21);
  model::CachePool pool = f.pool(f.vocab + 1);
  model::LatentCache cache(pool);
  model::Forward forward(f.rt.context(), f.model);
  const auto probabilities = [&](MatView<const float> row) {
    const Mat<float> logits = f.logits(forward, row);
    Sampler sampler(sampling);
    std::vector<double> p(static_cast<std::size_t>(f.vocab), 0.0);
    double sum = 0;
    for (const Candidate& c :
         sampler.candidates({logits.row(0), static_cast<std::size_t>(f.vocab)})) {
      p[static_cast<std::size_t>(c.token)] = c.weight;
      sum += c.weight;
    }
    for (double& x : p) x /= sum;
    return p;
  };
  const model::Chunk whole{prompt, &cache};
  const MatView<const float> rows = forward.run({&whole, 1});
  const std::vector<double> first = probabilities(rows.sub_rows(rows.rows - 1, 1));
  // All second tokens after all first ones, in one pass.
  std::vector<std::int32_t> ids;
  for (std::int32_t id = 0; id < f.vocab; ++id) ids.push_back(id);
  std::vector<model::LatentCache> forks;
  forks.reserve(ids.size());
  std::vector<model::Chunk> chunks;
  for (const std::int32_t& id : ids) {
    forks.push_back(cache.fork(cache.length()));
    chunks.push_back({std::span<const std::int32_t>(&id, 1), &forks.back()});
  }
  Mat<float> after;  // where the model lies
  {
    const MatView<const float> out = forward.run(chunks);
    const MemoryScope scope(f.rt.context().device);
    after.resize(out.rows, out.cols);
    copy_rows(f.rt.context(), out, after.view());
  }
  std::vector<double> expected(kBins * kBins, 0.0);
  for (int one = 0; one < f.vocab; ++one) {
    const std::vector<double> second = probabilities(after.cview().sub_rows(one, 1));
    for (int two = 0; two < f.vocab; ++two) {
      expected[static_cast<std::size_t>(one % kBins * kBins + two % kBins)] +=
          first[static_cast<std::size_t>(one)] * second[static_cast<std::size_t>(two)];
    }
  }
  Engine engine(f.rt.context(), f.model,
                {.mtp = MtpMode::kOn, .draft_length = 2, .max_running = 128});
  std::vector<int> seen(kBins * kBins, 0);
  MtpStats mtp;
  for (std::uint64_t i = 0; i < kDraws / 128; ++i) {
    Request r;
    r.prompt = prompt;
    r.max_tokens = 3;  // so that the second one is drafted
    r.n = 128;
    r.stream = i * 128;
    r.sampling = sampling;
    const Result result = engine.run(r);
    for (const Choice& c : result.choices) {
      ++seen[static_cast<std::size_t>(c.tokens[0] % kBins * kBins + c.tokens[1] % kBins)];
    }
    mtp.add(result.mtp());
  }
  EXPECT_EQ(mtp.drafted, kDraws);
  EXPECT_GT(mtp.accepted, kDraws / 200);
  EXPECT_LT(mtp.accepted, mtp.drafted);
  double chi2 = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double want = expected[i] * kDraws;
    ASSERT_GE(want, 5) << i;
    chi2 += (seen[i] - want) * (seen[i] - want) / want;
  }
  // Mean of the statistic: cells - 1; six standard deviations, each sqrt(2 (cells - 1)).
  constexpr double kFreedom = kBins * kBins - 1;
  EXPECT_LT(chi2, kFreedom + 6 * std::sqrt(2 * kFreedom));
}

}  // namespace
}  // namespace cachalot::infer
