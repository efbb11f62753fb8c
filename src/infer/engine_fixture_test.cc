// Greedy continuations against the oracle's, on every model folder, whatever else goes on.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "infer/engine_case_test.h"

namespace cachalot::infer {
namespace {

struct Drafts {
  MtpMode mode;
  int length;
};
const Drafts kDrafts[] = {
    {MtpMode::kOff, 1}, {MtpMode::kOn, 1}, {MtpMode::kOn, 4}, {MtpMode::kAuto, 1}};

bool possible(const Drafts& drafts, const model::Model& model) {
  return drafts.mode != MtpMode::kOn || model.has_mtp();
}

TEST(EngineFixture, GreedyIsTheOraclesWithAndWithoutDrafts) {
  const runtime::Runtime rt(anywhere());
  for (const auto& folder : model_folders()) {
    const auto model = load_for(rt, folder, Precision::kF32);
    const Golden golden = load_golden(folder);
    ASSERT_FALSE(golden.prompts.empty()) << folder;
    for (const Drafts& drafts : kDrafts) {
      if (!possible(drafts, model)) continue;
      for (const auto attention : {model::AttentionMode::kAuto, model::AttentionMode::kNaive,
                                   model::AttentionMode::kAbsorbed}) {
        // Short chunks once: they go through the same code in every mode.
        for (const int chunk :
             attention == model::AttentionMode::kAuto ? std::vector{512, 7} : std::vector{512}) {
          Engine engine(rt.context(), model,
                        {.mtp = drafts.mode,
                         .draft_length = drafts.length,
                         .attention = attention,
                         .prefill_chunk = chunk});
          const auto results = engine.run(requests_of(golden));
          for (std::size_t i = 0; i < results.size(); ++i) {
            const MtpStats mtp = results[i].mtp();
            EXPECT_EQ(results[i].tokens(), golden.greedy[i])
                << folder << " sequence " << i << " drafts " << drafts.length << " attention "
                << static_cast<int>(attention) << " chunk " << chunk;
            EXPECT_EQ(results[i].finish(), Finish::kLength);
            EXPECT_EQ(mtp.enabled, drafts.mode != MtpMode::kOff && model.has_mtp());
            if (drafts.mode == MtpMode::kOn) {
              EXPECT_GT(mtp.drafted, 0);
            }
            EXPECT_EQ(mtp.passes + mtp.accepted,
                      static_cast<std::int64_t>(golden.greedy[i].size()) - 1);
          }
        }
      }
    }
  }
}

TEST(EngineFixture, SamplingDependsNeitherOnDraftsNorOnTheBatchNorOnThreads) {
  for (const auto& folder : model_folders()) {
    const Golden golden = load_golden(folder);
    const SamplerConfig sampling{
        .temperature = 0.7, .top_p = 0.95, .frequency_penalty = 0.2, .seed = 5};
    std::vector<std::vector<std::int32_t>> want;
    for (const int threads : {1, 2, 3}) {
      const runtime::Runtime rt(anywhere(threads));
      const auto model = load_for(rt, folder, Precision::kF32);
      for (const Drafts& drafts : kDrafts) {
        if (!possible(drafts, model)) continue;
        // Nothing kept: each request is computed.
        Engine engine(rt.context(), model,
                      {.mtp = drafts.mode, .draft_length = drafts.length, .kept_texts = 0});
        const auto requests = requests_of(golden, sampling);
        const auto together = engine.run(requests);
        for (std::size_t i = 0; i < requests.size(); ++i) {
          if (want.size() <= i) want.push_back(together[i].tokens());
          EXPECT_EQ(together[i].tokens(), want[i]) << folder << " threads " << threads;
          EXPECT_EQ(engine.run(requests[i]).tokens(), want[i]) << folder << " alone";
        }
      }
    }
  }
}

// The same tokens and log-probabilities, bit for bit, however the prompt was cut, in every cache
// format, with drafts, and from pages that others filled. A device sums by the number of rows:
// there they are the same to rounding, in floats, whose differences send no token to other experts.
TEST(EngineFixture, ChunksDraftsAndSharedPrefixesChangeNothing) {
  const runtime::Runtime rt(anywhere());
  const bool exact = rt.context().device == nullptr;
  const std::vector<LatentFormat> formats =
      exact ? std::vector{LatentFormat::kBF16, LatentFormat::kFp8}
            : std::vector{LatentFormat::kF32};
  for (const auto& folder : model_folders()) {
    const Golden golden = load_golden(folder);
    for (const LatentFormat format : formats) {
      const auto model = load_for(rt, folder, exact ? Precision::kBF16 : Precision::kF32);
      auto requests = requests_of(golden, {.temperature = 0.8, .seed = 3});
      for (Request& request : requests) request.logprobs = 2;
      std::vector<Result> want;
      const auto expect_same = [&](const Result& got, std::size_t i) {
        EXPECT_EQ(got.tokens(), want[i].tokens()) << folder;
        const auto& a = got.choices.front().logprobs;
        const auto& b = want[i].choices.front().logprobs;
        ASSERT_EQ(a.size(), b.size());
        for (std::size_t t = 0; t < a.size(); ++t) {
          EXPECT_NEAR(a[t].logprob, b[t].logprob, exact ? 0.0 : 2e-3)
              << folder << " sequence " << i << " token " << t;
        }
      };
      for (const int chunk : {1, 7, 64, 512}) {
        for (const Drafts& drafts : kDrafts) {
          if (!possible(drafts, model)) continue;
          Engine engine(rt.context(), model,
                        {.mtp = drafts.mode,
                         .draft_length = drafts.length,
                         .prefill_chunk = chunk,
                         .cache = format});
          const auto results = engine.run(requests);
          if (want.empty()) want = results;
          for (std::size_t i = 0; i < results.size(); ++i) expect_same(results[i], i);
          // Again, from the pages that the first round left.
          const auto again = engine.run(requests);
          for (std::size_t i = 0; i < again.size(); ++i) {
            expect_same(again[i], i);
            EXPECT_GE(again[i].timings.reused_tokens,
                      static_cast<int>(requests[i].prompt.size()) - 2);
          }
        }
      }
    }
  }
}

// How first tokens compare with an independent program's logits.
struct FirstTokens {
  std::vector<double> errors;  // of their log-probabilities, rising
  std::size_t same = 0;        // best of the logits
  std::string misses;
  double median() const { return errors[errors.size() / 2]; }
};

FirstTokens compare_first(const std::vector<Request>& requests, const std::vector<Result>& results,
                          const std::vector<float>& logits, std::size_t vocab) {
  FirstTokens c;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const float* row = logits.data() + (requests[i].prompt.size() - 1) * vocab;
    const auto best = static_cast<std::size_t>(results[i].tokens().front());
    const auto right = static_cast<std::size_t>(std::max_element(row, row + vocab) - row);
    if (best == right) {
      ++c.same;
    } else {
      const double by = row[right] - row[best];
      c.misses += cat("; after ", requests[i].prompt.size(), " tokens ", best, " instead of ",
                      right, ", whose logit is larger by ", by);
    }
    double sum = 0;
    for (std::size_t j = 0; j < vocab; ++j) sum += std::exp(static_cast<double>(row[j]));
    c.errors.push_back(std::abs(results[i].choices.front().logprobs.front().logprob -
                                (static_cast<double>(row[best]) - std::log(sum))));
  }
  std::sort(c.errors.begin(), c.errors.end());
  return c;
}

// Every third position of a prompt as the last one of a request.
std::vector<Request> beginnings(const std::vector<std::int32_t>& prompt) {
  std::vector<Request> requests;
  for (std::size_t n = 1; n <= prompt.size(); n += 3) {
    Request r;
    r.prompt.assign(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(n));
    r.max_tokens = 2;  // a second one, so that there is something to draft
    r.logprobs = 1;
    requests.push_back(std::move(r));
  }
  return requests;
}

model::Model load_w8a8(const runtime::Runtime& rt, const std::filesystem::path& folder,
                       Accumulation accumulation) {
  return model::Model::load(folder, {.precision = Precision::kF32,
                                     .keep_codes = true,
                                     .activations = model::LoadOptions::Activations::kFp8,
                                     .accumulation = accumulation,
                                     .context = &rt.context()});
}

constexpr const char* kOfficialLogits = "s0.logits_w8a8_official";

// Weights and activations in FP8, as published folders are run, against an independent program's
// logits (tests/fixtures/README.md states 0.05 as the median difference of logits, and nine of ten
// best tokens), and the same bits however the prompts are cut and the tokens drafted.
TEST(EngineFixture, ActivationsInFp8AsTheOfficialKernels) {
  const runtime::Runtime rt(anywhere());
  const bool on_device = rt.context().device != nullptr;
  int folders = 0;
  for (const auto& folder : model_folders()) {
    const auto expected = io::Safetensors::open(folder / "expected.safetensors");
    if (expected.find(kOfficialLogits) == nullptr) continue;
    ++folders;
    const auto model = load_w8a8(rt, folder, {});
    const std::vector<Request> requests = beginnings(tokens_of(expected, "s0.tokens"));
    std::vector<Result> first;
    for (const int chunk : {1, 7, 64, 512}) {
      for (const Drafts& drafts : kDrafts) {
        if (!possible(drafts, model)) continue;
        Engine engine(rt.context(), model,
                      {.mtp = drafts.mode,
                       .draft_length = drafts.length,
                       .prefill_chunk = chunk,
                       .kept_texts = chunk == 7 ? 0 : 8});
        const auto results = engine.run(requests);
        if (first.empty()) first = results;
        if (on_device) continue;  // it sums by the number of rows
        for (std::size_t i = 0; i < results.size(); ++i) {
          EXPECT_EQ(results[i].tokens(), first[i].tokens()) << folder << " chunk " << chunk;
          EXPECT_EQ(results[i].choices.front().logprobs.front().logprob,
                    first[i].choices.front().logprobs.front().logprob);
        }
      }
    }
    const FirstTokens c = compare_first(requests, first, expected.at(kOfficialLogits).to_floats(),
                                        static_cast<std::size_t>(model.config().vocab_size));
    // A log-probability is a logit less the sum of all: each of the two may be off by the bound.
    EXPECT_LT(c.median(), 2 * 0.05) << folder;
    const double asked = on_device ? 0.5 : 0.9;  // a device sums as in the next test
    EXPECT_GE(static_cast<double>(c.same), asked * static_cast<double>(requests.size()))
        << folder << c.misses;
  }
  EXPECT_GT(folders, 0) << "no fixture with activations in FP8";
}

// The experts that every row of a request's first pass chose, in all layers.
std::vector<std::int32_t> chosen_experts(const Context& ctx, const model::Model& model,
                                         Request request) {
  std::vector<std::int32_t> all;
  request.max_tokens = 1;
  Engine engine(ctx, model,
                {.mtp = MtpMode::kOff,
                 .on_routing = [&](std::int64_t, int, MatView<const std::int32_t> chosen) {
                   for (int r = 0; r < chosen.rows; ++r) {
                     all.insert(all.end(), chosen.row(r), chosen.row(r) + chosen.cols);
                   }
                 }});
  engine.run(request);
  return all;
}

// Hopper's tensor cores keep 13 bits behind the point of the largest product. Summed so, the same
// model keeps to the median, and its best tokens are others only where a router chose other
// experts: on random weights scores are close, so nine of ten cannot be asked of that hardware.
TEST(EngineFixture, SumsAsHopperMakesThemMayChooseOtherExperts) {
  const runtime::Runtime rt(anywhere(2));
  if (rt.context().device != nullptr) GTEST_SKIP() << "the CPU emulates what a device does";
  for (const auto& folder : model_folders()) {
    const auto expected = io::Safetensors::open(folder / "expected.safetensors");
    if (expected.find(kOfficialLogits) == nullptr) continue;
    const auto exact = load_w8a8(rt, folder, {});
    const auto hopper = load_w8a8(rt, folder, {.kind = Accumulator::kHopper});
    const std::vector<Request> requests = beginnings(tokens_of(expected, "s0.tokens"));
    const auto results = Engine(rt.context(), hopper, {}).run(requests);
    const auto before = Engine(rt.context(), exact, {}).run(requests);
    const FirstTokens c = compare_first(requests, results, expected.at(kOfficialLogits).to_floats(),
                                        static_cast<std::size_t>(exact.config().vocab_size));
    EXPECT_LT(c.median(), 2 * 0.05) << folder;
    EXPECT_GE(2 * c.same, requests.size()) << folder << c.misses;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      if (results[i].tokens().front() == before[i].tokens().front()) continue;
      EXPECT_NE(chosen_experts(rt.context(), hopper, requests[i]),
                chosen_experts(rt.context(), exact, requests[i]))
          << folder << " after " << requests[i].prompt.size() << " tokens";
    }
  }
}

