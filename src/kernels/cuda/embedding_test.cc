#include <numeric>

#include "kernels/cuda/memory_case_test.h"
#include "kernels/elementwise.h"

namespace cachalot::cuda::testing {
namespace {

using CudaEmbeddingTest = MemoryTest;
using CudaEmbeddingBench = MemoryTest;

// Frequent small numbers, as token ids are.
Mat<std::int32_t> skewed(int n, int buckets, std::uint64_t seed) {
  Mat<std::int32_t> ids(1, n);
  const Rng rng(seed, 1);
  for (int i = 0; i < n; ++i) {
    const double u = rng.uniform(static_cast<std::uint64_t>(i));
    ids.data()[i] = std::min(buckets - 1, static_cast<int>(std::pow(buckets + 1.0, u)) - 1);
  }
  return ids;
}

struct Shape {
  int tokens, vocab, cols;
};
constexpr Shape kShapes[] = {{1, 1, 4},         {5, 3, 7},      {100, 10, 130}, {3000, 500, 64},
                             {1000, 5, 256},    {96, 1, 40},    {97, 2, 33},    {1025, 600, 33},
                             {2500, 129280, 8}, {40, 300000, 4}};

TEST_F(CudaEmbeddingTest, RowsAreTheReferences) {
  for (const Shape s : kShapes) {
    for (const Layout l : kLayouts) {
      auto table = twin(random_mat(s.vocab, s.cols, 1), l);
      auto table16 = twin(to_bf16(random_mat(s.vocab, s.cols, 2)), l);
      auto ids = twin(skewed(s.tokens, s.vocab, 3));
      auto out = twin<float>(s.tokens, s.cols, l);
      embedding_ref(host, {MatRef(table.h()), ids.hs(), out.h()});
      cuda::embedding(ctx, {MatRef(table.d()), ids.ds(), out.d()});
      expect_same("embedding, " + text(l), out);
      embedding_ref(host, {MatRef(table16.h()), ids.hs(), out.h()});
      cuda::embedding(ctx, {MatRef(table16.d()), ids.ds(), out.d()});
      expect_same("embedding of bf16, " + text(l), out);
    }
  }
}

// The same order of the same sums: the same bits.
TEST_F(CudaEmbeddingTest, GradientsAreTheReferencesBits) {
  for (const Shape s : kShapes) {
    for (const Layout l : kLayouts) {
      auto ids = twin(skewed(s.tokens, s.vocab, 3));
      auto dout = twin(random_mat(s.tokens, s.cols, 1), l);
      auto dtable = twin(random_mat(s.vocab, s.cols, 2), l);
      embedding_backward_ref(host, EmbeddingBackward<float>{ids.hs(), dout.h(), dtable.h()});
      cuda::embedding_backward(ctx, {ids.ds(), dout.d(), dtable.d()});
      expect_same(cat("embedding_backward of ", s.tokens, ", ", text(l)), dtable);
    }
  }
}

TEST_F(CudaEmbeddingBench, TrainingShapes) {
  for (const int vocab : {32768, 129280}) {
    const int tokens = 32768, cols = 2048;
    const auto table = device_random(vocab, cols), dout = device_random(tokens, cols);
    auto out = device_room<float>(tokens, cols);
    const auto ids = up(skewed(tokens, vocab, 3));
    const double bytes = 4.0 * tokens * cols;
    const std::string shape = cat(" [", tokens, " of ", vocab, ", ", cols, "]");
    bench("embedding" + shape, 2 * bytes, [&] {
      cuda::embedding(ctx, {MatRef(table.view()), ids.span(), out.view()});
    });
    auto dtable = device_random(vocab, cols);
    const Mat<std::int32_t> on_host = down(ids);
    std::vector<std::int32_t> sorted(on_host.data(), on_host.data() + tokens);
    std::sort(sorted.begin(), sorted.end());
    const auto used = std::unique(sorted.begin(), sorted.end()) - sorted.begin();
    bench("embedding_backward" + shape, bytes + 8.0 * static_cast<double>(used) * cols, [&] {
      cuda::embedding_backward(ctx, {ids.span(), dout.view(), dtable.view()});
    });
  }
}

}  // namespace
}  // namespace cachalot::cuda::testing
