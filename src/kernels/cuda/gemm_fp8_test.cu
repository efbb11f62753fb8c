#include "kernels/cuda/gemm_fp8.h"

#include "kernels/cuda/gemm_fp8_case_test.h"
#include "kernels/cuda/ops.h"

namespace cachalot::cuda::testing {

namespace {

struct Case {
  int m, n, k;
  bool trans_a = false, trans_b = true;
  ScaleTile tile_a = ScaleTile::kRow, tile_b = ScaleTile::kBlock;
  bool accumulate = false, half = false;
  int pad = 0, first = 0;   // of the operands
  int c_pad = 4;            // floats between the rows of C
  bool transposed = false;  // codes of operands that are summed over their rows

  bool column_scales() const { return tile_b == ScaleTile::kRow || tile_b == ScaleTile::kColumn; }
};
std::string text(const Case& c) {
  std::string s = cat("[", c.m, ", ", c.n, ", ", c.k, "]");
  if (c.trans_a) s += " trans_a";
  if (!c.trans_b) s += " b as it lies";
  if (c.accumulate) s += " accumulate";
  if (c.half) s += " bf16";
  if (c.transposed) s += " transposed codes";
  return cat(s, " tiles ", static_cast<int>(c.tile_a), static_cast<int>(c.tile_b), " pad ", c.pad,
             " first ", c.first, " c_pad ", c.c_pad);
}

constexpr ScaleTile kRow = ScaleTile::kRow, kColumn = ScaleTile::kColumn,
                    kBlock = ScaleTile::kBlock, kTensor = ScaleTile::kTensor;
const Case kCases[] = {
    {1, 1, 1},
    {130, 160, 304},
    {.m = 130, .n = 160, .k = 304, .accumulate = true},
    {.m = 77, .n = 152, .k = 300, .half = true, .c_pad = 8},
    {.m = 300, .n = 256, .k = 2000, .accumulate = true, .c_pad = 0},
    {64, 128, 128},
    {128, 256, 512},
    {130, 150, 304},
    {.m = 3, .n = 520, .k = 1000, .c_pad = 3},
    {.m = 300, .n = 300, .k = 48, .accumulate = true},
    {.m = 257, .n = 385, .k = 4096, .half = true},
    {.m = 65, .n = 1000, .k = 640, .accumulate = true, .c_pad = 1},
    {.m = 200, .n = 300, .k = 129, .half = true, .pad = 3, .first = 1, .c_pad = 3},
    {.m = 70, .n = 130, .k = 300, .pad = 5, .first = 3},
    {140, 260, 384, false, false, kRow, kBlock, true},  // gradient of activations
    {.m = 77,
     .n = 500,
     .k = 200,
     .trans_a = false,
     .trans_b = false,
     .tile_a = kRow,
     .tile_b = kBlock,
     .pad = 1,
     .first = 2},
    {129, 200, 256, false, true, kBlock, kBlock},
    {129, 200, 256, false, true, kTensor, kTensor},
    {129, 200, 256, true, false, kTensor, kTensor},
    {8, 64, 0},
    {.m = 8, .n = 64, .k = 0, .accumulate = true},
    {192, 320, 1000, true, false, kColumn, kColumn, true},  // gradient of weights
    {.m = 130,
     .n = 190,
     .k = 131,
     .trans_a = true,
     .trans_b = false,
     .tile_a = kColumn,
     .tile_b = kColumn,
     .pad = 2,
     .first = 1},
    {60, 190, 1, true, false, kColumn, kColumn},
    {100, 140, 500, true, false, kBlock, kColumn},
    {.m = 100,
     .n = 140,
     .k = 512,
     .trans_a = false,
     .trans_b = true,
     .tile_a = kRow,
     .tile_b = kRow,
     .half = true},
    {100, 140, 512, false, true, kTensor, kRow},
    {.m = 192,
     .n = 320,
     .k = 1008,
     .trans_a = true,
     .trans_b = false,
     .tile_a = kColumn,
     .tile_b = kColumn,
     .accumulate = true,
     .transposed = true},
    {.m = 130,  // not as the copy engine reads them
     .n = 190,
     .k = 131,
     .trans_a = true,
     .trans_b = false,
     .tile_a = kColumn,
     .tile_b = kColumn,
     .pad = 2,
     .first = 1,
     .transposed = true},
    {.m = 70,
     .n = 160,
     .k = 333,
     .trans_a = true,
     .trans_b = false,
     .tile_a = kColumn,
     .tile_b = kColumn,
     .pad = 51,
     .transposed = true},
    {.m = 1,
     .n = 16,
     .k = 3,
     .trans_a = true,
     .trans_b = false,
     .tile_a = kColumn,
     .tile_b = kColumn,
     .pad = 13,
     .transposed = true},
    {.m = 140, .n = 272, .k = 384, .trans_b = false, .half = true, .c_pad = 8, .transposed = true},
};
const Case kLargeCases[] = {
    {1000, 4000, 2048},
    {.m = 900, .n = 2112, .k = 7168, .half = true},
    {64, 7168, 2048},
    {.m = 20, .n = 4096, .k = 7168, .accumulate = true},
    {2048, 1408, 3000, true, false, kColumn, kColumn, true},
};

class CudaGemmFp8Test : public Fp8ProductTest {
 protected:
  struct Ready {
    Operand a, b;
    Mat<float> c, before;  // `before`: the host's copy of what c held
    Mat<Bf16> half;
    Fp8Gemm gemm;
  };
  Ready ready(const Case& c, std::uint64_t seed) {
    Ready r;
    r.a = operand(c.trans_a ? c.k : c.m, c.trans_a ? c.m : c.k, c.tile_a, seed, c.pad, c.first,
                  c.transposed && c.trans_a);
    r.b = operand(c.trans_b ? c.n : c.k, c.trans_b ? c.k : c.n, c.tile_b, seed + 9, c.pad, c.first,
                  c.transposed && !c.trans_b);
    r.c = room<float>(c.m + 1, c.n + c.c_pad);
    if (c.accumulate) {
      r.before = random_mat(c.m + 1, c.n + c.c_pad, seed + 5);
      r.c = up(r.before);
    } else {
      r.before = down(r.c);
    }
    r.gemm = {r.a.view(), r.b.view(), {r.c.data(), c.m, c.n, r.c.cols()},
              c.trans_a,  c.trans_b,  c.accumulate};
    if (c.half) {
      r.half = room<Bf16>(c.m + 1, c.n + c.c_pad);
      r.gemm.c_bf16 = {r.half.data(), c.m, c.n, r.half.cols()};
    }
    return r;
  }