// A pool too small for all at once: those that find no page wait or are read again.
TEST(EngineFixture, AFullCacheMakesRequestsWaitAndChangesNothing) {
  const runtime::Runtime rt(anywhere());
  for (const auto& folder : model_folders()) {
    const auto model = load_for(rt, folder, Precision::kF32);
    const Golden golden = load_golden(folder);
    for (const Drafts& drafts : kDrafts) {
      if (!possible(drafts, model)) continue;
      Request request = requests_of(golden).front();
      const int prompt = static_cast<int>(request.prompt.size());
      const int pages = (prompt + kLatentBlock - 1) / kLatentBlock;  // of a prompt
      const int room = pages * kLatentBlock;
      request.max_tokens = room + 10 - prompt;
      if (room + 10 > model.config().max_position_embeddings) continue;
      const auto bytes = [&](int sequences) {
        return model::CachePool::bytes_for(model.config(), LatentFormat::kF32, room, sequences);
      };
      const EngineConfig config{.mtp = drafts.mode, .draft_length = drafts.length};
      EngineConfig small = config;
      small.cache_bytes = bytes(2);
      Engine engine(rt.context(), model, small);
      const std::vector<Request> three(3, request);
      const auto results = engine.run(three);
      const Result want = Engine(rt.context(), model, config).run(request);
      EXPECT_EQ(want.finish(), Finish::kLength);
      for (const Result& result : results) {
        EXPECT_EQ(result.finish(), Finish::kLength) << folder;
        EXPECT_EQ(result.tokens(), want.tokens()) << folder;
      }
      // Room for the prompt alone: the text ends where it is full, with what it has.
      small.cache_bytes = bytes(1);
      const Result alone = Engine(rt.context(), model, small).run(request);
      EXPECT_EQ(alone.finish(), Finish::kCacheFull) << folder;
      EXPECT_EQ(static_cast<int>(alone.tokens().size()) + prompt, room + 1);
      EXPECT_TRUE(std::equal(alone.tokens().begin(), alone.tokens().end(), want.tokens().begin()));
      // Not even for the prompt.
      Request longer = request;
      longer.prompt = random_tokens(room + 1, model.config().vocab_size, 1);
      const Result none = Engine(rt.context(), model, small).run(longer);
      EXPECT_EQ(none.finish(), Finish::kCacheFull);
      EXPECT_TRUE(none.tokens().empty());
    }
  }
}

