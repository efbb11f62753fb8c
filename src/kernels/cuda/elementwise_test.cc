#include "kernels/elementwise.h"

#include "kernels/bf16_ops.h"
#include "kernels/cuda/memory_case_test.h"
#include "kernels/dropout.h"
#include "kernels/rope.h"
#include "kernels/saved.h"

namespace cachalot::cuda::testing {
namespace {

using CudaRopeTest = MemoryTest;
using CudaSwigluTest = MemoryTest;
using CudaDropoutTest = MemoryTest;
using CudaRowsTest = MemoryTest;
using CudaElementwiseBench = MemoryTest;

constexpr double kBf16Step = 0x1p-7;  // two neighbours of bf16 are at most this far apart

struct Heads {
  int rows, heads, stride, offset, pairs;
};

TEST_F(CudaRopeTest, IsTheReference) {
  for (const Heads s : {Heads{1, 1, 64, 0, 32}, Heads{37, 16, 192, 128, 32}, Heads{5, 3, 11, 1, 3},
                        Heads{4, 2, 48, 16, 8}, Heads{3, 2, 24, 8, 6}}) {
    for (const Layout l : kLayouts) {
      for (const bool inverse : {false, true}) {
        const std::string what = cat("rope ", s.heads, " x ", s.stride, ", ", text(l));
        auto x = twin(random_mat(s.rows, s.heads * s.stride, 1), l);
        auto cos = twin(random_mat(s.rows, s.pairs, 2), l);
        auto sin = twin(random_mat(s.rows, s.pairs, 3), l);
        auto out = twin<Bf16>(s.rows, s.heads * s.stride, l);
        rope_bf16_ref(host,
                      {x.h(), s.heads, s.stride, s.offset, cos.h(), sin.h(), out.h(), inverse});
        cuda::rope_bf16(ctx,
                        {x.d(), s.heads, s.stride, s.offset, cos.d(), sin.d(), out.d(), inverse});
        expect_same(what + " bf16", out, kBf16Step, 1e-6);
        auto turned = twin(to_bf16(random_mat(s.rows, s.heads * s.stride, 1)), l);
        Mat<float> values(s.rows, s.heads * s.stride);
        load_bf16_ref(host, turned.h(), values.view());
        rope_bf16_ref(host, {values.cview(), s.heads, s.stride, s.offset, cos.h(), sin.h(),
                             turned.h(), inverse});
        const MatView<const float> in_place{nullptr, values.rows(), values.cols(), values.cols()};
        cuda::rope_bf16(
            ctx, {in_place, s.heads, s.stride, s.offset, cos.d(), sin.d(), turned.d(), inverse});
        expect_same(what + " bf16 in place", turned, kBf16Step, 1e-6);
        rope_ref(host, Rope<float>{x.h(), s.heads, s.stride, s.offset, cos.h(), sin.h(), inverse});
        cuda::rope(ctx, {x.d(), s.heads, s.stride, s.offset, cos.d(), sin.d(), inverse});
        expect_same(what, x, 1e-6, 1e-6);
      }
    }
  }
}

struct Shape {
  int rows, cols;
};
constexpr Shape kShapes[] = {{1, 1}, {3, 8}, {7, 37}, {40, 1408}, {5, 2560}, {300, 24}};

TEST_F(CudaSwigluTest, IsTheReference) {
  for (const Shape s : kShapes) {
    for (const Layout l : kLayouts) {
      auto gate = twin(random_mat(s.rows, s.cols, 1, 4), l);
      auto up_ = twin(random_mat(s.rows, s.cols, 2), l);
      auto out = twin<float>(s.rows, s.cols, l);
      swiglu_ref(host, Swiglu<float>{gate.h(), up_.h(), out.h()});
      cuda::swiglu(ctx, {gate.d(), up_.d(), out.d()});
      expect_same("swiglu, " + text(l), out, 2e-6, 1e-30);
      auto gate16 = twin(to_bf16(random_mat(s.rows, s.cols, 1, 4)), l);
      auto up16 = twin(to_bf16(random_mat(s.rows, s.cols, 2)), l);
      auto out16 = twin<Bf16>(s.rows, s.cols, l);
      swiglu_bf16_ref(host, {gate16.h(), up16.h(), out16.h()});
      cuda::swiglu_bf16(ctx, {gate16.d(), up16.d(), out16.d()});
      expect_same("swiglu_bf16, " + text(l), out16, kBf16Step, 1e-30);
    }
  }
}

TEST_F(CudaSwigluTest, ExtremesStayNumbers) {
  Mat<float> g(1, 8);
  const float values[8] = {0, -0.0F, 100, -100, 1e4F, -1e4F, 88.5F, -88.5F};
  std::copy_n(values, 8, g.data());
  auto gate = twin(g);
  auto up_ = twin(random_mat(1, 8, 2));
  auto out = twin<float>(1, 8);
  swiglu_ref(host, Swiglu<float>{gate.h(), up_.h(), out.h()});
  cuda::swiglu(ctx, {gate.d(), up_.d(), out.d()});
  expect_same("swiglu at extremes", out, 2e-6, 1e-36);
  auto gate16 = twin(to_bf16(g));
  auto up16 = twin(to_bf16(random_mat(1, 8, 2)));
  auto out16 = twin<Bf16>(1, 8);
  swiglu_bf16_ref(host, {gate16.h(), up16.h(), out16.h()});
  cuda::swiglu_bf16(ctx, {gate16.d(), up16.d(), out16.d()});
  expect_same("swiglu_bf16 at extremes", out16, kBf16Step, 1e-35);
}

TEST_F(CudaSwigluTest, BackwardIsTheReference) {
  for (const Shape s : kShapes) {
    for (const Layout l : kLayouts) {
      for (const bool weighted : {true, false}) {
        const std::string what = cat("swiglu_backward ", weighted ? "weighted, " : "", text(l));
        auto gate = twin(random_mat(s.rows, s.cols, 1, 3), l);
        auto up_ = twin(random_mat(s.rows, s.cols, 2), l);
        auto dout = twin(random_mat(s.rows, s.cols, 3), l);
        auto weight = twin(random_mat(1, s.rows, 4));
        auto dweight = twin<float>(1, s.rows);
        auto hidden = twin<float>(s.rows, s.cols, l);
        // Into gate and up themselves.
        SwigluBackward<float> a{gate.h(), up_.h(), dout.h(), gate.h(), up_.h(), {}, {}, {}};
        SwigluBackward<float> b{gate.d(), up_.d(), dout.d(), gate.d(), up_.d(), {}, {}, {}};
        if (weighted) {
          a.weight = weight.hs(), a.dweight = dweight.hs(), a.hidden = hidden.h();
          b.weight = weight.ds(), b.dweight = dweight.ds(), b.hidden = hidden.d();
        }
        swiglu_backward_ref(host, a);
        cuda::swiglu_backward(ctx, b);
        expect_same(what + " dgate", gate, 1e-5, 1e-6);
        expect_same(what + " dup", up_, 1e-5, 1e-6);
        expect_same(what + " hidden", hidden, 1e-5, 1e-6);
        expect_same(what + " dweight", dweight, 1e-5, 1e-4);

        auto gate16 = twin(to_bf16(random_mat(s.rows, s.cols, 1, 3)), l);
        auto up16 = twin(to_bf16(random_mat(s.rows, s.cols, 2)), l);
        auto dout16 = twin(to_bf16(random_mat(s.rows, s.cols, 3)), l);
        auto dg = twin<Bf16>(s.rows, s.cols, l), du = twin<Bf16>(s.rows, s.cols, l);
        auto h = twin<Bf16>(s.rows, s.cols, l);
        auto dw = twin<float>(1, s.rows);
        SwigluBackwardBf16 c{gate16.h(), up16.h(), dout16.h(), dg.h(), du.h(), h.h(), {}, {}};
        SwigluBackwardBf16 d{gate16.d(), up16.d(), dout16.d(), dg.d(), du.d(), h.d(), {}, {}};
        if (weighted) {
          c.weight = weight.hs(), c.dweight = dw.hs();
          d.weight = weight.ds(), d.dweight = dw.ds();
        }
        swiglu_backward_bf16_ref(host, c);
        cuda::swiglu_backward_bf16(ctx, d);
        // silu' has a zero: near it the terms cancel, so the bound is that of the terms.
        expect_same(what + " dgate bf16", dg, kBf16Step, 1e-5);
        expect_same(what + " dup bf16", du, kBf16Step, 1e-6);
        expect_same(what + " hidden bf16", h, kBf16Step, 1e-6);
        expect_same(what + " dweight bf16", dw, 1e-5, 1e-4);
      }
    }
  }
}

TEST_F(CudaDropoutTest, BitsAreTheReferences) {
  for (const Shape s :
       {Shape{1, 1}, Shape{5, 31}, Shape{9, 129}, Shape{17, 2048}, Shape{3, 1000}}) {
    for (const Layout l : kLayouts) {
      for (const bool accumulate : {false, true}) {
        const DropoutMask mask{0.1, 0x123456789ABCDEFULL, 0xFEDCBA9876543210ULL, 1LL << 33};
        auto x = twin(random_mat(s.rows, s.cols, 1), l);
        auto y = twin(random_mat(s.rows, s.cols, 2), l);
        dropout_ref(host, Dropout<float>{mask, x.h(), y.h(), accumulate});
        cuda::dropout(ctx, {mask, x.d(), y.d(), accumulate});
        expect_same("dropout, " + text(l), y);
        dropout_ref(host, Dropout<float>{mask, x.h(), x.h(), accumulate});
        cuda::dropout(ctx, {mask, x.d(), x.d(), accumulate});
        expect_same("dropout in place, " + text(l), x);
      }
    }
  }
}

TEST_F(CudaRowsTest, CopiesAndZeroes) {
  for (const Shape s : kShapes) {
    for (const Layout from : kLayouts) {
      for (const Layout to : kLayouts) {
        auto x = twin(random_mat(s.rows, s.cols, 1), from);
        auto y = twin<float>(s.rows, s.cols, to);
        copy_rows_ref(host, x.h(), y.h());
        cuda::copy_rows(ctx, x.d(), y.d());
        expect_same(cat("copy_rows, ", text(from), " to ", text(to)), y);
        zero_rows_ref(host, y.h());
        cuda::zero_rows(ctx, y.d());
        expect_same("zero_rows, " + text(to), y);
      }
    }
  }
  cuda::copy_rows(ctx, {}, {});
  cuda::zero_rows(ctx, {});
}

TEST_F(CudaRowsTest, SumOfSquares) {
  EXPECT_EQ(cuda::sum_squares(ctx, {}), 0);
  for (const int n : {1, 3, 4, 1000, 32768, 32769, 1000003}) {
    for (const int skip : {0, 1}) {
      auto x = twin(random_mat(1, n, 1), {skip, 0});
      const double want = sum_squares_ref<float>(host, x.hs());
      const double got = cuda::sum_squares(ctx, x.ds());
      EXPECT_NEAR(got, want, 1e-13 * want) << n << " from " << skip;
      EXPECT_EQ(got, cuda::sum_squares(ctx, x.ds())) << n << ": not the same again";
    }
  }
}

TEST_F(CudaElementwiseBench, TrainingShapes) {
  {
    auto x = device_random(32768, 16 * 192);
    const auto cos = device_random(32768, 32), sin = device_random(32768, 32);
    auto out = device_room<Bf16>(32768, 16 * 192);
    bench("rope [32768, 16 x 192], 64 of each", 2.0 * 4 * 32768 * 16 * 64 + 2.0 * 4 * 32768 * 32,
          [&] {
            cuda::rope(ctx, {x.view(), 16, 192, 128, cos.view(), sin.view(), false});
          });
    bench("rope_bf16 [32768, 16 x 192]", 6.0 * 32768 * 16 * 192 + 2.0 * 4 * 32768 * 32, [&] {
      cuda::rope_bf16(ctx, {x.view(), 16, 192, 128, cos.view(), sin.view(), out.view(), false});
    });
  }
  for (const Shape s : {Shape{196608, 1408}, Shape{32768, 10944}}) {
    const double n = 1.0 * s.rows * s.cols;
    const std::string shape = cat(" [", s.rows, ", ", s.cols, "]");
    const auto gate = device_random_bf16(s.rows, s.cols), up_ = device_random_bf16(s.rows, s.cols);
    const auto dout = device_random_bf16(s.rows, s.cols);
    auto out = device_room<Bf16>(s.rows, s.cols), dg = device_room<Bf16>(s.rows, s.cols),
         du = device_room<Bf16>(s.rows, s.cols);
    const auto weight = device_random(1, s.rows);
    auto dweight = device_room<float>(1, s.rows);
    bench("swiglu_bf16" + shape, 6 * n, [&] {
      cuda::swiglu_bf16(ctx, {gate.view(), up_.view(), out.view()});
    });
    bench("swiglu_backward_bf16" + shape, 12 * n, [&] {
      cuda::swiglu_backward_bf16(ctx, {gate.view(), up_.view(), dout.view(), dg.view(), du.view(),
                                       out.view(), weight.span(), dweight.span()});
    });
  }
  {
    const Shape s{65536, 1408};
    const double n = 1.0 * s.rows * s.cols;
    const auto gate = device_random(s.rows, s.cols), up_ = device_random(s.rows, s.cols);
    auto out = device_room<float>(s.rows, s.cols), dg = device_room<float>(s.rows, s.cols),
         du = device_room<float>(s.rows, s.cols);
    auto dweight = device_room<float>(1, s.rows);
    bench("swiglu [65536, 1408]", 12 * n, [&] {
      cuda::swiglu(ctx, {gate.view(), up_.view(), out.view()});
    });
    bench("swiglu_backward [65536, 1408]", 24 * n, [&] {
      cuda::swiglu_backward(ctx, {gate.view(),
                                  up_.view(),
                                  gate.view(),
                                  dg.view(),
                                  du.view(),
                                  {},
                                  dweight.span(),
                                  out.view()});
    });
  }
  {
    const auto x = device_random(32768, 2048);
    auto y = device_random(32768, 2048);
    const double bytes = 4.0 * 32768 * 2048;
    const DropoutMask mask{0.1, 1, 2, 0};
    bench("dropout [32768, 2048]", 2 * bytes, [&] {
      cuda::dropout(ctx, {mask, x.view(), y.view(), false});
    });
    bench("dropout added [32768, 2048]", 3 * bytes, [&] {
      cuda::dropout(ctx, {mask, x.view(), y.view(), true});
    });
    bench("copy_rows [32768, 2048]", 2 * bytes, [&] { cuda::copy_rows(ctx, x.view(), y.view()); });
    bench("(cudaMemcpy of as much)", 2 * bytes,
          [&] { device_->copy(y.data(), x.data(), x.size() * 4); });
    bench("copy_rows [32768, 64 of 2048]", 2 * bytes / 32,
          [&] { cuda::copy_rows(ctx, x.view().sub_cols(0, 64), y.view().sub_cols(0, 64)); });
    bench("zero_rows [32768, 2048]", bytes, [&] { cuda::zero_rows(ctx, y.view()); });
    bench("sum_squares of 67 M", bytes, [&] { cuda::sum_squares(ctx, x.span()); });
  }
}

}  // namespace
}  // namespace cachalot::cuda::testing
