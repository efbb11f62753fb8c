// Times of products on the device, printed; nothing is asserted but that they ran.
#include "kernels/cuda/gemm_case_test.cuh"
#include "kernels/cuda/gemm_parts.cuh"
#include "kernels/cuda/ops.h"

namespace cachalot::cuda {
namespace {

class CudaGemmBench : public testing::TimedTest {
 protected:
  // One bf16 product x W^T.
  void one(int m, int n, int k) {
    const Mat<Bf16> x = random_up<Bf16>(m, k, 1), w = random_up<Bf16>(n, k, 2);
    Mat<float> y = room<float>(m, n);
    const Gemm g = linear(x.cview(), MatRef(w.cview()), y.view());
    const double t = time([&] { cuda::gemm(ctx, Precision::kBF16, {&g, 1}); }, 20);
    report(cat("gemm bf16 ", m, "x", n, "x", k), t, 2.0 * m * n * k,
           2.0 * m * k + 2.0 * n * k + 4.0 * m * n);
  }

  template <class T>
  void experts(const char* type, int groups, int rows, int n, int k) {
    const Mat<T> x = random_up<T>(groups * rows, k, 1), w = random_up<T>(groups * n, k, 2),
                 dy = random_up<T>(groups * rows, n, 3);
    Mat<float> y = room<float>(groups * rows, n), dw = room<float>(groups * n, k);
    Mat<Bf16> y_bf16 = room<Bf16>(groups * rows, n);
    std::vector<Gemm> forward, forward_bf16, backward;
    for (int g = 0; g < groups; ++g) {
      const MatRef xg = x.cview().sub_rows(g * rows, rows), wg = w.cview().sub_rows(g * n, n),
                   dg = dy.cview().sub_rows(g * rows, rows);
      forward.push_back(linear(xg, wg, y.view().sub_rows(g * rows, rows)));
      forward_bf16.push_back(forward.back());
      forward_bf16.back().c_bf16 = y_bf16.view().sub_rows(g * rows, rows);
      backward.push_back({dg, xg, dw.view().sub_rows(g * n, n), true, false});
    }
    const double flops = 2.0 * groups * rows * n * k;
    const std::string shape = cat(groups, " x [", rows, "x", n, "x", k, "] ", type);
    const auto run = [&](const char* what, const std::vector<Gemm>& list) {
      const double t = time([&] { cuda::gemm(ctx, Precision::kBF16, list); });
      report(cat(what, shape), t, flops, 0);
      if (sizeof(T) == 4) return;
      std::vector<Gemm> refused;
      const double library = time([&] { gemm_library(ctx, list, refused); });
      report(cat(what, shape, " library"), library, flops, 0);
      for (groups_variant = 3; groups_variant >= 0; --groups_variant) {
        const double groups_alone = time([&] { gemm_groups(ctx, list); });
        report(cat(what, shape, " groups ", groups_variant), groups_alone, flops, 0);
      }
      groups_variant = 0;
    };
    run("experts y ", forward);
    run("experts y bf16 ", forward_bf16);
    run("experts dw ", backward);
    std::vector<Gemm> dx;
    Mat<float> to = room<float>(groups * rows, k);
    for (int g = 0; g < groups; ++g) {
      dx.push_back({dy.cview().sub_rows(g * rows, rows), w.cview().sub_rows(g * n, n),
                    to.view().sub_rows(g * rows, rows)});
    }
    run("experts dx ", dx);
  }