TEST(EngineFixture, ASecondTurnReusesTheFirst) {
  const runtime::Runtime rt(anywhere());
  for (const auto& folder : model_folders()) {
    const auto model = load_for(rt, folder, Precision::kF32);
    const Golden golden = load_golden(folder);
    for (const Drafts& drafts : kDrafts) {
      if (!possible(drafts, model)) continue;
      const EngineConfig config{.mtp = drafts.mode, .draft_length = drafts.length};
      Engine engine(rt.context(), model, config);
      Request first = requests_of(golden).front();
      const auto& greedy = golden.greedy.front();
      const int prompt = static_cast<int>(first.prompt.size());
      first.max_tokens = 10;
      engine.run(first);
      // The prompt and nine of the new tokens have been read; go on from eight of them.
      Request second = first;
      second.prompt.insert(second.prompt.end(), greedy.begin(), greedy.begin() + 8);
      second.max_tokens = static_cast<int>(greedy.size()) - 8;
      const Result result = engine.run(second);
      EXPECT_EQ(result.tokens(), (std::vector<std::int32_t>(greedy.begin() + 8, greedy.end())));
      EXPECT_EQ(result.timings.reused_tokens, prompt + 7) << folder;
      // Another text shares nothing but what it begins with.
      Request third = second;
      third.prompt = first.prompt;
      third.prompt.back() = first.prompt.back() == 0 ? 1 : 0;
      const Result want = Engine(rt.context(), model, config).run(third);
      const Result got = engine.run(third);
      EXPECT_EQ(got.tokens(), want.tokens()) << folder;
      // The MTP row before the difference has read it, so its token is read again, too.
      EXPECT_GE(got.timings.reused_tokens, prompt - 2);
      EXPECT_EQ(want.timings.reused_tokens, 0);
    }
  }
}

