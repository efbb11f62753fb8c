// Products with quantised weights on the device against the definition, and their times.
#include <dlfcn.h>

#include "kernels/cuda/gemm_case_test.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/quant_parts.cuh"
#include "kernels/quant_linear.h"

namespace cachalot::cuda {
namespace {

using testing::disagreement;
using testing::random_mat;

struct Weights {
  Mat<std::uint8_t> codes, codes_up;
  Mat<float> scales, scales_up;
  Mat<Bf16> short_scales, short_scales_up;
  QuantView host, device;
};

class CudaQuantLinearTest : public testing::CudaTest {
 protected:
  // Rows [first, first + n) of a matrix that is a little larger, `pad` bytes between rows.
  Weights make(QuantCode code, int group, int n, int k, int first, int pad, bool powers,
               std::uint64_t seed) {
    Weights w;
    QuantView v;
    v.code = code;
    v.rows = first + n;
    v.cols = k;
    v.group = group;
    v.stride = v.row_bytes() + pad;
    w.codes = Mat<std::uint8_t>(v.rows, static_cast<int>(v.stride));
    const Rng rng(seed, 1);
    for (std::size_t i = 0; i < w.codes.size(); ++i) {
      auto c = static_cast<std::uint8_t>(rng.bits(i));
      if (code == QuantCode::kE4m3 && (c & 0x7F) == 0x7F) c = 0x38;
      w.codes.data()[i] = c;
    }
    w.codes_up = up(w.codes);
    v.scale_stride = v.groups() + 1;
    Mat<float> s = random_mat(v.scale_rows(), static_cast<int>(v.scale_stride), seed + 1, 0.05f);
    for (std::size_t i = 0; powers && i < s.size(); ++i) {
      s.data()[i] = std::exp2(std::round(s.data()[i] * 40));
    }
    w.host = v;
    w.device = v;
    w.host.codes = w.codes.data();
    w.device.codes = w.codes_up.data();
    if (code == QuantCode::kE4m3) {
      w.scales = std::move(s);
      w.scales_up = up(w.scales);
      w.host.scales = w.scales.data();
      w.device.scales = w.scales_up.data();
    } else {
      w.short_scales = testing::to_bf16(s);
      w.short_scales_up = up(w.short_scales);
      w.host.scales = w.short_scales.data();
      w.device.scales = w.short_scales_up.data();
    }
    w.host = w.host.sub_rows(first, n);
    w.device = w.device.sub_rows(first, n);
    return w;
  }

  struct Kind {
    QuantCode code;
    int group;
  };
  static constexpr Kind kKinds[] = {{QuantCode::kE4m3, 128}, {QuantCode::kInt8, 128},
                                    {QuantCode::kInt8, 64},  {QuantCode::kInt8, 32},
                                    {QuantCode::kInt4, 128}, {QuantCode::kInt4, 64},
                                    {QuantCode::kInt4, 32}};

