// Which experts the engine says its rows chose: all rows of every pass, those of drafts too, and
// nothing of it changes an answer.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "base/error.h"
#include "infer/engine_case_test.h"
#include "infer/evaluate.h"
#include "model/forward.h"

namespace cachalot::infer {
namespace {

struct Heard {
  struct Exchange {
    std::int64_t pass = 0;
    int layer = 0, rows = 0;
  };
  std::vector<Exchange> exchanges;
  std::map<int, std::vector<std::int32_t>> chosen;  // by layer, row after row
  int topk = 0;

  EngineConfig attached(EngineConfig config, int layer = -1) {
    config.routing_layer = layer;
    config.on_routing = [this](std::int64_t pass, int l, MatView<const std::int32_t> rows) {
      exchanges.push_back({pass, l, rows.rows});
      EXPECT_TRUE(topk == 0 || topk == rows.cols);
      topk = rows.cols;
      for (int i = 0; i < rows.rows; ++i) {
        chosen[l].insert(chosen[l].end(), rows.row(i), rows.row(i) + rows.cols);
      }
    };
    return config;
  }
  std::int64_t rows(int layer) const {
    std::int64_t sum = 0;
    for (const Exchange& e : exchanges) sum += e.layer == layer ? e.rows : 0;
    return sum;
  }
};

std::vector<int> moe_layers(const model::Config& config) {
  std::vector<int> layers;
  for (int l = 0; l < config.num_hidden_layers; ++l) {
    if (config.is_moe_layer(l)) layers.push_back(l);
  }
  return layers;
}

// Requests of all kinds: some with several choices, with too few pages for all of them.
std::vector<Request> mixed_requests(const Fixture& f) {
  std::vector<Request> requests;
  for (std::uint64_t i = 0; i < 10; ++i) {
    requests.push_back(f.request(20 + 13 * static_cast<int>(i % 5), 40, i));
    requests.back().priority = static_cast<int>(i % 3);
    requests.back().n = i == 4 ? 3 : 1;
    requests.back().logprobs = 1;
  }
  return requests;
}

TEST(EngineRouting, AnswersAreTheSameWithAndWithoutIt) {
  const Fixture f;
  for (const MtpMode mtp : {MtpMode::kOff, MtpMode::kOn, MtpMode::kAuto}) {
    const EngineConfig config{.mtp = mtp, .draft_length = 2, .cache_bytes = f.pages(5)};
    const auto requests = mixed_requests(f);
    const auto want = Engine(f.rt.context(), f.model, config).run(requests);
    Heard heard;
    const auto got = Engine(f.rt.context(), f.model, heard.attached(config)).run(requests);
    EXPECT_FALSE(heard.exchanges.empty());
    for (std::size_t i = 0; i < requests.size(); ++i) {
      ASSERT_EQ(got[i].choices.size(), want[i].choices.size());
      for (std::size_t c = 0; c < want[i].choices.size(); ++c) {
        const Choice &a = got[i].choices[c], &b = want[i].choices[c];
        EXPECT_EQ(a.tokens, b.tokens) << i << " choice " << c;
        ASSERT_EQ(a.logprobs.size(), b.logprobs.size());
        for (std::size_t t = 0; t < a.logprobs.size(); ++t) {
          EXPECT_EQ(a.logprobs[t].logprob, b.logprobs[t].logprob) << i << " token " << t;
        }
      }
    }
  }
}

TEST(EngineRouting, HearsEveryRowOfEveryPassOnceInEachLayer) {
  const Fixture f;
  const model::Config& c = f.model.config();
  for (const MtpMode mtp : {MtpMode::kOff, MtpMode::kOn}) {
    Heard heard;
    Engine engine(f.rt.context(), f.model,
                  heard.attached({.mtp = mtp, .draft_length = 2, .cache_bytes = f.pages(5)}));
    engine.run(mixed_requests(f));
    const EngineStats stats = engine.stats();
    EXPECT_GT(stats.preemptions, 0);  // rows that were read again went to their experts again
    EXPECT_EQ(heard.topk, c.route.topk);
    for (const int layer : moe_layers(c)) {
      EXPECT_EQ(heard.rows(layer), stats.rows) << layer;
      EXPECT_EQ(static_cast<std::int64_t>(heard.chosen[layer].size()), stats.rows * c.route.topk);
      std::vector<std::int64_t> passes;
      for (const auto& e : heard.exchanges) {
        if (e.layer == layer) passes.push_back(e.pass);
      }
      ASSERT_EQ(static_cast<std::int64_t>(passes.size()), stats.passes);  // one exchange in each
      for (std::size_t p = 0; p < passes.size(); ++p) {
        EXPECT_EQ(passes[p], static_cast<std::int64_t>(p));
      }
    }
    EXPECT_EQ(heard.rows(c.num_hidden_layers) > 0, mtp == MtpMode::kOn);  // the MTP layer
    const auto ascends = [](const auto& a, const auto& b) { return a.pass < b.pass; };
    EXPECT_TRUE(std::is_sorted(heard.exchanges.begin(), heard.exchanges.end(), ascends));
    for (const auto& [layer, experts] : heard.chosen) {
      for (std::size_t row = 0; row < experts.size(); row += static_cast<std::size_t>(heard.topk)) {
        const auto first = experts.begin() + static_cast<std::ptrdiff_t>(row);
        const std::set<std::int32_t> different(first, first + heard.topk);
        ASSERT_EQ(static_cast<int>(different.size()), heard.topk);
        ASSERT_GE(*different.begin(), 0);
        ASSERT_LT(*different.rbegin(), c.route.experts);
      }
    }
  }
}

// What was drafted has been read, and went to its experts, whether or not it was right.
TEST(EngineRouting, RejectedDraftsAreTraffic) {
  const Fixture f;
  const int layer = f.model.config().moe_layer_or_first(-1);
  Heard heard;
  Engine engine(f.rt.context(), f.model,
                heard.attached({.mtp = MtpMode::kOn, .draft_length = 3}, layer));
  const Request r = f.request(30, 25, 3);
  const MtpStats mtp = engine.run(r).mtp();
  EXPECT_LT(mtp.accepted, mtp.drafted);
  EXPECT_EQ(heard.rows(layer), 30 + mtp.passes + mtp.drafted);
  EXPECT_EQ(heard.chosen.size(), 1u);  // no other layer
}

// Without drafts a text's rows are its tokens but the last, as one forward pass reads them and as
// scoring the text does.
TEST(EngineRouting, IsWhatOneForwardPassChooses) {
  const Fixture f;
  const model::Config& c = f.model.config();
  for (const int chunk : {512, 7}) {
    Heard heard;
    const Request r = f.request(40, 12, 9);
    const Result result = Engine(f.rt.context(), f.model,
                                 heard.attached({.mtp = MtpMode::kOff, .prefill_chunk = chunk}))
                              .run(r);
    std::vector<std::int32_t> text = r.prompt;
    text.insert(text.end(), result.tokens().begin(), result.tokens().end());
    model::CachePool pool = f.pool(2);
    model::LatentCache cache(pool);
    model::Forward forward(f.rt.context(), f.model);
    const model::Chunk whole{std::span(text).first(text.size() - 1), &cache};
    model::Taps taps;
    forward.run({&whole, 1}, &taps);
    for (const int layer : moe_layers(c)) {
      const auto want = taps.layers[static_cast<std::size_t>(layer)].topk_idx.span();
      EXPECT_EQ(heard.chosen[layer], std::vector<std::int32_t>(want.begin(), want.end()))
          << "layer " << layer << " chunk " << chunk;
      std::vector<std::int32_t> scored;
      EvaluateOptions options;
      options.routing_layer = layer;
      options.on_routing = [&](MatView<const std::int32_t> rows) {
        for (int i = 0; i < rows.rows; ++i) {
          scored.insert(scored.end(), rows.row(i), rows.row(i) + rows.cols);
        }
      };
      evaluate(f.rt.context(), f.model, text, options);
      EXPECT_EQ(heard.chosen[layer], scored) << "layer " << layer << " chunk " << chunk;
    }
  }
}

// What is found in the cache is not read, so it goes nowhere.
TEST(EngineRouting, RowsThatAreReusedAreNotHeard) {
  const Fixture f;
  const int layer = f.model.config().moe_layer_or_first(-1);
  Heard heard;
  Engine engine(f.rt.context(), f.model, heard.attached({.mtp = MtpMode::kOff}, layer));
  const Request r = f.request(70, 1, 4);
  engine.run(r);
  EXPECT_EQ(heard.rows(layer), 70);
  EXPECT_EQ(engine.run(r).timings.reused_tokens, 69);
  EXPECT_EQ(heard.rows(layer), 71);
}

TEST(EngineRouting, ALayerWithoutExpertsIsRefused) {
  const Fixture f;
  const int layers = f.model.config().num_hidden_layers;
  const auto make = [&](MtpMode mtp, int layer) {
    Heard heard;
    Engine(f.rt.context(), f.model, heard.attached({.mtp = mtp}, layer));
  };
  EXPECT_NO_THROW(make(MtpMode::kOn, layers));       // the MTP layer
  EXPECT_THROW(make(MtpMode::kOff, layers), Error);  // which does not run
  EXPECT_THROW(make(MtpMode::kOn, layers + 1), Error);
  EXPECT_THROW(make(MtpMode::kOn, 0), Error);  // dense
}

}  // namespace
}  // namespace cachalot::infer
