// Products on the device against the definition: every type, transposition, stride and path.
#include <dlfcn.h>

#include <array>

#include "kernels/cuda/gemm_case_test.cuh"
#include "kernels/cuda/gemm_parts.cuh"
#include "kernels/cuda/ops.h"

namespace cachalot::cuda {
namespace {

using testing::BothSides;
using testing::columns;
using testing::disagreement;
using testing::floats_of;
using testing::random_mat;

bool has_library() {
  return dlopen("libcublasLt.so.13", RTLD_NOW) != nullptr ||
         dlopen("libcublasLt.so", RTLD_NOW) != nullptr;
}

struct Case {
  int m, n, k;
  bool trans_a = false, trans_b = false;
  DType a = DType::kF32, b = DType::kF32;
  bool accumulate = false, c_bf16 = false;
  int left = 0, right = 0;  // columns around every operand
};

std::string text(const Case& c) {
  return cat(c.m, "x", c.n, "x", c.k, c.trans_a ? " A^T" : "", c.trans_b ? " B^T" : "", " a ",
             name(c.a), " b ", name(c.b), c.accumulate ? " +=" : "", c.c_bf16 ? " c bf16" : "",
             " pad ", c.left, ",", c.right);
}

struct Path {
  const char* name;
  void (*run)(const Context&, Precision, std::span<const Gemm>);
};

void by_library(const Context& ctx, Precision precision, std::span<const Gemm> problems) {
  std::vector<Gemm> list(problems.begin(), problems.end()), refused;
  convert_operands(ctx, precision == Precision::kBF16 ? DType::kBF16 : DType::kF32, list);
  gemm_library(ctx, list, refused);
  EXPECT_TRUE(refused.empty()) << refused.size() << " problems refused by the library";
}

void by_groups(const Context& ctx, Precision precision, std::span<const Gemm> problems) {
  ASSERT_EQ(Precision::kBF16, precision);
  std::vector<Gemm> list(problems.begin(), problems.end()), rest;
  convert_operands(ctx, DType::kBF16, list);
  std::copy_if(list.begin(), list.end(), std::back_inserter(rest),
               [](const Gemm& g) { return !fits_groups(g); });
  std::erase_if(list, [](const Gemm& g) { return !fits_groups(g); });
  gemm_groups(ctx, list);
  gemm_tiles(ctx, precision, rest);
}

constexpr Path kGroups{"groups", by_groups};
constexpr Path kGemm{"gemm", gemm}, kTiles{"tiles", gemm_tiles}, kRows{"rows", gemm_rows},
    kLibrary{"library", by_library};

class CudaGemmTest : public testing::CudaTest {
 protected:
  BothSides make(DType type, int rows, int cols, int left, int right, std::uint64_t seed) {
    BothSides s;
    Mat<float> values = random_mat(std::max(rows, 1), cols + left + right, seed);
    if (type == DType::kF32) {
      s.f = std::move(values);
      s.f_up = up(s.f);
      s.host = s.f.cview();
      s.device = s.f_up.cview();
    } else {
      s.h = testing::to_bf16(values);
      s.h_up = up(s.h);
      s.host = s.h.cview();
      s.device = s.h_up.cview();
    }
    for (MatRef* m : {&s.host, &s.device}) {
      *m = columns(*m, left, cols);
      m->rows = rows;
    }
    return s;
  }

