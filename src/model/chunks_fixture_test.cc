// A row's bits do not depend on how its sequence was cut into chunks, on other sequences of the
// batch, on the pages it lies in, on a prefix that another sequence computed, or on threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "io/safetensors.h"
#include "kernels/cpu/levels.h"
#include "model/forward.h"
#include "runtime/runtime.h"
#include "testing/fixtures.h"

namespace cachalot::model {
namespace {

namespace fs = std::filesystem;
using Tokens = std::vector<std::int32_t>;

struct Kind {
  Precision precision;
  LatentFormat format;
  AttentionMode mode;
};
constexpr Kind kKinds[] = {
    {Precision::kF32, LatentFormat::kF32, AttentionMode::kAbsorbed},
    {Precision::kF32, LatentFormat::kF32, AttentionMode::kNaive},
    {Precision::kBF16, LatentFormat::kBF16, AttentionMode::kAbsorbed},
    {Precision::kBF16, LatentFormat::kBF16, AttentionMode::kNaive},
    {Precision::kBF16, LatentFormat::kFp8, AttentionMode::kAbsorbed},
};

// Long enough for several pages: the folder's tokens again and again.
std::vector<Tokens> prompts_of(const fs::path& folder) {
  const auto file = io::Safetensors::open(folder / "expected.safetensors");
  std::vector<Tokens> prompts;
  for (int n = 0; file.find("s" + std::to_string(n) + ".tokens") != nullptr; ++n) {
    const auto ints = file.at("s" + std::to_string(n) + ".tokens").to_ints();
    Tokens tokens;
    const std::size_t length = n == 0 ? 150 : ints.size();
    for (std::size_t i = 0; i < length; ++i) {
      tokens.push_back(static_cast<std::int32_t>(ints[i % ints.size()]));
    }
    prompts.push_back(std::move(tokens));
  }
  return prompts;
}

class Passes {
 public:
  Passes(const Context& ctx, const Model& model, const Kind& kind)
      : pool_(model.config(), kind.format,
              CachePool::bytes_for(model.config(), kind.format, 192, 12)),
        forward_(ctx, model, kind.mode) {}

  CachePool& pool() { return pool_; }

  Mat<float> logits(std::span<const Chunk> chunks) {
    const MatView<const float> rows = forward_.run(chunks);
    Mat<float> out(rows.rows, forward_.model().config().vocab_size);
    forward_.logits(rows, out.view());
    return out;
  }
  // Tokens [from, end) of a prompt in chunks of `size`; rows of logits of those.
  Mat<float> in_chunks(LatentCache& cache, const Tokens& prompt, int size) {
    const int from = cache.length(), end = static_cast<int>(prompt.size());
    Mat<float> all(end - from, forward_.model().config().vocab_size);
    for (int at = from; at < end; at += size) {
      const int n = std::min(size, end - at);
      const Chunk piece{{prompt.data() + at, static_cast<std::size_t>(n)}, &cache};
      const Mat<float> rows = logits({&piece, 1});
      std::copy_n(rows.data(), rows.size(), all.row(at - from));
    }
    return all;
  }

