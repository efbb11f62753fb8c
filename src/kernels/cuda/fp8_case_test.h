// For tests of quantising on the GPU: matrices of codes on both sides, and comparisons bit by bit.
#pragma once

#include <bit>
#include <string>

#include "kernels/cuda/cuda_case_test.h"
#include "kernels/fp8.h"

namespace cachalot::cuda::testing {

inline std::string name(ScaleTile tile) {
  constexpr const char* kNames[] = {"row", "column", "block", "tensor"};
  return kNames[static_cast<int>(tile)];
}

// Codes and scales somewhere, with room between the rows.
struct Codes {
  Mat<std::uint8_t> codes;
  Mat<float> scales;
  int rows = 0, cols = 0;
  ScaleTile tile = ScaleTile::kRow;

  Fp8Out out() {
    return {codes.data(), rows, cols, codes.cols(), scales.data(), scales.cols(), tile};
  }
  Fp8View view() { return out(); }
};

inline bool same(std::uint8_t a, std::uint8_t b) {
  return a == b || ((a & 0x7F) == 0x7F && (b & 0x7F) == 0x7F);  // any NaN is NaN
}
inline bool same(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}
inline bool same(Bf16 a, Bf16 b) {
  return a.bits == b.bits || (std::isnan(to_float(a)) && std::isnan(to_float(b)));
}
inline double shown(std::uint8_t x) { return x; }
inline double shown(float x) { return x; }
inline double shown(Bf16 x) { return to_float(x); }

// The first difference of [rows, cols] and how many there are.
template <class T>
void expect_same(const Mat<T>& got, const Mat<T>& want, int rows, int cols,
                 const std::string& what) {
  int bad = 0, row = 0, col = 0;
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < cols; ++j) {
      if (same(got.at(i, j), want.at(i, j))) continue;
      if (bad++ == 0) {
        row = i;
        col = j;
      }
    }
  }
  if (bad > 0) {
    ADD_FAILURE() << what << " [" << rows << ", " << cols << "]: " << bad << " differ, first at "
                  << row << ", " << col << ": " << shown(got.at(row, col)) << " instead of "
                  << shown(want.at(row, col));
  }
}
// What lies past `cols` still has the bytes of room().
inline void expect_untouched(const Mat<std::uint8_t>& m, int cols, const std::string& what) {
  for (int i = 0; i < m.rows(); ++i) {
    for (int j = cols; j < m.cols(); ++j) {
      if (m.at(i, j) != 0xFF) {
        ADD_FAILURE() << what << ": wrote past the end at " << i << ", " << j;
        return;
      }
    }
  }
}

// The same result with its codes transposed, in room of its own: [cols, rows at least].
inline Fp8Out transposed(Fp8Out o, Mat<std::uint8_t>& codes) {
  o.codes = codes.data();
  o.stride = codes.cols();
  o.transposed = true;
  return o;
}
inline void expect_transposed(const Mat<std::uint8_t>& got, const Codes& want,
                              const std::string& what) {
  int bad = 0;
  for (int j = 0; j < want.cols; ++j) {
    for (int i = 0; i < got.cols(); ++i) {
      const std::uint8_t w = i < want.rows ? want.codes.at(i, j) : 0xFF;
      if (same(got.at(j, i), w)) continue;
      if (bad++ < 3) {
        ADD_FAILURE() << what << " [" << want.rows << ", " << want.cols << "]: row " << i
                      << " column " << j << " is " << int{got.at(j, i)} << " instead of " << int{w};
      }
    }
  }
  EXPECT_EQ(0, bad) << what;
}

class Fp8CudaTest : public CudaTest {
 protected:
  Codes device_codes(int rows, int cols, ScaleTile tile, int pad = 0, int scale_pad = 0) {
    Codes c{room<std::uint8_t>(rows, cols + pad),
            room<float>(scale_rows(tile, rows), scale_cols(tile, cols) + scale_pad), rows, cols,
            tile};
    return c;
  }
  static Codes host_codes(int rows, int cols, ScaleTile tile, int pad = 0) {
    Codes c{Mat<std::uint8_t>(rows, cols + pad),
            Mat<float>(scale_rows(tile, rows), scale_cols(tile, cols)), rows, cols, tile};
    return c;
  }
  Codes up(const Codes& c) {
    return {CudaTest::up(c.codes), CudaTest::up(c.scales), c.rows, c.cols, c.tile};
  }
  using CudaTest::up;
  void expect_codes(const Codes& got, const Codes& want, const std::string& what) {
    const Mat<std::uint8_t> codes = down(got.codes);
    expect_same(down(got.scales), want.scales, want.scales.rows(), scale_cols(want.tile, want.cols),
                what + " scales of " + name(want.tile));
    expect_same(codes, want.codes, want.rows, want.cols,
                what + " codes of " + name(want.tile) + " tiles");
    expect_untouched(codes, want.cols, what);
  }
};

// Normal values; rows, columns and single ones of other sizes, so that no two tiles are alike.
inline Mat<float> uneven_mat(int rows, int cols, std::uint64_t seed) {
  Mat<float> m = random_mat(rows, cols, seed);
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < cols; ++j) {
      m.at(i, j) = std::ldexp(m.at(i, j), (i * 7 + j / 3 * 5) % 13 - 6);
      if ((i * 31 + j * 17) % 11 == 0) m.at(i, j) = i % 2 == 0 ? 0.0f : -0.0f;
    }
  }
  return m;
}

}  // namespace cachalot::cuda::testing
