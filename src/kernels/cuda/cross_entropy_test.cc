#include "kernels/cross_entropy.h"

#include "kernels/cuda/memory_case_test.h"

namespace cachalot::cuda::testing {
namespace {

using CudaCrossEntropyTest = MemoryTest;
using CudaCrossEntropyBench = MemoryTest;

struct Shape {
  int rows, vocab;
};
// One block, clusters of each size, slices larger than 64 KiB, rows that no cluster holds.
constexpr Shape kShapes[] = {{1, 1},      {3, 5},      {4, 1000},  {5, 16384}, {3, 16388},
                             {3, 40000},  {2, 49156},  {2, 65540}, {2, 81928}, {2, 98312},
                             {2, 129280}, {2, 200000}, {1, 460000}};

Mat<float> logits_of(int rows, int vocab) {
  Mat<float> m = random_mat(rows, vocab, 1, 4);
  for (int t = 0; t < rows; ++t) {  // two equal largest, in places that move about
    m.at(t, (t * 7919 + vocab / 2) % vocab) = 21;
    m.at(t, (t * 104729 + vocab - 1) % vocab) = 21;
    if (vocab > 4) m.at(t, vocab / 3) = -INFINITY;
  }
  return m;
}

TEST_F(CudaCrossEntropyTest, IsTheReference) {
  for (const Shape s : kShapes) {
    for (const Layout l : kLayouts) {
      for (const int mode : {0, 1, 2}) {  // loss alone; in place; into bf16
        if (s.vocab > 100000 && (mode == 1) != (l.before == 0)) continue;
        const std::string what = cat("cross_entropy, ", text(l), ", mode ", mode);
        auto logits = twin(logits_of(s.rows, s.vocab), l);
        Mat<std::int32_t> target(1, s.rows);
        for (int t = 0; t < s.rows; ++t) {
          target.data()[t] = t % 4 == 3 ? -1 : (t * 15485863 + s.vocab / 2) % s.vocab;
        }
        auto targets = twin(target);
        auto loss = twin<double>(1, s.rows);
        auto argmax = twin<std::int32_t>(1, s.rows);
        auto gradient = twin<Bf16>(s.rows, s.vocab, l);
        CrossEntropy<float> a{logits.h(), targets.hs(), loss.hs(), argmax.hs(), mode > 0, 0.5F, {}};
        CrossEntropy<float> b{logits.d(), targets.ds(), loss.ds(), argmax.ds(), mode > 0, 0.5F, {}};
        if (mode == 2) a.gradient = gradient.h(), b.gradient = gradient.d();
        cross_entropy_ref(host, a);
        cuda::cross_entropy(ctx, b);
        expect_same(what + " loss", loss, 1e-6, 1e-6);
        expect_same(what + " argmax", argmax);
        expect_same(what + " logits", logits, mode == 1 ? 3e-6 : 0, mode == 1 ? 2e-7 : 0);
        expect_same(what + " gradient", gradient, 0x1p-7, 2e-7);
      }
    }
  }
}

TEST_F(CudaCrossEntropyTest, SlicesOfNothingButMinusInfinity) {
  Mat<float> m(2, 32768);
  std::fill_n(m.data(), m.size(), -INFINITY);
  m.at(0, 3) = 1, m.at(0, 4) = 2, m.at(1, 30000) = -200;
  auto logits = twin(m);
  Mat<std::int32_t> target(1, 2);
  target.data()[0] = 3, target.data()[1] = 30000;
  auto targets = twin(target);
  auto loss = twin<double>(1, 2);
  auto argmax = twin<std::int32_t>(1, 2);
  cross_entropy_ref(
      host, CrossEntropy<float>{logits.h(), targets.hs(), loss.hs(), argmax.hs(), true, 1, {}});
  cuda::cross_entropy(ctx, {logits.d(), targets.ds(), loss.ds(), argmax.ds(), true, 1, {}});
  expect_same("loss", loss, 1e-6, 1e-6);
  expect_same("argmax", argmax);
  expect_same("logits", logits, 3e-6, 2e-7);
}

TEST_F(CudaCrossEntropyBench, TrainingShapes) {
  for (const Shape s : {Shape{4096, 32768}, Shape{4096, 129280}, Shape{8192, 16384}}) {
    auto logits = device_random(s.rows, s.vocab, 4);
    Mat<std::int32_t> target(1, s.rows);
    for (int t = 0; t < s.rows; ++t) target.data()[t] = t * 7 % s.vocab;
    const auto targets = up(target);
    auto loss = device_room<double>(1, s.rows);
    auto argmax = device_room<std::int32_t>(1, s.rows);
    auto gradient = device_room<Bf16>(s.rows, s.vocab);
    const double n = 1.0 * s.rows * s.vocab;
    const std::string shape = cat(" [", s.rows, ", ", s.vocab, "]");
    bench("cross_entropy" + shape + " loss alone", 4 * n, [&] {
      cuda::cross_entropy(
          ctx, {logits.view(), targets.span(), loss.span(), argmax.span(), false, 1, {}});
    });
    bench("cross_entropy" + shape + " to bf16", 6 * n, [&] {
      cuda::cross_entropy(ctx, {logits.view(), targets.span(), loss.span(), argmax.span(), true, 1,
                                gradient.view()});
    });
    bench("cross_entropy" + shape + " in place", 8 * n, [&] {
      cuda::cross_entropy(ctx,
                          {logits.view(), targets.span(), loss.span(), argmax.span(), true, 1, {}});
    });
  }
}

}  // namespace
}  // namespace cachalot::cuda::testing