  // Largest error over the sum of magnitudes; rows from `rows` on have to be untouched.
  double compare(const Ready& r, const Case& c, const std::string& what, int rows = 1 << 30) {
    return compare(r, c, plain(r.gemm), what, rows);
  }
  double compare(const Ready& r, const Case& c, const Want& want, const std::string& what,
                 int rows = 1 << 30) {
    const Mat<float> got = down(r.c);
    const Mat<Bf16> half = c.half ? down(r.half) : Mat<Bf16>();
    double worst = 0;
    int bad = 0;
    std::string first;
    for (int i = 0; i < got.rows(); ++i) {
      for (int j = 0; j < got.cols(); ++j) {
        const bool inside = i < std::min(c.m, rows) && j < c.n;
        float x = got.at(i, j);
        bool wrong = false;
        double y = 0, bound = 0;
        if (c.half) {
          const std::uint16_t bits = half.at(i, j).bits;
          x = to_float(half.at(i, j));
          if (!inside) wrong = bits != 0xFFFF;
        } else if (!inside) {
          wrong = std::memcmp(&got.at(i, j), &r.before.at(i, j), 4) != 0;
        }
        if (inside) {
          y = want.sum.at(i, j) + (c.accumulate ? static_cast<double>(r.before.at(i, j)) : 0.0);
          const double size = want.size.at(i, j);
          // The tensor cores keep 13 bits below the largest of a few products.
          bound = 1e-3 * size + (c.half ? std::abs(y) / 250 : std::abs(y) * 2e-7) + 1e-12;
          const double off = std::abs(x - y);
          if (!c.half && size > 0) worst = std::max(worst, off / size);
          wrong = !(off <= bound);
        }
        if (wrong && bad++ == 0) {
          first = cat("first bad at [", i, ", ", j, "]", inside ? "" : " (outside)", ": got ", x,
                      " want ", y, " bound ", bound);
        }
      }
    }
    EXPECT_EQ(bad, 0) << what << " " << text(c) << ": " << first;
    return worst;
  }
};

TEST_F(CudaGemmFp8Test, ThePlainKernelAgreesWithTheReference) {
  for (const Case& c : kCases) {
    if (c.transposed) continue;  // the host's reference refuses them
    Ready r = ready(c, 1);
    const Want want = plain(r.gemm);
    const auto host_view = [&](const Operand& o, Mat<std::uint8_t>& codes, Mat<float>& scales) {
      codes = down(o.codes);
      scales = down(o.scales);
      Fp8View v = o.view();
      v.codes = codes.data() + o.first;
      v.scales = scales.data();
      return v;
    };
    Mat<std::uint8_t> ca, cb;
    Mat<float> sa, sb, out(c.m, c.n);
    Fp8Gemm g = r.gemm;
    g.a = host_view(r.a, ca, sa);
    g.b = host_view(r.b, cb, sb);
    g.c = out.view();
    g.accumulate = false;
    gemm_fp8_ref(host, {&g, 1});
    const double error = c.k == 0 ? 0 : relative_error(want.sum, out);
    EXPECT_LT(error, 1e-6) << text(c);
  }
}

TEST_F(CudaGemmFp8Test, EveryKernelAgreesInEveryCase) {
  const auto kernels = fp8_kernels();
  for (int i = 0; i < static_cast<int>(kernels.size()); ++i) {
    double worst = 0;
    for (const int split_cost : {0, 1 << 20}) {
      for (const Case& c : kCases) {
        if (c.column_scales() && !kernels[i].column_scales) continue;
        Ready r = ready(c, 3);
        gemm_fp8(ctx, {&r.gemm, 1}, {.kernel = i, .group = 2, .split_cost = split_cost});
        worst = std::max(worst, compare(r, c, cat(kernels[i].name, " split ", split_cost)));
        if (HasFailure()) return;  // the first tells most
      }
    }
    std::printf("kernel %-32s largest error / sum of magnitudes %.2e\n", kernels[i].name, worst);
  }
}

TEST_F(CudaGemmFp8Test, ManyTilesAndPiecesAgree) {
  const auto kernels = fp8_kernels();
  for (const Case& c : kLargeCases) {
    const Want want = plain(ready(c, 5).gemm);
    for (int i = 0; i < static_cast<int>(kernels.size()); ++i) {
      if (c.column_scales() != kernels[i].column_scales) continue;
      for (const int split_cost : {0, 1 << 20}) {
        Ready r = ready(c, 5);
        gemm_fp8(ctx, {&r.gemm, 1}, {.kernel = i, .split_cost = split_cost});
        compare(r, c, want, cat(kernels[i].name, " split ", split_cost));
        if (HasFailure()) return;
        if (split_cost != 0 || c.accumulate) continue;
        const Mat<float> first = down(r.c);  // again: the same bits
        gemm_fp8(ctx, {&r.gemm, 1}, {.kernel = i, .split_cost = split_cost});
        const Mat<float> second = down(r.c);
        EXPECT_EQ(std::memcmp(first.data(), second.data(), first.size() * 4), 0)
            << kernels[i].name << " " << text(c) << ": two runs differ";
      }
    }
  }
}

TEST_F(CudaGemmFp8Test, ListsOfExperts) {
  const int rows[] = {0, 1, 64, 65, 200, 3, 0, 129, 300, 16, 128, 31};
  for (const bool weights : {false, true}) {
    std::vector<Case> cases;
    for (const int r : rows) {
      cases.push_back(weights ? Case{160, 272, r, true, false, kColumn, kColumn, true}
                              : Case{r, 272, 640});
    }
    for (int i = 0; i < static_cast<int>(fp8_kernels().size()); ++i) {
      if (weights && !fp8_kernels()[i].column_scales) continue;
      std::vector<Ready> all;
      std::vector<Fp8Gemm> list;
      for (const Case& c : cases) {
        all.push_back(ready(c, 11 + all.size()));
        list.push_back(all.back().gemm);
      }
      gemm_fp8(ctx, list, {.kernel = i});
      for (std::size_t j = 0; j < all.size(); ++j) {
        compare(all[j], cases[j], cat(fp8_kernels()[i].name, " expert ", j));
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(CudaGemmFp8Test, CountsOnTheDevice) {
  Mat<std::int32_t> counts(1, 5);
  const int rows[] = {0, 7, 300, 65, 257};
  std::copy(rows, rows + 5, counts.data());
  const Mat<std::int32_t> there = up(counts);
  const Case c{300, 400, 512};
  for (int kernel = -1; kernel < static_cast<int>(fp8_kernels().size()); ++kernel) {
    std::vector<Ready> all;
    std::vector<Fp8Gemm> list;
    for (int i = 0; i < 5; ++i) {
      all.push_back(ready(c, 21 + static_cast<unsigned>(i)));
      list.push_back(all.back().gemm);
    }
    if (kernel < 0) {
      gemm_fp8_masked(ctx, list, there.data());
    } else {
      gemm_fp8(ctx, list, {.kernel = kernel}, there.data());
    }
    for (std::size_t j = 0; j < 5; ++j) {
      compare(all[j], c, cat("kernel ", kernel, " expert ", j), rows[j]);
    }
  }
}

TEST_F(CudaGemmFp8Test, TheTableChoosesByItself) {
  for (const Case& c : kCases) {
    Ready r = ready(c, 31);
    cuda::gemm_fp8(ctx, std::span<const Fp8Gemm>(&r.gemm, 1));
    compare(r, c, "table");
  }
}

}  // namespace

}  // namespace cachalot::cuda::testing
