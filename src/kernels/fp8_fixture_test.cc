// fixtures/fp8 at every level: codes and scales bit for bit, the block-scaled product.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "io/safetensors.h"
#include "kernels/cpu/level_test.h"
#include "kernels/fp8.h"
#include "testing/fixtures.h"

namespace cachalot {
namespace {

using numeric::ScaleKind;

class Fp8KernelsFixture : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(Fp8KernelsFixture);

struct Values {
  int rows = 0, cols = 0;
  std::vector<float> v;
  MatView<const float> view() const { return {v.data(), rows, cols, cols}; }
};

Values floats_of(const io::TensorView& t) {
  return {static_cast<int>(t.shape.at(0)), static_cast<int>(t.shape.at(1)), t.to_floats()};
}

Fp8View operand(const io::TensorView& codes, const Values& scales, ScaleTile tile) {
  const auto cols = static_cast<int>(codes.shape.at(1));
  return {reinterpret_cast<const std::uint8_t*>(codes.data),
          static_cast<int>(codes.shape.at(0)),
          cols,
          cols,
          scales.v.data(),
          scales.cols,
          tile};
}

void check_codes(const Context& ctx, const io::Safetensors& file, const std::string& matrix,
                 const std::string& codes, const std::string& scales, ScaleKind kind,
                 ScaleTile tile) {
  const Values x = floats_of(file.at(matrix));
  const Values want_scales = floats_of(file.at(scales));
  const Fp8View want = operand(file.at(codes), want_scales, tile);
  Fp8Mat got;
  got.resize(x.rows, x.cols, tile);
  quantize_fp8(ctx, {x.view(), kind, got.out(), {}});
  for (int i = 0; i < x.rows; ++i) {
    ASSERT_EQ(0, std::memcmp(want.row(i), got.view().row(i), static_cast<std::size_t>(x.cols)))
        << codes << " row " << i;
  }
  for (int i = 0; i < scale_rows(tile, x.rows); ++i) {
    for (int j = 0; j < scale_cols(tile, x.cols); ++j) {
      const float scale = got.view().scale_row(i)[j];
      // An all-zero tile may have any positive, finite scale: its codes are zeros.
      bool zero = true;
      const int height = tile == ScaleTile::kRow ? 1 : kScaleTileSize;
      for (int r = i * height; r < std::min(x.rows, (i + 1) * height); ++r) {
        for (int c = j * 128; c < std::min(x.cols, (j + 1) * 128); ++c) {
          zero = zero && x.view().at(r, c) == 0.0f;
        }
      }
      if (zero) {
        EXPECT_TRUE(std::isfinite(scale) && scale > 0) << scales;
      } else {
        EXPECT_EQ(want.scale_row(i)[j], scale) << scales << " " << i << ", " << j;
      }
    }
  }
}

void check_product(const Context& ctx, const io::Safetensors& file, const std::string& gemm,
                   const std::string& a_kind, const std::string& w_kind) {
  const Values a_scales = floats_of(file.at(gemm + ".a_scale." + a_kind));
  const Values w_scales = floats_of(file.at(gemm + ".w_scale_inv." + w_kind));
  const Fp8View a = operand(file.at(gemm + ".a_code." + a_kind), a_scales, ScaleTile::kRow);
  const Fp8View w = operand(file.at(gemm + ".w_code." + w_kind), w_scales, ScaleTile::kBlock);
  const auto want = file.at(gemm + ".y." + a_kind + "." + w_kind).to_doubles();
  Mat<float> y(a.rows, w.rows), by_ref(a.rows, w.rows);
  const Fp8Gemm problem{a, w, y.view(), false, true, false};
  gemm_fp8(ctx, problem);
  Fp8Gemm reference = problem;
  reference.c = by_ref.view();
  gemm_fp8_ref(Context{}, std::span<const Fp8Gemm>(&reference, 1));
  ASSERT_EQ(want.size(), y.size());
  EXPECT_EQ(0, std::memcmp(y.data(), by_ref.data(), y.size() * sizeof(float))) << gemm;
  double largest = 0.0;
  for (const double value : want) largest = std::max(largest, std::fabs(value));
  for (std::size_t i = 0; i < y.size(); ++i) {
    EXPECT_NEAR(want[i], y.data()[i], 1e-5 * largest) << gemm << " " << a_kind << " at " << i;
  }
}

TEST_P(Fp8KernelsFixture, CodesScalesAndProducts) {
  const auto folders = testing::fixture_folders(testing::FixtureKind::kFp8);
  ASSERT_FALSE(folders.empty()) << "no fp8* folder in " << testing::fixtures_root();
  for (const auto& folder : folders) {
    SCOPED_TRACE(folder.string());
    const auto file = io::Safetensors::open(folder / "expected.safetensors");
    int products = 0;
    for (int i = 0; file.find("gemm" + std::to_string(i) + ".a") != nullptr; ++i) {
      const std::string gemm = "gemm" + std::to_string(i);
      for (const ScaleKind kind : numeric::kScaleKinds) {
        const std::string k(numeric::name(kind));
        check_codes(context(), file, gemm + ".a", gemm + ".a_code." + k, gemm + ".a_scale." + k,
                    kind, ScaleTile::kRow);
        if (file.find(gemm + ".w_code." + k) != nullptr) {
          check_codes(context(), file, gemm + ".w", gemm + ".w_code." + k,
                      gemm + ".w_scale_inv." + k, kind, ScaleTile::kBlock);
        }
        for (const ScaleKind w_kind : numeric::kScaleKinds) {
          const std::string w(numeric::name(w_kind));
          if (file.find(gemm + ".y." + k + "." + w) == nullptr) continue;
          check_product(context(), file, gemm, k, w);
          ++products;
        }
      }
    }
    EXPECT_GT(products, 0) << "no gemm{i} in the file";
  }
}

}  // namespace
}  // namespace cachalot
