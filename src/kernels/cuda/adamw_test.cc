#include "kernels/adamw.h"

#include "kernels/cuda/memory_case_test.h"

namespace cachalot::cuda::testing {
namespace {

using CudaAdamWTest = MemoryTest;
using CudaAdamWBench = MemoryTest;

Mat<float> squares(int n, std::uint64_t seed) {
  Mat<float> m = random_mat(1, n, seed, 0.1F);
  for (std::size_t i = 0; i < m.size(); ++i) m.data()[i] *= m.data()[i];
  return m;
}
Mat<float> as(const Mat<float>& m, float) { return m.clone(); }
Mat<Bf16> as(const Mat<float>& m, Bf16) { return to_bf16(m); }

constexpr AdamWConfig kConfig{3e-4, 0.9, 0.95, 1e-8, 0.1};

// What floats may lose where the terms of m cancel; parameters here are all but zero, so that the
// update's own error shows.
TEST_F(CudaAdamWTest, FloatAndBf16MomentsAreTheReferences) {
  const auto test = [&]<class M>(M) {
    const double moment = sizeof(M) == 2 ? 0x1p-7 : 4e-7;
    for (const int n : {1, 2, 5, 255, 4096, 100003}) {
      for (const int skip : {0, 1, 3}) {
        for (const bool apart : {false, true}) {
          for (const std::int64_t step : {1, 5, 100000}) {
            const Layout l{skip, 0}, other{apart ? skip + 1 : skip, 0};
            auto grad = twin(random_mat(1, n, 1, 0.2F), other);
            Mat<float> start = random_mat(1, n, 2, 0.02F);
            start.data()[0] = 0;
            auto param = twin(start, l);
            auto m = twin(as(random_mat(1, n, 3, 0.1F), M{}), l);
            auto v = twin(as(squares(n, 4), M{}), l);
            AdamW<float, M> a{kConfig, step, 0.7, grad.hs(), param.hs(), m.hs(), v.hs()};
            adamw_ref(host, a);
            const AdamW<float, M> b{kConfig, step, 0.7, grad.ds(), param.ds(), m.ds(), v.ds()};
            if constexpr (sizeof(M) == 2) {
              cuda::adamw_bf16(ctx, b);
            } else {
              cuda::adamw(ctx, b);
            }
            const std::string what = cat("adamw ", sizeof(M) * 8, " bits, from ", skip, ", step ",
                                         step, apart ? ", apart" : "");
            expect_same(what + " m", m, moment, 1e-7);
            expect_same(what + " v", v, moment, 1e-12);
            expect_same(what + " p", param, 0x1p-20, 2e-8);
          }
        }
      }
    }
  };
  test(float{});
  test(Bf16{});
}

TEST_F(CudaAdamWTest, ParametersAreWithinTwoSteps) {
  const int n = 100000;
  auto grad = twin(random_mat(1, n, 1, 0.2F));
  Mat<float> p = random_mat(1, n, 2, 0.02F);
  for (std::size_t i = 0; i < p.size(); ++i) p.data()[i] += std::copysign(0.01F, p.data()[i]);
  auto param = twin(p);
  auto m = twin(random_mat(1, n, 3, 0.02F));
  Mat<float> spread = squares(n, 4);
  for (std::size_t i = 0; i < spread.size(); ++i) spread.data()[i] += 0.001F;
  auto v = twin(spread);
  adamw_ref(host, AdamW<float>{kConfig, 1000, 1, grad.hs(), param.hs(), m.hs(), v.hs()});
  cuda::adamw(ctx, {kConfig, 1000, 1, grad.ds(), param.ds(), m.ds(), v.ds()});
  const Mat<float> got = down(param.device);
  int most = 0, apart = 0;
  for (int i = 0; i < n; ++i) {
    const int steps =
        std::abs(std::bit_cast<int>(got.data()[i]) - std::bit_cast<int>(param.host.data()[i]));
    most = std::max(most, steps);
    apart += steps > 0;
  }
  std::printf("adamw: %d of %d parameters differ, by %d steps at most\n", apart, n, most);
  EXPECT_LE(most, 2);
}

TEST_F(CudaAdamWTest, WeightAverageIsTheReference) {
  for (const int n : {1, 7, 1000, 100001}) {
    for (const int skip : {0, 1}) {
      for (const int other : {0, 1}) {
        auto p = twin(random_mat(1, n, 1), {skip, 0});
        auto ema = twin(random_mat(1, n, 2), {other, 0});
        weight_average_ref(host, {0.999, p.hs(), ema.hs()});
        cuda::weight_average(ctx, {0.999, p.ds(), ema.ds()});
        expect_same(cat("weight_average, ", n, " from ", skip), ema, 0x1p-22, 1e-9);
      }
    }
  }
}

TEST_F(CudaAdamWBench, ArenaOfABillion) {
  const int n = 1'000'000'000;
  const auto grad = device_random(1, n, 0.1F);
  auto param = device_random(1, n, 0.02F);
  {
    auto m = device_room<Bf16>(1, n), v = device_room<Bf16>(1, n);
    m.zero(), v.zero();
    bench("adamw_bf16, 1e9 parameters", 20.0 * n, [&] {
      cuda::adamw_bf16(ctx, {kConfig, 10, 1, grad.span(), param.span(), m.span(), v.span()});
    });
  }
  {
    auto m = device_room<float>(1, n), v = device_room<float>(1, n);
    m.zero(), v.zero();
    bench("adamw, 1e9 parameters", 28.0 * n, [&] {
      cuda::adamw(ctx, {kConfig, 10, 1, grad.span(), param.span(), m.span(), v.span()});
    });
    bench("weight_average, 1e9 parameters", 12.0 * n, [&] {
      cuda::weight_average(ctx, {0.999, param.span(), m.span()});
    });
    bench("(cudaMemcpy of 1e9 floats)", 8.0 * n,
          [&] { device_->copy(m.data(), grad.data(), grad.size() * 4); });
  }
}

}  // namespace
}  // namespace cachalot::cuda::testing
