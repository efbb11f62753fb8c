#include "kernels/rms_norm.h"

#include "kernels/cuda/memory_case_test.h"

namespace cachalot::cuda::testing {
namespace {

using CudaRmsNormTest = MemoryTest;
using CudaRmsNormBench = MemoryTest;

struct Shape {
  int rows, cols;
};
// Every number of packs per thread, tails, rows too long for registers.
constexpr Shape kShapes[] = {{1, 1},     {3, 4},    {5, 37},   {33, 512}, {9, 1536},
                             {70, 2048}, {5, 4096}, {3, 7168}, {2, 8200}, {2, 16384}};

TEST_F(CudaRmsNormTest, ForwardIsTheReference) {
  for (const Shape s : kShapes) {
    for (const Layout l : kLayouts) {
      const std::string what = "rms_norm, " + text(l);
      auto x = twin(random_mat(s.rows, s.cols, 1), l);
      auto w = twin(random_mat(1, s.cols, 2), l);
      auto y = twin<float>(s.rows, s.cols, l);
      auto rstd = twin<float>(1, s.rows);
      rms_norm_ref(host, RmsNorm<float>{x.h(), w.hs(), 1e-6F, y.h(), rstd.hs()});
      cuda::rms_norm(ctx, {x.d(), w.ds(), 1e-6F, y.d(), rstd.ds()});
      expect_same(what, y, 2e-6);
      expect_same(what + " rstd", rstd, 2e-6);
      // In place, without rstd.
      rms_norm_ref(host, RmsNorm<float>{x.h(), w.hs(), 1e-6F, x.h(), {}});
      cuda::rms_norm(ctx, {x.d(), w.ds(), 1e-6F, x.d(), {}});
      expect_same(what + " in place", x, 2e-6);
    }
  }
}

TEST_F(CudaRmsNormTest, BackwardIsTheReference) {
  for (const Shape s : kShapes) {
    for (const Layout l : kLayouts) {
      for (const int mode : {0, 1, 2, 3}) {  // plain; added; dx is dy; without dweight
        const std::string what = "rms_norm_backward, " + text(l) + " mode " + std::to_string(mode);
        auto x = twin(random_mat(s.rows, s.cols, 1), l);
        auto w = twin(random_mat(1, s.cols, 2), l);
        auto y = twin<float>(s.rows, s.cols, l);
        auto rstd = twin<float>(1, s.rows);
        rms_norm_ref(host, RmsNorm<float>{x.h(), w.hs(), 1e-6F, y.h(), rstd.hs()});
        device_->upload(rstd.device.data(), rstd.host.data(), rstd.host.size() * 4);
        auto dy = twin(random_mat(s.rows, s.cols, 3), l);
        auto dx = twin(random_mat(s.rows, s.cols, 4), l);
        auto dw = twin(random_mat(1, s.cols, 5), l);
        auto& out = mode == 2 ? dy : dx;
        RmsNormBackward<float> a{x.h(), w.hs(), rstd.hs(), dy.h(), out.h(), mode == 1, {}};
        RmsNormBackward<float> b{x.d(), w.ds(), rstd.ds(), dy.d(), out.d(), mode == 1, {}};
        if (mode != 3) a.dweight = dw.hs(), b.dweight = dw.ds();
        rms_norm_backward_ref(host, a);
        cuda::rms_norm_backward(ctx, b);
        expect_same(what + " dx", out, 1e-5, 1e-5);
        expect_same(what + " dweight", dw, 1e-5, 1e-5);
      }
    }
  }
}

TEST_F(CudaRmsNormTest, BackwardRepeatsBitForBit) {
  const auto x = device_random(3000, 1024), dy = device_random(3000, 1024);
  const auto rstd = device_random(1, 3000), w = device_random(1, 1024);
  auto dx = device_room<float>(3000, 1024);
  Mat<float> first;
  for (int i = 0; i < 3; ++i) {
    auto dw = device_random(1, 1024);
    cuda::rms_norm_backward(
        ctx, {x.view(), w.span(), rstd.span(), dy.view(), dx.view(), false, dw.span()});
    auto got = down(dw);
    if (i == 0) {
      first = std::move(got);
    } else {
      EXPECT_EQ(std::memcmp(first.data(), got.data(), got.size() * 4), 0);
    }
  }
}

TEST_F(CudaRmsNormBench, TrainingShapes) {
  for (const Shape s :
       {Shape{32768, 2048}, Shape{32768, 512}, Shape{32768, 1536}, Shape{16384, 7168}}) {
    const auto x = device_random(s.rows, s.cols), w = device_random(1, s.cols);
    auto y = device_room<float>(s.rows, s.cols), rstd = device_random(1, s.rows);
    auto dw = device_random(1, s.cols);
    const double row = 4.0 * s.rows * s.cols;
    const std::string shape = cat(" [", s.rows, ", ", s.cols, "]");
    bench("rms_norm" + shape, 2 * row, [&] {
      cuda::rms_norm(ctx, {x.view(), w.span(), 1e-6F, y.view(), rstd.span()});
    });
    const auto dy = device_random(s.rows, s.cols);
    bench("rms_norm_backward" + shape, 3 * row, [&] {
      cuda::rms_norm_backward(
          ctx, {x.view(), w.span(), rstd.span(), dy.view(), y.view(), false, dw.span()});
    });
    bench("rms_norm_backward added" + shape, 4 * row, [&] {
      cuda::rms_norm_backward(
          ctx, {x.view(), w.span(), rstd.span(), dy.view(), y.view(), true, dw.span()});
    });
  }
}

}  // namespace
}  // namespace cachalot::cuda::testing