 private:
  CachePool pool_;
  Forward forward_;
};

void expect_rows(const Mat<float>& got, const Mat<float>& want, int from, const std::string& what) {
  ASSERT_EQ(got.rows() + from, want.rows()) << what;
  for (int i = 0; i < got.rows(); ++i) {
    EXPECT_TRUE(std::equal(got.row(i), got.row(i) + got.cols(), want.row(from + i)))
        << what << ", row " << from + i;
  }
}

void check(const Context& ctx, const Model& model, const Kind& kind,
           const std::vector<Tokens>& prompts, const std::vector<Mat<float>>& alone,
           const std::string& what) {
  Passes passes(ctx, model, kind);
  for (const int size : {512, 64, 7, 1}) {
    // Rebuilding all keys for every token is what nobody does.
    if (kind.mode == AttentionMode::kNaive && size == 1) continue;
    LatentCache cache(passes.pool());
    expect_rows(passes.in_chunks(cache, prompts[0], size), alone[0], 0,
                cat(what, ", chunks of ", size));
  }
  // On the pages of another sequence, which goes on meanwhile in its own way.
  LatentCache first(passes.pool());
  passes.in_chunks(first, prompts[0], 64);
  for (const int shared : {1, 64, 100, 149}) {
    LatentCache fork = first.fork(shared);
    expect_rows(passes.in_chunks(fork, prompts[0], 50), alone[0], shared,
                cat(what, ", after a prefix of ", shared));
    first.truncate(shared);
    Tokens other(prompts[0].begin(), prompts[0].begin() + shared);
    other.resize(150, 3);
    passes.in_chunks(first, other, 50);
    first.truncate(shared);
    expect_rows(passes.in_chunks(first, prompts[0], 150), alone[0], shared,
                cat(what, ", after other tokens from ", shared));
  }
  std::vector<LatentCache> caches;
  for (std::size_t i = 0; i < prompts.size(); ++i) caches.emplace_back(passes.pool());
  std::vector<Chunk> chunks;
  for (std::size_t i = 0; i < prompts.size(); ++i) chunks.push_back({prompts[i], &caches[i]});
  const Mat<float> together = passes.logits(chunks);
  int row = 0;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    Mat<float> part(alone[i].rows(), together.cols());
    std::copy_n(together.row(row), part.size(), part.data());
    expect_rows(part, alone[i], 0, cat(what, ", in a batch, sequence ", i));
    row += part.rows();
  }
}

class ChunksFixture : public ::testing::TestWithParam<cpu::Level> {};

TEST_P(ChunksFixture, BitsDependOnTheSequenceAlone) {
  const std::string level(cpu::name(GetParam()));
  for (const fs::path& folder : testing::fixture_folders(testing::FixtureKind::kModel)) {
    const std::vector<Tokens> prompts = prompts_of(folder);
    for (const Kind& kind : kKinds) {
      const Model model = Model::load(folder, kind.precision);
      if (model.config().max_position_embeddings < 150) continue;
      std::vector<Mat<float>> alone;
      {
        const runtime::Runtime one({1, level});
        Passes passes(one.context(), model, kind);
        for (const Tokens& prompt : prompts) {
          LatentCache cache(passes.pool());
          alone.push_back(passes.in_chunks(cache, prompt, 512));
        }
      }
      // The definitions are slow and know nothing of threads.
      for (const int threads :
           GetParam() == cpu::Level::kRef ? std::vector{2} : std::vector{1, 3}) {
        const runtime::Runtime runtime({threads, level});
        check(runtime.context(), model, kind, prompts, alone,
              cat(folder.filename().string(), " ", name(kind.format), " cache, mode ",
                  static_cast<int>(kind.mode), ", ", threads, " threads"));
      }
    }
  }
}

TEST(ContextFixture, PositionsPastTheModelsAreRefusedAndChangeNothing) {
  const runtime::Runtime runtime({1, ""});
  for (const fs::path& folder : testing::fixture_folders(testing::FixtureKind::kModel)) {
    const Model model = Model::load(folder, Precision::kF32);
    const Config& c = model.config();
    CachePool pool(c, LatentFormat::kF32,
                   CachePool::bytes_for(c, LatentFormat::kF32, c.max_position_embeddings + 1));
    Forward forward(runtime.context(), model);
    LatentCache cache(pool);
    const Tokens few(3, 1), many(static_cast<std::size_t>(c.max_position_embeddings) - 2, 1);
    const Chunk begin{few, &cache}, rest{many, &cache};
    forward.run({&begin, 1});
    try {
      forward.run({&rest, 1});
      ADD_FAILURE() << folder;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kUsage);
      const std::string text = e.what();
      EXPECT_NE(text.find(cat("position ", c.max_position_embeddings, " is past the model's")),
                std::string::npos)
          << text;
      EXPECT_NE(text.find("max_position_embeddings"), std::string::npos);
    }
    EXPECT_EQ(cache.length(), 3);
    EXPECT_EQ(cache.pages(), 1);
  }
}

INSTANTIATE_TEST_SUITE_P(EveryLevel, ChunksFixture, ::testing::ValuesIn(cpu::supported_levels()),
                         [](const auto& info) { return std::string(cpu::name(info.param)); });

}  // namespace
}  // namespace cachalot::model