  void decode(int m, int groups, int n, int k) {
    const Mat<Bf16> x = random_up<Bf16>(groups * m, k, 1), w = random_up<Bf16>(groups * n, k, 2);
    Mat<float> y = room<float>(groups * m, n);
    std::vector<Gemm> list;
    for (int g = 0; g < groups; ++g) {
      list.push_back(linear(x.cview().sub_rows(g * m, m), MatRef(w.cview().sub_rows(g * n, n)),
                            y.view().sub_rows(g * m, m)));
    }
    const double t = time([&] { cuda::gemm(ctx, Precision::kBF16, list); }, 40);
    report(cat("decode bf16 ", groups, " x [", m, "x", n, "x", k, "]"), t, 2.0 * groups * m * n * k,
           2.0 * groups * n * k);
    if (groups > 1 || m < 8) return;
    std::vector<Gemm> refused;
    const double library = time([&] { gemm_library(ctx, list, refused); }, 40);
    report(cat("decode bf16 library ", groups, " x [", m, "x", n, "x", k, "]"), library,
           2.0 * groups * m * n * k, 2.0 * groups * n * k);
    const double rows = time([&] { gemm_rows(ctx, Precision::kBF16, list); }, 40);
    report(cat("decode bf16 rows ", groups, " x [", m, "x", n, "x", k, "]"), rows,
           2.0 * groups * m * n * k, 2.0 * groups * n * k);
  }
};

TEST_F(CudaGemmBench, OneProductOfGroups) {
  for (const auto& [n, k] : {std::pair{8192, 8192}, {2112, 7168}, {7168, 16384}, {7168, 2048}}) {
    const int m = n == 8192 ? 8192 : 4096;
    const Mat<Bf16> x = random_up<Bf16>(m, k, 1), w = random_up<Bf16>(n, k, 2);
    Mat<float> y = room<float>(m, n);
    const Gemm g = linear(x.cview(), MatRef(w.cview()), y.view());
    for (groups_variant = 3; groups_variant >= 0; --groups_variant) {
      const double t = time([&] { gemm_groups(ctx, {&g, 1}); }, 20);
      report(cat("groups bf16 ", groups_variant, " ", m, "x", n, "x", k), t, 2.0 * m * n * k, 0);
    }
    groups_variant = 0;
  }
}

TEST_F(CudaGemmBench, OneProduct) {
  one(8192, 8192, 8192);
  for (const auto& [n, k] : {std::pair{2112, 7168},
                             {24576, 1536},
                             {32768, 512},
                             {7168, 16384},
                             {4096, 7168},
                             {7168, 2048}}) {
    one(4096, n, k);
  }
}

TEST_F(CudaGemmBench, Experts) {
  experts<Bf16>("bf16", 64, 2048, 1408, 2048);
  experts<float>("float", 64, 2048, 1408, 2048);
  experts<Bf16>("bf16", 64, 256, 1408, 2048);
  experts<Bf16>("bf16", 32, 128, 2048, 7168);
}

TEST_F(CudaGemmBench, Decode) {
  for (const int m : {1, 8, 16, 32, 64}) decode(m, 1, 7168, 2048);
  decode(1, 1, 2048, 7168);
  decode(1, 1, 129280, 7168);
  decode(1, 8, 2048, 7168);
  decode(2, 32, 2048, 7168);
  decode(16, 32, 2048, 7168);
}

// Absorbed attention: 128 heads, strided views of one matrix.
TEST_F(CudaGemmBench, Heads) {
  for (const int t : {1, 16, 64, 1024}) {
    const Mat<float> q = random_up<float>(t, 128 * 192, 1);
    const Mat<Bf16> w = random_up<Bf16>(128 * 256, 512, 2);
    Mat<float> to = room<float>(t, 128 * 576), out = room<float>(t, 128 * 128);
    std::vector<Gemm> down_to, up_from;
    for (int h = 0; h < 128; ++h) {
      down_to.push_back({q.cview().sub_cols(h * 192, 128), w.cview().sub_rows(h * 256, 128),
                         to.view().sub_cols(h * 576, 512)});
      up_from.push_back(linear(to.cview().sub_cols(h * 576, 512),
                               MatRef(w.cview().sub_rows(h * 256 + 128, 128)),
                               out.view().sub_cols(h * 128, 128)));
    }
    const double flops = 2.0 * 128 * t * 128 * 512, bytes = 2.0 * 128 * 128 * 512;
    report(cat("heads q W_uk ", t), time([&] { cuda::gemm(ctx, Precision::kBF16, down_to); }),
           flops, bytes);
    report(cat("heads context W_uv^T ", t),
           time([&] { cuda::gemm(ctx, Precision::kBF16, up_from); }), flops, bytes);
  }
}

TEST_F(CudaGemmBench, Router) {
  for (const int t : {1, 8, 64, 8192}) {
    const Mat<float> x = random_up<float>(t, 7168, 1), w = random_up<float>(256, 7168, 2);
    Mat<float> y = room<float>(t, 256);
    const Gemm g = linear(x.cview(), MatRef(w.cview()), y.view());
    report(cat("router f32 ", t), time([&] {
             cuda::gemm(ctx, Precision::kF32, {&g, 1});
           }),
           2.0 * t * 256 * 7168, 4.0 * 256 * 7168);
  }
}

}  // namespace
}  // namespace cachalot::cuda
