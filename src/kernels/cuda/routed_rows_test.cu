// Experts of few rows on the device against the definition.
#include <algorithm>
#include <numeric>

#include "kernels/cuda/gemm_case_test.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/routed_rows.h"

namespace cachalot::cuda {
namespace {

using testing::random_mat;

// Weights of one matrix on both sides.
struct Weight {
  Mat<std::uint8_t> codes, codes_up;
  Mat<float> scales, scales_up;
  Mat<Bf16> plain, plain_up;
  RowsWeight host, device;
};
struct Mlp {
  Weight gate, up, down;
  MlpRows host() const { return {gate.host, up.host, down.host}; }
  MlpRows device() const { return {gate.device, up.device, down.device}; }
};

struct Shape {
  int rows, hidden, width, shared, experts, topk;
};

class CudaRoutedRowsTest : public testing::CudaTest {
 protected:
  Weight weight(bool quantised, int n, int k, std::uint64_t seed) {
    Weight w;
    if (!quantised) {
      w.plain = testing::to_bf16(random_mat(n, k, seed, 0.08f));
      w.plain_up = up(w.plain);
      w.host.plain = w.plain.cview();
      w.device.plain = w.plain_up.cview();
      return w;
    }
    QuantView v;
    v.rows = n;
    v.cols = k;
    v.stride = (k + 15) / 16 * 16;
    v.scale_stride = v.groups();
    w.codes = Mat<std::uint8_t>(n, static_cast<int>(v.stride));
    const Rng rng(seed, 1);
    for (std::size_t i = 0; i < w.codes.size(); ++i) {
      auto c = static_cast<std::uint8_t>(rng.bits(i));
      if ((c & 0x7F) == 0x7F) c = 0x38;
      w.codes.data()[i] = c;
    }
    w.scales = random_mat(v.scale_rows(), v.groups(), seed + 1, 0.002f);
    w.codes_up = up(w.codes);
    w.scales_up = up(w.scales);
    w.host.quant = w.device.quant = v;
    w.host.quant.codes = w.codes.data();
    w.host.quant.scales = w.scales.data();
    w.device.quant.codes = w.codes_up.data();
    w.device.quant.scales = w.scales_up.data();
    return w;
  }
  Mlp mlp(bool quantised, int hidden, int width, std::uint64_t seed) {
    return {weight(quantised, width, hidden, seed), weight(quantised, width, hidden, seed + 10),
            weight(quantised, hidden, width, seed + 20)};
  }
  // Distinct experts of each row; with `crowded` all rows choose among the first few.
  static Mat<std::int32_t> choose(const Shape& s, bool crowded, std::uint64_t seed) {
    Mat<std::int32_t> index(s.rows, s.topk);
    const int among = crowded ? s.topk : s.experts;
    const Rng rng(seed, 3);
    std::uint64_t at = 0;
    std::vector<std::int32_t> all(static_cast<std::size_t>(among));
    for (int t = 0; t < s.rows; ++t) {
      std::iota(all.begin(), all.end(), 0);
      for (int j = 0; j < s.topk; ++j) {
        const auto left = static_cast<std::uint64_t>(among - j);
        const auto pick =
            static_cast<std::size_t>(j) + static_cast<std::size_t>(rng.bits(at++) % left);
        std::swap(all[static_cast<std::size_t>(j)], all[pick]);
        index.at(t, j) = all[static_cast<std::size_t>(j)];
      }
    }
    return index;
  }