TEST(EngineFixture, StopsAtEosAtTheCallersWishAndAtTheContext) {
  const runtime::Runtime rt(anywhere());
  for (const auto& folder : model_folders()) {
    const auto model = load_for(rt, folder, Precision::kF32);
    const Golden golden = load_golden(folder);
    for (const Drafts& drafts : kDrafts) {
      if (!possible(drafts, model)) continue;
      Engine engine(rt.context(), model, {.mtp = drafts.mode, .draft_length = drafts.length});
      Request request = requests_of(golden).front();
      const auto& greedy = golden.greedy.front();

      request.eos = {greedy[5]};
      const auto first = std::find(greedy.begin(), greedy.end(), greedy[5]) - greedy.begin();
      const Result eos = engine.run(request);
      EXPECT_EQ(eos.tokens(),
                (std::vector<std::int32_t>(greedy.begin(), greedy.begin() + first + 1)));
      EXPECT_EQ(eos.finish(), Finish::kEos);

      request.eos.clear();
      int seen = 0;
      request.on_token = [&seen](const NewToken&) { return ++seen < 3; };
      const Result stopped = engine.run(request);
      EXPECT_EQ(stopped.tokens().size(), 3u);
      EXPECT_EQ(stopped.finish(), Finish::kStopped);

      request.on_token = nullptr;
      request.max_tokens = 0;
      const Result none = engine.run(request);
      EXPECT_TRUE(none.tokens().empty());
      EXPECT_EQ(none.finish(), Finish::kLength);

      const int context = model.config().max_position_embeddings;
      if (context > 5000) continue;  // fixture B's 163840 would take minutes
      request.max_tokens = 4;
      request.prompt = random_tokens(context, model.config().vocab_size, 3);
      const Result full = engine.run(request);
      EXPECT_EQ(full.tokens().size(), 1u);  // from the last row there is
      EXPECT_EQ(full.finish(), Finish::kContext);
    }
  }
}