  void compare(QuantActivations activations, Kind kind, int m, int n, int k, int first, int pad,
               bool x_bf16, bool accumulate, bool powers, double bound, bool dense = false) {
    const Weights w = make(kind.code, kind.group, n, k, first, pad, powers, 77 + n);
    const Mat<float> x = random_mat(m, k, 5);
    const Mat<Bf16> xb = testing::to_bf16(x);
    const Mat<float> x_up = up(x);
    const Mat<Bf16> xb_up = up(xb);
    Mat<float> want = random_mat(m, n + 3, 6);
    Mat<float> got = accumulate ? up(want) : room<float>(m, n + 3);
    const QuantLinear on_host{x_bf16 ? MatRef(xb.cview()) : MatRef(x.cview()), w.host,
                              want.view().sub_cols(1, n), accumulate};
    const QuantLinear on_device{x_bf16 ? MatRef(xb_up.cview()) : MatRef(x_up.cview()), w.device,
                                got.view().sub_cols(1, n), accumulate};
    quant_linear_ref(host, activations, {&on_host, 1});
    if (dense) {
      quant_dense(ctx, {&on_device, 1});
    } else {
      cuda::quant_linear(ctx, activations, {&on_device, 1});
    }
    EXPECT_EQ("",
              disagreement(down(got).cview().sub_cols(1, n), want.cview().sub_cols(1, n), bound))
        << (dense ? "dense " : "") << "code " << static_cast<int>(kind.code) << " group "
        << kind.group << " int8 activations " << (activations == QuantActivations::kInt8) << " "
        << m << "x" << n << "x" << k << " first " << first << " pad " << pad << " x bf16 " << x_bf16
        << " += " << accumulate;
  }
};

TEST_F(CudaQuantLinearTest, FewRows) {
  for (const Kind kind : kKinds) {
    for (const int m : {1, 3, 8, 9, 16, 25, 32}) {
      const int first = m % 2 != 0 ? 0 : 37;
      compare(QuantActivations::kBf16, kind, m, 160, 512, first, 0, m % 3 == 0, m % 2 == 0, false,
              2e-5);
      compare(QuantActivations::kBf16, kind, m, 21, 404, first, m % 5, m % 3 != 0, m % 2 != 0,
              false, 2e-5);
    }
    compare(QuantActivations::kBf16, kind, 1, 1, 1, 0, 0, false, false, false, 2e-5);
    compare(QuantActivations::kBf16, kind, 2, 64, 4096, 0, 0, false, false, false, 2e-5);
  }
}

TEST_F(CudaQuantLinearTest, Int8Activations) {
  for (const Kind kind : kKinds) {
    if (kind.code == QuantCode::kE4m3) continue;
    for (const int m : {1, 8, 17, 50}) {
      compare(QuantActivations::kInt8, kind, m, 48, 512, 0, 0, m % 2 == 0, m % 2 != 0, false, 2e-5);
      compare(QuantActivations::kInt8, kind, m, 21, 404, 5, 3, m % 2 != 0, m % 2 == 0, false, 2e-5);
    }
  }
}

TEST_F(CudaQuantLinearTest, ManyRowsThroughBf16) {
  for (const Kind kind : kKinds) {
    compare(QuantActivations::kBf16, kind, 100, 130, 260, 37, 4, false, true, true, 1e-2);
    // Not through quant_linear: rows of scales are kept apart, which few rows do as well.
    compare(QuantActivations::kBf16, kind, 20, 70, 404, 5, 1, true, false, false, 1e-2, true);
  }
  compare(QuantActivations::kBf16, {QuantCode::kE4m3, 128}, 100, 130, 260, 37, 4, false, true, true,
          2e-5);
}

// A code that is no number shows in its row alone.
TEST_F(CudaQuantLinearTest, NaNCodes) {
  Weights w = make(QuantCode::kE4m3, 128, 40, 300, 0, 4, false, 3);
  w.codes.at(7, 250) = 0x7F;
  w.codes.at(33, 299) = 0xFF;
  device_->upload(w.codes_up.data(), w.codes.data(), w.codes.size());
  for (const int m : {2, 120}) {
    const Mat<float> x = random_mat(m, 300, 5);
    const Mat<float> x_up = up(x);
    Mat<float> want(m, 40), got = room<float>(m, 40);
    const QuantLinear on_host{x.cview(), w.host, want.view()};
    const QuantLinear on_device{x_up.cview(), w.device, got.view()};
    quant_linear_ref(host, QuantActivations::kBf16, {&on_host, 1});
    cuda::quant_linear(ctx, QuantActivations::kBf16, {&on_device, 1});
    EXPECT_EQ("", disagreement(down(got).cview(), want.cview(), 1e-2)) << m << " rows";
  }
}

TEST_F(CudaQuantLinearTest, ListsWithEmptyProblems) {
  std::vector<Weights> w;
  for (int i = 0; i < 6; ++i) {
    const Kind kind = kKinds[i % 2];
    w.push_back(make(kind.code, kind.group, 50, 256, 0, 0, false, 10 + static_cast<unsigned>(i)));
  }
  const int rows[] = {3, 0, 11, 1, 0, 130};
  const Mat<float> x = random_mat(145, 256, 5);
  const Mat<float> x_up = up(x);
  Mat<float> want(145, 50), got = room<float>(145, 50);
  std::vector<QuantLinear> on_host, on_device;
  int begin = 0;
  for (std::size_t i = 0; i < 6; ++i) {
    on_host.push_back(
        {x.cview().sub_rows(begin, rows[i]), w[i].host, want.view().sub_rows(begin, rows[i])});
    on_device.push_back(
        {x_up.cview().sub_rows(begin, rows[i]), w[i].device, got.view().sub_rows(begin, rows[i])});
    begin += rows[i];
  }
  quant_linear_ref(host, QuantActivations::kBf16, on_host);
  cuda::quant_linear(ctx, QuantActivations::kBf16, on_device);
  EXPECT_EQ("", disagreement(down(got).cview(), want.cview(), 1e-2));
}

class CudaQuantLinearBench : public testing::TimedTest {
 protected:
  void experts(QuantCode code, int group, int groups, int m, int n, int k, const char* what) {
    QuantView v;
    v.code = code;
    v.rows = n;
    v.cols = k;
    v.group = group;
    v.stride = v.row_bytes();
    v.scale_stride = v.groups();
    const Mat<std::uint8_t> codes = random_up<std::uint8_t>(groups * n, static_cast<int>(v.stride));
    const Mat<float> scales = random_up<float>(groups * v.scale_rows(), v.groups());
    const Mat<float> x = random_up<float>(groups * m, k);
    Mat<float> y = room<float>(groups * m, n);
    std::vector<QuantLinear> list;
    for (int g = 0; g < groups; ++g) {
      QuantView w = v;
      w.codes = codes.data() + g * n * v.stride;
      w.scales = code == QuantCode::kE4m3
                     ? static_cast<const void*>(scales.data() + g * v.scale_rows() * v.groups())
                     : reinterpret_cast<const Bf16*>(scales.data()) + g * n * v.groups();
      list.push_back({x.cview().sub_rows(g * m, m), w, y.view().sub_rows(g * m, m)});
    }
    const double t = time([&] { cuda::quant_linear(ctx, QuantActivations::kBf16, list); }, 30);
    report(cat("quant ", what, " ", groups, " x [", m, "x", n, "x", k, "]"), t,
           2.0 * groups * m * n * k, static_cast<double>(groups) * static_cast<double>(v.bytes()));
  }
};

TEST_F(CudaQuantLinearBench, Experts) {
  for (const int m : {1, 8, 16, 32, 64, 128}) {
    experts(QuantCode::kE4m3, 128, 32, m, 7168, 2048, "e4m3");
  }
  experts(QuantCode::kE4m3, 128, 8, 1, 7168, 2048, "e4m3");
  experts(QuantCode::kE4m3, 128, 8, 1, 2048, 7168, "e4m3");
  experts(QuantCode::kE4m3, 128, 1, 1, 7168, 16384, "e4m3");
  experts(QuantCode::kE4m3, 128, 1, 1, 24576, 1536, "e4m3");
  experts(QuantCode::kE4m3, 128, 1, 4096, 7168, 2048, "e4m3");
  for (const int m : {1, 8, 16}) {
    experts(QuantCode::kInt8, 128, 32, m, 7168, 2048, "int8/128");
    experts(QuantCode::kInt4, 128, 32, m, 7168, 2048, "int4/128");
    experts(QuantCode::kInt4, 32, 32, m, 7168, 2048, "int4/32");
  }
}

}  // namespace
}  // namespace cachalot::cuda