  void compare(const Shape& s, bool quantised, bool crowded, bool add) {
    const std::string what =
        cat(s.rows, " rows of ", s.hidden, ", ", s.topk, " of ", s.experts, " experts of ", s.width,
            ", shared ", s.shared, ", E4M3 ", quantised, ", crowded ", crowded, ", += ", add);
    std::vector<Mlp> experts;
    for (int e = 0; e < s.experts; ++e) {
      experts.push_back(mlp(quantised, s.hidden, s.width, 100 + 100 * static_cast<unsigned>(e)));
    }
    std::vector<MlpRows> on_host, on_device;
    for (const Mlp& m : experts) {
      on_host.push_back(m.host());
      on_device.push_back(m.device());
    }
    const Mat<float> x = random_mat(s.rows, s.hidden, 7), x_up = up(x);
    const Mat<std::int32_t> index = choose(s, crowded, 11), index_up = up(index);
    const Mat<float> weights = random_mat(s.rows, s.topk, 9), weights_up = up(weights);
    Mat<float> want = random_mat(s.rows, s.hidden + 4, 13), got = up(want);
    Mat<float> want_normed(s.rows, s.hidden), got_normed = room<float>(s.rows, s.hidden);
    const Mat<float> norm_weight = random_mat(1, s.hidden, 15), norm_weight_up = up(norm_weight);
    RoutedRows a, b;
    a.precision = b.precision = Precision::kBF16;
    a.add = b.add = add;
    a.eps = b.eps = 1e-6f;
    a.x = x.cview(), b.x = x_up.cview();
    a.index = index.cview(), b.index = index_up.cview();
    a.weight = weights.cview(), b.weight = weights_up.cview();
    a.experts = on_host, b.experts = on_device;
    a.y = want.view().sub_cols(0, s.hidden), b.y = got.view().sub_cols(0, s.hidden);
    if (add) {
      a.normed = want_normed.view(), b.normed = got_normed.view();
      a.norm_weight = norm_weight.span(), b.norm_weight = norm_weight_up.span();
    }
    Mlp shared;
    if (s.shared > 0) {
      shared = mlp(quantised, s.hidden, s.shared, 50);
      a.shared = shared.host();
      b.shared = shared.device();
    }
    ASSERT_TRUE(cuda::takes_routed_rows(ctx, b)) << what;
    routed_rows_ref(host, a);
    cuda::routed_rows(ctx, b);
    const Mat<float> first = down(got);
    // Sums of floats in another order; hidden values that lie between two bf16 numbers may go to
    // the other one: 2^-8 of a few of them.
    EXPECT_LT(testing::relative_error(first, want), 5e-4) << what;
    if (add) {
      EXPECT_LT(testing::relative_error(down(got_normed), want_normed), 5e-4) << what << ", norm";
      return;
    }
    cuda::routed_rows(ctx, b);
    const Mat<float> again = down(got);
    EXPECT_EQ(0, std::memcmp(first.data(), again.data(), first.size() * sizeof(float))) << what;
  }
};

TEST_F(CudaRoutedRowsTest, AgreesWithTheDefinition) {
  for (const bool quantised : {true, false}) {
    for (const int rows : {1, 2, 7, 8, 9, 17, 64}) {
      const bool add = rows % 2 == 0;
      compare({rows, 256, 128, 128, 16, 4}, quantised, false, add);
      compare({rows, 144, 48, 80, 5, 2}, quantised, true, !add);  // tails of every kind
    }
    compare({3, 128, 64, 0, 8, 8}, quantised, false, false);  // every expert, none shared
    compare({64, 128, 64, 64, 256, 8}, quantised, false, true);
    compare({1, 2048, 768, 768, 8, 6}, quantised, false, true);
    compare({5, 64, 16, 16, 2, 1}, quantised, false, true);
  }
}

TEST_F(CudaRoutedRowsTest, LeavesOthersAlone) {
  const Shape s{4, 128, 64, 0, 4, 2};
  const Mlp m = mlp(true, s.hidden, s.width, 1), plain = mlp(false, s.hidden, s.width, 1);
  std::vector<MlpRows> experts(4, m.device());
  RoutedRows a;
  a.precision = Precision::kBF16;
  a.x = {nullptr, 4, s.hidden, s.hidden};
  a.index = {nullptr, 4, 2, 2};
  a.experts = experts;
  EXPECT_TRUE(cuda::takes_routed_rows(ctx, a));
  a.x.rows = 65;
  EXPECT_FALSE(cuda::takes_routed_rows(ctx, a));
  a.x.rows = 4;
  a.precision = Precision::kF32;
  EXPECT_FALSE(cuda::takes_routed_rows(ctx, a));
  a.precision = Precision::kBF16;
  a.shared = plain.device();
  EXPECT_FALSE(cuda::takes_routed_rows(ctx, a));
  a.shared = {};
  experts[2].up.quant.code = QuantCode::kInt8;
  EXPECT_FALSE(cuda::takes_routed_rows(ctx, a));
}

// Batches of the bench model: 64 experts of 768, 6 each, hidden 2048.
TEST_F(CudaRoutedRowsTest, Bench) {
  const Shape s{1, 2048, 768, 768, 64, 6};
  std::vector<Mlp> experts;
  for (int e = 0; e < s.experts; ++e) {
    experts.push_back(mlp(true, s.hidden, s.width, 100 + static_cast<unsigned>(e)));
  }
  const Mlp shared = mlp(true, s.hidden, s.width, 50);
  std::vector<MlpRows> list;
  for (const Mlp& m : experts) list.push_back(m.device());
  for (const int rows : {1, 2, 8, 16, 64}) {
    const Shape of{rows, 2048, 768, 768, 64, 6};
    const Mat<float> x = up(random_mat(rows, s.hidden, 7)), weights = up(random_mat(rows, 6, 8));
    // Other experts each time, as layer after layer: the second-level cache holds a few.
    std::vector<Mat<std::int32_t>> index;
    std::vector<double> chosen;
    for (unsigned i = 0; i < 8; ++i) {
      const Mat<std::int32_t> of_pass = choose(of, false, 20 + i);
      std::vector<std::int32_t> set(of_pass.span().begin(), of_pass.span().end());
      std::sort(set.begin(), set.end());
      chosen.push_back(static_cast<double>(std::unique(set.begin(), set.end()) - set.begin()));
      index.push_back(up(of_pass));
    }
    Mat<float> y = room<float>(rows, s.hidden);
    cudaEvent_t begin = nullptr, end = nullptr;
    cudaEventCreate(&begin);
    cudaEventCreate(&end);
    std::vector<float> times;
    for (std::size_t i = 0; i < 48; ++i) {
      RoutedRows a;
      a.precision = Precision::kBF16;
      a.x = x.cview();
      a.index = index[i % 8].cview();
      a.weight = weights.cview();
      a.experts = list;
      a.shared = shared.device();
      a.y = y.view();
      cudaEventRecord(begin, stream_of(ctx));
      cuda::routed_rows(ctx, a);
      cudaEventRecord(end, stream_of(ctx));
      cudaEventSynchronize(end);
      float ms = 0;
      cudaEventElapsedTime(&ms, begin, end);
      if (i >= 16) times.push_back(ms);
    }
    std::sort(times.begin(), times.end());
    const double experts_read =
        1 + std::accumulate(chosen.begin(), chosen.end(), 0.0) / static_cast<double>(chosen.size());
    const double ms = times[times.size() / 2];
    std::printf("%3d rows, %5.1f experts: %7.1f us, %6.0f GB/s of weights\n", rows, experts_read,
                1e3 * ms, experts_read * 3 * 2048 * 768 * 1e-6 / ms);
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
  }
}

}  // namespace
}  // namespace cachalot::cuda