TEST(EngineFixture, RefusesWhatItCannotRead) {
  const runtime::Runtime rt(anywhere());
  const auto message = [&](Engine& engine, const Request& request) {
    try {
      engine.run(request);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kUsage);
      return std::string(e.what());
    }
    return std::string("nothing was thrown");
  };
  for (const auto& folder : model_folders()) {
    const auto model = load_for(rt, folder, Precision::kF32);
    Engine engine(rt.context(), model);
    Request request;
    EXPECT_NE(message(engine, request).find("no tokens"), std::string::npos);
    request.prompt = {0, model.config().vocab_size};
    EXPECT_NE(message(engine, request).find("token 1 of the prompt"), std::string::npos);
    request.prompt = {-1};
    EXPECT_NE(message(engine, request).find("token 0 of the prompt is -1"), std::string::npos);
    request.prompt.assign(static_cast<std::size_t>(model.config().max_position_embeddings) + 1, 0);
    EXPECT_NE(message(engine, request).find("max_position_embeddings"), std::string::npos);
    request.prompt = {0};
    request.n = 0;
    EXPECT_NE(message(engine, request).find("n is 0"), std::string::npos);
    request.n = 1;
    request.logprobs = kMaxLogprobs + 1;
    EXPECT_NE(message(engine, request).find("logprobs is 21"), std::string::npos);
    request.logprobs = -1;
    request.stop = {"x"};
    EXPECT_NE(message(engine, request).find("tokenizer"), std::string::npos);
    if (!model.has_mtp()) {
      EXPECT_THROW(Engine(rt.context(), model, {.mtp = MtpMode::kOn}), Error);
    }
    EXPECT_THROW(Engine(rt.context(), model, {.prefill_chunk = 0}), Error);
    EXPECT_THROW(Engine(rt.context(), model, {.max_running = 0}), Error);
  }
}

}  // namespace
}  // namespace cachalot::infer