  // A list of problems, on the device by every path and by the definition.
  void compare(const std::vector<Path>& paths, Precision precision,
               const std::vector<Case>& cases) {
    std::vector<BothSides> operands;
    std::vector<Mat<float>> before, want;
    std::vector<Mat<Bf16>> want_bf16;
    std::uint64_t seed = 1;
    for (const Case& c : cases) {
      operands.push_back(
          make(c.a, c.trans_a ? c.k : c.m, c.trans_a ? c.m : c.k, c.left, c.right, ++seed));
      operands.push_back(
          make(c.b, c.trans_b ? c.n : c.k, c.trans_b ? c.k : c.n, c.left, c.right, ++seed));
      const int width = c.n + c.left + c.right;
      before.push_back(random_mat(c.m, width, ++seed));
      want.push_back(before.back().clone());
      want_bf16.emplace_back(c.m, width);
    }
    const auto list = [&](bool device, std::vector<Mat<float>>& y, std::vector<Mat<Bf16>>& y_bf16) {
      std::vector<Gemm> problems;
      for (std::size_t i = 0; i < cases.size(); ++i) {
        const Case& c = cases[i];
        const BothSides &a = operands[2 * i], &b = operands[2 * i + 1];
        Gemm g{device ? a.device : a.host,
               device ? b.device : b.host,
               y[i].view().sub_cols(c.left, c.n),
               c.trans_a,
               c.trans_b,
               c.accumulate};
        if (c.c_bf16) {
          g.c_bf16 = y_bf16[i].view().sub_cols(c.left, c.n);
          g.c = {nullptr, c.m, c.n, c.n};
        }
        problems.push_back(g);
      }
      return problems;
    };
    gemm_ref(host, precision, list(false, want, want_bf16));
    for (const Path& path : paths) {
      std::vector<Mat<float>> got;
      std::vector<Mat<Bf16>> got_bf16;
      for (std::size_t i = 0; i < cases.size(); ++i) {
        const int rows = before[i].rows(), width = before[i].cols();
        got.push_back(cases[i].accumulate ? up(before[i]) : room<float>(rows, width));
        got_bf16.push_back(room<Bf16>(rows, width));
      }
      path.run(ctx, precision, list(true, got, got_bf16));
      for (std::size_t i = 0; i < cases.size(); ++i) {
        const Case& c = cases[i];
        const Mat<float> g = c.c_bf16 ? floats_of(down(got_bf16[i])) : down(got[i]);
        const Mat<float> bf16 = floats_of(want_bf16[i]);
        const MatView<const float> w = c.c_bf16 ? bf16.cview() : want[i].cview();
        const std::string wrong = disagreement(g.cview().sub_cols(c.left, c.n),
                                               w.sub_cols(c.left, c.n), c.c_bf16 ? 9e-3 : 2e-5);
        EXPECT_EQ("", wrong) << path.name << (precision == Precision::kBF16 ? " bf16 " : " f32 ")
                             << text(c);
        if (c.m > 0 && c.right > 0 && !c.accumulate) {  // nothing beside the result is touched
          const float beside = g.at(c.m - 1, c.left + c.n);
          EXPECT_TRUE(std::isnan(beside))
              << path.name << " wrote beside " << text(c) << ": " << beside;
        }
      }
    }
  }
};

std::vector<Case> all_types(int m, int n, int k, int left, int right) {
  std::vector<Case> cases;
  for (int bits = 0; bits < 64; ++bits) {
    Case c{m, n, k, (bits & 1) != 0, (bits & 2) != 0};
    c.a = (bits & 4) != 0 ? DType::kBF16 : DType::kF32;
    c.b = (bits & 8) != 0 ? DType::kBF16 : DType::kF32;
    c.accumulate = (bits & 16) != 0;
    c.c_bf16 = (bits & 32) != 0;
    c.left = left;
    c.right = right;
    if (!(c.accumulate && c.c_bf16)) cases.push_back(c);
  }
  return cases;
}

constexpr int kShapes[][3] = {{1, 1, 1}, {7, 13, 5}, {33, 65, 127}, {64, 96, 72}};
constexpr std::pair<int, int> kPads[] = {{0, 0}, {8, 8}, {1, 2}};

TEST_F(CudaGemmTest, EveryTypeThroughEveryPath) {
  for (const auto& [m, n, k] : kShapes) {
    for (const auto& [left, right] : kPads) {
      for (const Precision p : {Precision::kF32, Precision::kBF16}) {
        compare({kGemm, kTiles}, p, all_types(m, n, k, left, right));
      }
    }
  }
}

TEST_F(CudaGemmTest, Library) {
  if (!has_library()) GTEST_SKIP() << "no cublasLt on this machine";
  for (const auto& [m, n, k] : kShapes) {
    for (const auto& [left, right] : kPads) {
      std::vector<Case> cases = all_types(m, n, k, left, right);
      compare({kLibrary}, Precision::kBF16, cases);
      std::erase_if(cases, [](const Case& c) { return c.c_bf16; });
      compare({kLibrary}, Precision::kF32, cases);
    }
  }
}

TEST_F(CudaGemmTest, Groups) {
  for (const auto& [m, n, k] : kShapes) {
    for (const auto& [left, right] : kPads) {
      compare({kGroups}, Precision::kBF16, all_types(m, n, k, left, right));
    }
  }
  // The last: rows that begin at 16 bytes and end between.
  for (const auto& [m, n, k, right] :
       {std::array{200, 300, 136, 8}, {260, 130, 320, 8}, {260, 130, 320, 6}}) {
    std::vector<Case> cases = all_types(m, n, k, 8, right);
    std::erase_if(cases, [](const Case& c) { return c.a == DType::kF32 || c.b == DType::kF32; });
    compare({kGroups}, Precision::kBF16, cases);
  }
}

TEST_F(CudaGemmTest, Rows) {
  std::vector<Case> cases;
  for (const int m : {1, 2, 7, 8, 9, 16, 17, 31, 32, 45}) {
    for (const auto& [n, k] : {std::pair{16, 64}, {37, 200}, {130, 1024}, {5, 3}, {64, 1100}}) {
      for (int bits = 0; bits < 4; ++bits) {
        Case c{m, n, k, false, true};
        c.a = (bits & 1) != 0 ? DType::kBF16 : DType::kF32;
        c.b = (bits & 2) != 0 ? DType::kBF16 : DType::kF32;
        c.accumulate = m % 2 != 0;
        c.c_bf16 = m == 2;
        c.left = m % 3 == 0 ? 3 : 0;
        c.right = m % 3 == 0 ? 1 : 8;
        cases.push_back(c);
      }
    }
  }
  for (const int most : {8, 16, 64}) {
    std::vector<Case> some;
    std::copy_if(cases.begin(), cases.end(), std::back_inserter(some),
                 [&](const Case& c) { return c.m <= most; });
    compare({kRows}, Precision::kBF16, some);
  }
}

TEST_F(CudaGemmTest, RowsOfFloats) {
  std::vector<Case> cases;
  for (const int m : {1, 3, 8, 13, 16}) {
    for (const int n : {1, 64, 101}) {
      for (int bits = 0; bits < 4; ++bits) {
        Case c{m, n, n == 64 ? 4096 : 1028, false, true};
        c.a = (bits & 1) != 0 ? DType::kBF16 : DType::kF32;
        c.b = (bits & 2) != 0 ? DType::kBF16 : DType::kF32;
        c.accumulate = m % 2 != 0;
        c.left = m % 3 == 0 ? 4 : 0;
        c.right = m % 3 == 0 ? 0 : 4;
        cases.push_back(c);
      }
    }
  }
  compare({kGemm}, Precision::kF32, cases);
}

TEST_F(CudaGemmTest, EmptyProblemsAndEmptySums) {
  for (const Precision p : {Precision::kF32, Precision::kBF16}) {
    std::vector<Case> cases;
    for (const bool trans : {false, true}) {
      for (const bool add : {false, true}) {
        cases.push_back({64, 48, 0, trans, false, DType::kF32, DType::kBF16, add});
        cases.push_back({0, 48, 16, trans, true, DType::kBF16, DType::kF32, add});
        cases.push_back({5, 48, 16, trans, true, DType::kBF16, DType::kF32, add});
        cases.push_back({3, 0, 16, trans, true, DType::kF32, DType::kF32, add});
      }
      cases.push_back({64, 48, 0, trans, false, DType::kF32, DType::kBF16, false, true});
    }
    compare({kGemm}, p, cases);
    cuda::gemm(ctx, p, std::span<const Gemm>());
  }
}

// Experts as they are called: groups of rows of one matrix, some of them empty, and the same x for
// two products; converted once each.
TEST_F(CudaGemmTest, GroupsOfOneMatrix) {
  constexpr int kGroups = 5, kIn = 72, kOut = 40;
  constexpr int kBegin[kGroups + 1] = {0, 3, 3, 64, 65, 130};
  const Mat<float> x = random_mat(130, kIn, 1), w = random_mat(kGroups * kOut, kIn, 2),
                   dy = random_mat(130, kOut, 3);
  const Mat<float> x_up = up(x), w_up = up(w), dy_up = up(dy);
  for (const bool whole : {true, false}) {
    if (!whole && !has_library()) continue;
    Mat<float> y(130, kOut), dx(130, kIn), dw(kGroups * kOut, kIn);
    Mat<float> y_up = room<float>(130, kOut), dx_up = room<float>(130, kIn),
               dw_up = room<float>(kGroups * kOut, kIn);
    const auto list = [&](const Mat<float>& xx, const Mat<float>& ww, const Mat<float>& dd,
                          Mat<float>& yy, Mat<float>& ddx, Mat<float>& ddw) {
      std::vector<Gemm> problems;
      for (int g = 0; g < kGroups; ++g) {
        const int begin = kBegin[g], rows = kBegin[g + 1] - begin;
        const MatRef xg = xx.cview().sub_rows(begin, rows), dg = dd.cview().sub_rows(begin, rows),
                     wg = ww.cview().sub_rows(g * kOut, kOut);
        const Gemm each[] = {linear(xg, wg, yy.view().sub_rows(begin, rows)),
                             {dg, wg, ddx.view().sub_rows(begin, rows)},
                             {dg, xg, ddw.view().sub_rows(g * kOut, kOut), true, false}};
        for (const Gemm& p : each) {
          if (whole || (p.m() > 0 && p.k() > 0)) problems.push_back(p);
        }
      }
      return problems;
    };
    gemm_ref(host, Precision::kBF16, list(x, w, dy, y, dx, dw));
    (whole ? kGemm : kLibrary)
        .run(ctx, Precision::kBF16, list(x_up, w_up, dy_up, y_up, dx_up, dw_up));
    EXPECT_EQ("", disagreement(down(y_up).cview(), y.cview(), 1e-5)) << "y";
    EXPECT_EQ("", disagreement(down(dx_up).cview(), dx.cview(), 1e-5)) << "dx";
    if (whole) {
      EXPECT_EQ("", disagreement(down(dw_up).cview(), dw.cview(), 1e-5)) << "dw";
    }
  }
}

// Too large for the definition here: groups against tiles, more of them than multiprocessors.
TEST_F(CudaGemmTest, LargeGroupsAgreeWithTiles) {
  constexpr int kM = 1300, kN = 1408, kK = 520;
  for (const bool trans_a : {false, true}) {
    for (const bool trans_b : {false, true}) {
      constexpr int kWidth = 1304;  // whole vectors
      const Mat<Bf16> a =
          up(testing::to_bf16(random_mat(trans_a ? kK : kM, trans_a ? kWidth : kK, 1)));
      const Mat<Bf16> b = up(testing::to_bf16(random_mat(trans_b ? kN : kK, trans_b ? kK : kN, 2)));
      Mat<float> got[3], want[3];
      std::vector<Gemm> list, same;
      for (int i = 0; i < 3; ++i) {
        const int m = i == 1 ? kM : kM - 5 * i, k = kK - 8 * i;
        got[i] = room<float>(m, kN);
        want[i] = room<float>(m, kN);
        const MatRef x =
            columns(MatRef(a.cview()).sub_rows(0, trans_a ? k : m), 0, trans_a ? m : k);
        const MatRef y =
            columns(MatRef(b.cview()).sub_rows(0, trans_b ? kN : k), 0, trans_b ? k : kN);
        list.push_back({x, y, got[i].view(), trans_a, trans_b});
        same.push_back({x, y, want[i].view(), trans_a, trans_b});
      }
      for (int turn = 0; turn < 3; ++turn) {  // other maps at other addresses each time
        gemm_groups(ctx, std::span<const Gemm>(list).subspan(static_cast<std::size_t>(turn), 1));
      }
      gemm_tiles(ctx, Precision::kBF16, same);
      for (groups_variant = 0; groups_variant < 4; ++groups_variant) {
        for (auto& m : got) device_->zero(m.data(), m.size() * sizeof(float));
        gemm_groups(ctx, list);
        for (int i = 0; i < 3; ++i) {
          EXPECT_EQ("", disagreement(down(got[i]).cview(), down(want[i]).cview(), 2e-5))
              << "trans " << trans_a << trans_b << " problem " << i << " variant "
              << groups_variant;
        }
      }
      groups_variant = 0;
    }
  }
}

// The library against the tiles.
TEST_F(CudaGemmTest, LargeOnesAgreeWithTiles) {
  if (!has_library()) GTEST_SKIP() << "no cublasLt on this machine";
  constexpr int kM = 700, kN = 1408, kK = 1000;
  const Mat<float> a = up(random_mat(kM, kK, 1)), b = up(random_mat(kN, kK, 2));
  for (const Precision p : {Precision::kF32, Precision::kBF16}) {
    Mat<float> one = room<float>(kM, kN), two = room<float>(kM, kN);
    cachalot::gemm(ctx, p, linear(a.cview(), MatRef(b.cview()), one.view()));
    const Gemm g = linear(a.cview(), MatRef(b.cview()), two.view());
    gemm_tiles(ctx, p, {&g, 1});
    EXPECT_EQ("", disagreement(down(one).cview(), down(two).cview(), 3e-5));
  }
}

// The library above the sizes of the cases before, where it cuts k and chooses among more kernels:
// every transposition, added to what was there, and rounded to bf16, against the tiles.
TEST_F(CudaGemmTest, LibraryAgreesWithTilesOnLargeOnes) {
  if (!has_library()) GTEST_SKIP() << "no cublasLt on this machine";
  // Whole tiles; odd sizes; a long sum over few results; few rows; heads of attention.
  constexpr int kSizes[][3] = {
      {512, 768, 1024}, {301, 523, 1111}, {136, 264, 16384}, {17, 1408, 2048}, {2048, 192, 576}};
  for (const auto& [m, n, k] : kSizes) {
    const auto numbers = [&, k = k](int other, std::uint64_t seed) {
      return up(testing::to_bf16(random_mat(1, other * k + 8 * std::max(other, k), seed)));
    };
    const Mat<Bf16> a = numbers(m, 1), b = numbers(n, 2);
    for (int bits = 0; bits < 32; ++bits) {
      const bool trans_a = (bits & 1) != 0, trans_b = (bits & 2) != 0, add = (bits & 4) != 0;
      const bool in_bf16 = (bits & 8) != 0;
      if (add && in_bf16) continue;
      const int pad = (bits & 16) != 0 ? 8 : 0;
      const auto operand = [&](const Mat<Bf16>& from, int rows, int cols) {
        return MatRef(from.data(), DType::kBF16, rows, cols, cols + pad);
      };
      const MatRef x = trans_a ? operand(a, k, m) : operand(a, m, k);
      const MatRef y = trans_b ? operand(b, n, k) : operand(b, k, n);
      const Mat<float> before = random_mat(m, n + pad, 3);
      Mat<float> got = up(before), want = up(before);
      Mat<Bf16> got_bf16 = room<Bf16>(m, n + pad);
      const auto product = [&](Mat<float>& c) {
        return Gemm{x, y, c.view().sub_cols(0, n), trans_a, trans_b, add};
      };
      Gemm by_library = product(got);
      if (in_bf16) by_library.c_bf16 = got_bf16.view().sub_cols(0, n);
      std::vector<Gemm> refused;
      gemm_library(ctx, {&by_library, 1}, refused);
      EXPECT_TRUE(refused.empty());
      const Gemm by_tiles = product(want);
      gemm_tiles(ctx, Precision::kBF16, {&by_tiles, 1});
      const Mat<float> g = in_bf16 ? floats_of(down(got_bf16)) : down(got), w = down(want);
      // Half a step of bf16 is up to 2^-8 of a number. Both sum floats, 16 products at a time, and
      // the tensor cores cut what does not fit: all additions may err by a step in one direction.
      const double sums = std::max(3e-5, k / 16 * 0x1p-23);
      EXPECT_EQ("", disagreement(g.cview().sub_cols(0, n), w.cview().sub_cols(0, n),
                                 in_bf16 ? 0x1p-8 + sums : sums))
          << m << "x" << n << "x" << k << " bits " << bits;
    }
  }
}

TEST_F(CudaGemmTest, APackedBIsRefused) {
  PackedB packed;
  Gemm g;
  g.packed = &packed;
  EXPECT_THROW(cuda::gemm(ctx, Precision::kBF16, {&g, 1}), Error);
}

}  // namespace
}  // namespace cachalot::cuda
