// Greedy continuations against the oracle's, on every model folder, with and without drafts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "infer/evaluate.h"
#include "infer/generator.h"
#include "io/safetensors.h"
#include "runtime/runtime.h"
#include "testing/fixtures.h"

namespace cachalot::infer {
namespace {

using testing::fixture_folders;
using testing::FixtureKind;

std::vector<std::int32_t> tokens_of(const io::Safetensors& file, const std::string& name) {
  const std::vector<std::int64_t> wide = file.at(name).to_ints();
  return {wide.begin(), wide.end()};
}

struct Golden {
  std::vector<std::vector<std::int32_t>> prompts, greedy;
};

Golden load_golden(const std::filesystem::path& folder) {
  const auto file = io::Safetensors::open(folder / "expected.safetensors");
  Golden golden;
  for (int n = 0;; ++n) {
    const std::string prefix = "s" + std::to_string(n) + ".";
    if (file.find(prefix + "greedy") == nullptr) break;
    golden.prompts.push_back(tokens_of(file, prefix + "tokens"));
    golden.greedy.push_back(tokens_of(file, prefix + "greedy"));
  }
  return golden;
}

std::vector<Request> requests_of(const Golden& golden, const SamplerConfig& sampling = {}) {
  std::vector<Request> requests;
  for (std::size_t i = 0; i < golden.prompts.size(); ++i) {
    Request r;
    r.prompt = golden.prompts[i];
    r.sampling = sampling;
    r.stream = i;
    r.max_tokens = static_cast<int>(golden.greedy[i].size());
    requests.push_back(std::move(r));
  }
  return requests;
}

std::vector<std::filesystem::path> model_folders() {
  const auto folders = fixture_folders(FixtureKind::kModel);
  EXPECT_FALSE(folders.empty()) << "no model fixtures below " << testing::fixtures_root();
  return folders;
}

TEST(GeneratorFixture, GreedyIsTheOraclesWithAndWithoutDrafts) {
  const runtime::Runtime rt;
  for (const auto& folder : model_folders()) {
    const auto model = model::Model::load(folder, Precision::kF32);
    const Golden golden = load_golden(folder);
    ASSERT_FALSE(golden.prompts.empty()) << folder;
    for (const MtpMode mtp : {MtpMode::kOff, MtpMode::kAuto}) {
      for (const auto attention : {model::AttentionMode::kAuto, model::AttentionMode::kNaive,
                                   model::AttentionMode::kAbsorbed}) {
        // Short chunks once: they go through the same code in every mode.
        for (const int chunk :
             attention == model::AttentionMode::kAuto ? std::vector{512, 7} : std::vector{512}) {
          Generator generator(rt.context(), model,
                              {.mtp = mtp, .attention = attention, .prefill_chunk = chunk});
          const auto results = generator.run(requests_of(golden));
          for (std::size_t i = 0; i < results.size(); ++i) {
            EXPECT_EQ(results[i].tokens, golden.greedy[i])
                << folder << " sequence " << i << " mtp " << static_cast<int>(mtp) << " attention "
                << static_cast<int>(attention) << " chunk " << chunk;
            EXPECT_EQ(results[i].finish, Finish::kLength);
            EXPECT_EQ(results[i].mtp.enabled, mtp == MtpMode::kAuto && model.has_mtp());
            EXPECT_EQ(results[i].mtp.drafted > 0, results[i].mtp.enabled);
            EXPECT_EQ(results[i].mtp.passes + results[i].mtp.accepted,
                      static_cast<std::int64_t>(golden.greedy[i].size()) - 1);
          }
        }
      }
    }
  }
}

TEST(GeneratorFixture, SamplingDependsNeitherOnDraftsNorOnTheBatchNorOnThreads) {
  for (const auto& folder : model_folders()) {
    const auto model = model::Model::load(folder, Precision::kF32);
    const Golden golden = load_golden(folder);
    const SamplerConfig sampling{
        .temperature = 0.7, .top_p = 0.95, .frequency_penalty = 0.2, .seed = 5};
    std::vector<std::vector<std::int32_t>> want;
    for (const int threads : {1, 2, 3}) {
      const runtime::Runtime rt({.threads = threads, .cpu = {}});
      for (const MtpMode mtp : {MtpMode::kOff, MtpMode::kAuto}) {
        Generator generator(rt.context(), model, {.mtp = mtp});
        const auto requests = requests_of(golden, sampling);
        const auto together = generator.run(requests);
        for (std::size_t i = 0; i < requests.size(); ++i) {
          if (want.size() <= i) want.push_back(together[i].tokens);
          EXPECT_EQ(together[i].tokens, want[i]) << folder << " threads " << threads;
          const auto alone = generator.run({&requests[i], 1});
          EXPECT_EQ(alone.front().tokens, want[i]) << folder << " alone";
        }
      }
    }
  }
}

// The same tokens however the prompt was cut, in every precision and cache format.
TEST(GeneratorFixture, ChunksDraftsAndSharedPrefixesChangeNothing) {
  const runtime::Runtime rt;
  for (const auto& folder : model_folders()) {
    const Golden golden = load_golden(folder);
    for (const LatentFormat format : {LatentFormat::kBF16, LatentFormat::kFp8}) {
      const auto model = model::Model::load(folder, Precision::kBF16);
      const auto requests = requests_of(golden, {.temperature = 0.8, .seed = 3});
      std::vector<Result> want;
      for (const int chunk : {1, 7, 64, 512}) {
        for (const MtpMode mtp : {MtpMode::kOff, MtpMode::kAuto}) {
          Generator generator(rt.context(), model,
                              {.mtp = mtp, .prefill_chunk = chunk, .cache = format});
          const auto results = generator.run(requests);
          if (want.empty()) want = results;
          for (std::size_t i = 0; i < results.size(); ++i) {
            EXPECT_EQ(results[i].tokens, want[i].tokens) << folder << " chunk " << chunk;
          }
          // All of them again from one sequence that has read the first prompt.
          Sequence root(generator.pool());
          Request first = requests.front();
          first.max_tokens = 3;
          generator.run(first, root);
          const int shared = static_cast<int>(requests.front().prompt.size());
          std::vector<Sequence> forks;
          for (int n = 0; n < 3; ++n) forks.push_back(root.fork(shared - n));
          std::vector<Sequence*> pointers;
          for (Sequence& fork : forks) pointers.push_back(&fork);
          const std::vector<Request> same(forks.size(), requests.front());
          for (const Result& result : generator.run(same, pointers)) {
            EXPECT_EQ(result.tokens, want.front().tokens) << folder << " chunk " << chunk;
            EXPECT_GE(result.timings.reused_tokens, shared - 4);
          }
        }
      }
    }
  }
}

// A pool too small for all: those that find no page end, the others do not notice.
TEST(GeneratorFixture, AFullCacheEndsARequest) {
  const runtime::Runtime rt;
  for (const auto& folder : model_folders()) {
    const auto model = model::Model::load(folder, Precision::kF32);
    const Golden golden = load_golden(folder);
    for (const MtpMode mtp : {MtpMode::kOff, MtpMode::kAuto}) {
      Request request = requests_of(golden).front();
      const int prompt = static_cast<int>(request.prompt.size());
      const int pages = (prompt + kLatentBlock - 1) / kLatentBlock;  // of a prompt
      const int room = pages * kLatentBlock;
      request.max_tokens = room + 10 - prompt;
      if (room + 10 > model.config().max_position_embeddings) continue;
      const std::size_t bytes =
          model::CachePool::bytes_for(model.config(), LatentFormat::kF32, room, 2);
      Generator generator(rt.context(), model, {.mtp = mtp, .cache_bytes = bytes});
      const std::vector<Request> three(3, request);
      const auto results = generator.run(three);
      EXPECT_EQ(results[2].finish, Finish::kCacheFull);  // not even its prompt
      EXPECT_TRUE(results[2].tokens.empty());
      for (std::size_t i = 0; i < 2; ++i) {  // both need one more page
        EXPECT_EQ(results[i].finish, Finish::kCacheFull);
        EXPECT_EQ(static_cast<int>(results[i].tokens.size()) + prompt, room + 1);
      }
      EXPECT_EQ(results[0].tokens, results[1].tokens);
      EXPECT_EQ(generator.pool().free_pages(), 2 * pages);
      const Result alone = generator.run({&request, 1}).front();
      EXPECT_EQ(alone.finish, Finish::kLength);
      EXPECT_TRUE(
          std::equal(results[0].tokens.begin(), results[0].tokens.end(), alone.tokens.begin()));
    }
  }
}

TEST(GeneratorFixture, ASecondTurnReusesTheFirst) {
  const runtime::Runtime rt;
  for (const auto& folder : model_folders()) {
    const auto model = model::Model::load(folder, Precision::kF32);
    const Golden golden = load_golden(folder);
    for (const MtpMode mtp : {MtpMode::kOff, MtpMode::kAuto}) {
      Generator generator(rt.context(), model, {.mtp = mtp});
      Request first = requests_of(golden).front();
      const auto& greedy = golden.greedy.front();
      const int prompt = static_cast<int>(first.prompt.size());
      Sequence sequence(generator.pool());
      first.max_tokens = 10;
      generator.run(first, sequence);
      // The prompt and nine of the new tokens have been read; go on from eight of them.
      Request second = first;
      second.prompt.insert(second.prompt.end(), greedy.begin(), greedy.begin() + 8);
      second.max_tokens = static_cast<int>(greedy.size()) - 8;
      const Result result = generator.run(second, sequence);
      EXPECT_EQ(result.tokens, (std::vector<std::int32_t>(greedy.begin() + 8, greedy.end())));
      EXPECT_EQ(result.timings.reused_tokens, prompt + 7) << folder;
      // Another text shares nothing but what it begins with.
      Request third = second;
      third.prompt = first.prompt;
      third.prompt.back() = first.prompt.back() == 0 ? 1 : 0;
      Sequence fresh(generator.pool());
      const Result want = generator.run(third, fresh);
      const Result got = generator.run(third, sequence);
      EXPECT_EQ(got.tokens, want.tokens) << folder;
      EXPECT_EQ(got.timings.reused_tokens, prompt - 2);
      EXPECT_EQ(want.timings.reused_tokens, 0);
    }
  }
}

TEST(GeneratorFixture, StopsAtEosAtTheCallersWishAndAtTheContext) {
  const runtime::Runtime rt;
  for (const auto& folder : model_folders()) {
    const auto model = model::Model::load(folder, Precision::kF32);
    const Golden golden = load_golden(folder);
    for (const MtpMode mtp : {MtpMode::kOff, MtpMode::kAuto}) {
      Generator generator(rt.context(), model, {.mtp = mtp});
      Request request = requests_of(golden).front();
      const auto& greedy = golden.greedy.front();

      request.eos = {greedy[5]};
      const auto first = std::find(greedy.begin(), greedy.end(), greedy[5]) - greedy.begin();
      const Result eos = generator.run({&request, 1}).front();
      EXPECT_EQ(eos.tokens,
                (std::vector<std::int32_t>(greedy.begin(), greedy.begin() + first + 1)));
      EXPECT_EQ(eos.finish, Finish::kEos);

      request.eos.clear();
      int seen = 0;
      request.on_token = [&seen](std::int32_t) { return ++seen < 3; };
      const Result stopped = generator.run({&request, 1}).front();
      EXPECT_EQ(stopped.tokens.size(), 3u);
      EXPECT_EQ(stopped.finish, Finish::kStopped);

      request.on_token = nullptr;
      request.max_tokens = 0;
      EXPECT_TRUE(generator.run({&request, 1}).front().tokens.empty());
    }
  }
}

TEST(GeneratorFixture, RefusesWhatItCannotRead) {
  const runtime::Runtime rt;
  const auto message = [&](Generator& generator, const Request& request) {
    try {
      generator.run({&request, 1});
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kUsage);
      return std::string(e.what());
    }
    return std::string("nothing was thrown");
  };
  for (const auto& folder : model_folders()) {
    const auto model = model::Model::load(folder, Precision::kF32);
    Generator generator(rt.context(), model);
    Request request;
    EXPECT_NE(message(generator, request).find("no tokens"), std::string::npos);
    request.prompt = {0, model.config().vocab_size};
    EXPECT_NE(message(generator, request).find("token 1 of the prompt"), std::string::npos);
    request.prompt = {-1};
    EXPECT_NE(message(generator, request).find("token 0 of the prompt is -1"), std::string::npos);
    request.prompt.assign(static_cast<std::size_t>(model.config().max_position_embeddings) + 1, 0);
    EXPECT_NE(message(generator, request).find("max_position_embeddings"), std::string::npos);
    if (!model.has_mtp()) {
      EXPECT_THROW(Generator(rt.context(), model, {.mtp = MtpMode::kOn}), Error);
    }
  }
}

TEST(EvaluateFixture, AgreesWithTheOraclesLogits) {
  const runtime::Runtime rt;
  for (const auto& folder : model_folders()) {
    const auto model = model::Model::load(folder, Precision::kF32);
    const auto file = io::Safetensors::open(folder / "expected.safetensors");
    const std::vector<std::int32_t> tokens = tokens_of(file, "s0.tokens");
    const int vocab = model.config().vocab_size;
    const auto logits = file.at("s0.logits").to_floats();
    const auto best = [&](const std::vector<float>& from, std::size_t row) {
      const auto begin = from.begin() + static_cast<std::ptrdiff_t>(row) * vocab;
      return std::max_element(begin, begin + vocab) - begin;
    };
    double nats = 0;
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      const float* row = logits.data() + i * static_cast<std::size_t>(vocab);
      double sum = 0;
      for (int v = 0; v < vocab; ++v) sum += std::exp(static_cast<double>(row[v]));
      nats += std::log(sum) - static_cast<double>(row[tokens[i + 1]]);
    }
    const Evaluation whole = evaluate(rt.context(), model, tokens, {});
    EXPECT_EQ(whole.tokens, static_cast<std::int64_t>(tokens.size()) - 1);
    EXPECT_NEAR(whole.nats, nats, 2e-3 * static_cast<double>(whole.tokens)) << folder;
    if (model.has_mtp()) {
      const auto mtp = file.at("s0.mtp.logits").to_floats();
      std::int64_t accepted = 0;
      for (std::size_t i = 0; i + 2 < tokens.size(); ++i) {
        accepted += best(mtp, i) == best(logits, i + 1) ? 1 : 0;
      }
      EXPECT_EQ(whole.drafts, static_cast<std::int64_t>(tokens.size()) - 2);
      EXPECT_EQ(whole.accepted, accepted);
    }
    // Windows: every token is scored once, whatever the context.
    for (const int context : {2, 3, 5, 16, 1000}) {
      const Evaluation cut = evaluate(rt.context(), model, tokens, {.context = context});
      EXPECT_EQ(cut.tokens, whole.tokens) << context;
      if (context == 1000) {
        EXPECT_DOUBLE_EQ(cut.nats, whole.nats);
      }
    }
  }
}

}  // namespace
}  // namespace cachalot::infer
