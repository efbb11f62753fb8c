// fixtures/fp8, bit for bit: codec, scales and codes; the block-scaled product in double.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "io/safetensors.h"
#include "numeric/quantize.h"
#include "numeric/small_float.h"
#include "testing/fixtures.h"

namespace cachalot::numeric {
namespace {

template <class T>
MatView<const T> view_of(const std::vector<T>& values, const Shape& shape) {
  return {values.data(), static_cast<int>(shape.at(0)), static_cast<int>(shape.at(1)),
          static_cast<std::ptrdiff_t>(shape.at(1))};
}

struct Matrix {
  Shape shape;
  std::vector<float> values;
  MatView<const float> view() const { return view_of(values, shape); }
};
struct Codes {
  Shape shape;
  std::vector<std::uint8_t> values;
  MatView<const std::uint8_t> view() const { return view_of(values, shape); }
};

Matrix floats_of(const io::TensorView& tensor) { return {tensor.shape, tensor.to_floats()}; }

Codes codes_of(const io::TensorView& tensor) {
  EXPECT_EQ(DType::kF8E4M3, tensor.dtype);
  Codes codes{tensor.shape, std::vector<std::uint8_t>(tensor.bytes)};
  std::memcpy(codes.values.data(), tensor.data, tensor.bytes);
  return codes;
}

void check_codec(const io::Safetensors& file) {
  const auto table = file.at("decode_table").to_floats();
  ASSERT_EQ(256u, table.size());
  for (unsigned code = 0; code < 256; ++code) {
    const float got = decode_e4m3(static_cast<std::uint8_t>(code));
    if (std::isnan(table[code])) {
      EXPECT_TRUE(std::isnan(got)) << code;
    } else {
      EXPECT_EQ(std::bit_cast<std::uint32_t>(table[code]), std::bit_cast<std::uint32_t>(got))
          << code;
    }
  }
  const auto x = file.at("encode.x").to_floats();
  const auto code = codes_of(file.at("encode.code"));
  ASSERT_EQ(x.size(), code.values.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(code.values[i], encode_e4m3(x[i])) << x[i] << " at " << i;
  }
  for (const std::int64_t bits : file.at("encode.nan_bits").to_ints()) {
    const float nan = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    ASSERT_TRUE(std::isnan(nan));
    EXPECT_EQ(std::signbit(nan) ? 0xFF : 0x7F, encode_e4m3(nan));
  }
}

// An all-zero tile may have any scale that is finite and positive; its codes are zero anyway.
void expect_same_scales(MatView<const float> want, MatView<const float> got, MatView<const float> x,
                        int block_rows, const std::string& what) {
  ASSERT_EQ(want.rows, got.rows) << what;
  ASSERT_EQ(want.cols, got.cols) << what;
  for (int r = 0; r < want.rows; ++r) {
    for (int c = 0; c < want.cols; ++c) {
      bool zero = true;
      for (int i = r * block_rows; i < std::min(x.rows, (r + 1) * block_rows); ++i) {
        for (int j = c * kScaleBlock; j < std::min(x.cols, (c + 1) * kScaleBlock); ++j) {
          zero = zero && x.at(i, j) == 0.0f;
        }
      }
      if (zero) {
        EXPECT_TRUE(std::isfinite(got.at(r, c)) && got.at(r, c) > 0) << what;
      } else {
        EXPECT_EQ(want.at(r, c), got.at(r, c)) << what << " scale " << r << ", " << c;
      }
    }
  }
}

void check_quantise(const io::Safetensors& file, const std::string& matrix,
                    const std::string& code_name, const std::string& scale_name, ScaleKind kind,
                    int block_rows) {
  const Matrix x = floats_of(file.at(matrix));
  const Codes want = codes_of(file.at(code_name));
  const Matrix want_scales = floats_of(file.at(scale_name));
  const auto v = x.view();
  Mat<std::uint8_t> codes(v.rows, v.cols);
  Mat<float> scales(blocks_of(v.rows, block_rows), blocks_of(v.cols, kScaleBlock));
  quantize_blocks(v, kind, codes.view(), scales.view(), block_rows);
  expect_same_scales(want_scales.view(), scales.view(), v, block_rows, scale_name);
  ASSERT_EQ(want.values.size(), codes.size()) << code_name;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    ASSERT_EQ(want.values[i], codes.data()[i]) << code_name << " at " << i;
  }
}

void check_product(const io::Safetensors& file, const std::string& gemm, const std::string& a_kind,
                   const std::string& w_kind) {
  const auto a = codes_of(file.at(gemm + ".a_code." + a_kind));
  const auto a_scales = floats_of(file.at(gemm + ".a_scale." + a_kind));
  const auto w = codes_of(file.at(gemm + ".w_code." + w_kind));
  const auto w_scales = floats_of(file.at(gemm + ".w_scale_inv." + w_kind));
  const auto want = file.at(gemm + ".y." + a_kind + "." + w_kind).to_doubles();
  Mat<double> y(a.view().rows, w.view().rows);
  block_scaled_gemm(a.view(), a_scales.view(), w.view(), w_scales.view(), y.view());
  ASSERT_EQ(want.size(), y.size());
  double largest = 0.0;
  for (const double value : want) largest = std::max(largest, std::fabs(value));
  for (std::size_t i = 0; i < y.size(); ++i) {
    EXPECT_NEAR(want[i], y.data()[i], 1e-13 * largest) << gemm << " " << a_kind << " at " << i;
  }
}

TEST(Fp8Fixture, BitForBit) {
  const auto folders = testing::fixture_folders(testing::FixtureKind::kFp8);
  ASSERT_FALSE(folders.empty()) << "no fp8* folder in " << testing::fixtures_root();
  for (const auto& folder : folders) {
    SCOPED_TRACE(folder.string());
    const auto file = io::Safetensors::open(folder / "expected.safetensors");
    check_codec(file);
    int products = 0;
    for (int i = 0; file.find("gemm" + std::to_string(i) + ".a") != nullptr; ++i) {
      const std::string gemm = "gemm" + std::to_string(i);
      for (const ScaleKind kind : kScaleKinds) {
        const std::string k(name(kind));
        check_quantise(file, gemm + ".a", gemm + ".a_code." + k, gemm + ".a_scale." + k, kind, 1);
        if (file.find(gemm + ".w_code." + k) != nullptr) {
          check_quantise(file, gemm + ".w", gemm + ".w_code." + k, gemm + ".w_scale_inv." + k, kind,
                         kScaleBlock);
        }
        for (const ScaleKind w_kind : kScaleKinds) {
          const std::string w(name(w_kind));
          if (file.find(gemm + ".y." + k + "." + w) == nullptr) continue;
          check_product(file, gemm, k, w);
          ++products;
        }
      }
    }
    EXPECT_GT(products, 0) << "no gemm{i} in the file";
  }
}

}  // namespace
}  // namespace cachalot::numeric
