// Quantising at every level: the codes and scales of the reference, bit for bit.
#include <gmock/gmock.h>

#include <cstring>

#include "kernels/cpu/fp8_case_test.h"
#include "kernels/cpu/level_test.h"
#include "kernels/fp8.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using numeric::ScaleKind;
using testing::first_difference;
using testing::Fp8Operand;

class Fp8QuantizeTest : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(Fp8QuantizeTest);

constexpr ScaleTile kTiles[] = {ScaleTile::kRow, ScaleTile::kColumn, ScaleTile::kBlock,
                                ScaleTile::kTensor};
constexpr float kInf = std::numeric_limits<float>::infinity();

// A result with room between its rows, which must stay as it was.
struct Result {
  Fp8Operand padded;
  Result(int rows, int cols, ScaleTile tile, int pad) : padded(rows, cols, tile, 0, pad) {
    std::fill(padded.codes.begin(), padded.codes.end(), std::uint8_t{0x55});
    std::fill(padded.scales.begin(), padded.scales.end(), -3.0f);
  }
};

void expect_same(const Result& got, const Result& want, const std::string& what) {
  EXPECT_EQ(-1, first_difference(got.padded.codes, want.padded.codes)) << what << ": codes";
  EXPECT_EQ(-1, first_difference(got.padded.scales, want.padded.scales)) << what << ": scales";
}

void check(const Context& ctx, MatRef x, ScaleKind kind, ScaleTile tile, int pad = 0) {
  Result got(x.rows, x.cols, tile, pad), want(x.rows, x.cols, tile, pad);
  quantize_fp8(ctx, {x, kind, got.padded.out, {}});
  quantize_fp8_ref(Context{}, std::vector{QuantizeFp8{x, kind, want.padded.out, {}}});
  expect_same(got, want,
              cat(x.rows, "x", x.cols, " ", testing::name(tile), " ", numeric::name(kind), " ",
                  cachalot::name(x.dtype)));
}

// Rows and columns of very different sizes, zeros among them.
Mat<float> uneven(int rows, int cols, std::uint64_t seed) {
  Mat<float> x = testing::random_mat<float>(rows, cols, seed);
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < cols; ++j) {
      x.at(i, j) = std::ldexp(x.at(i, j), (i * 7 + j * 3) % 31 - 15);
      if ((i + j) % 11 == 0) x.at(i, j) = 0.0f;
    }
  }
  return x;
}

TEST_P(Fp8QuantizeTest, EveryTilingKindAndTail) {
  for (const int rows : {1, 2, 127, 128, 129, 260}) {
    for (const int cols : {1, 15, 16, 17, 33, 127, 128, 129, 300}) {
      const Mat<float> x = uneven(rows, cols, 3);
      Mat<Bf16> half(rows, cols);
      for (std::size_t i = 0; i < x.size(); ++i) half.data()[i] = to_bf16(x.data()[i]);
      for (const ScaleTile tile : kTiles) {
        for (const ScaleKind kind : numeric::kScaleKinds) {
          check(context(), x.cview(), kind, tile, cols % 3);
          check(context(), half.cview(), kind, tile);
        }
      }
    }
  }
}

TEST_P(Fp8QuantizeTest, StridedRows) {
  const Mat<float> x = uneven(140, 300, 5);
  for (const ScaleTile tile : kTiles) {
    check(context(), x.cview().sub_cols(7, 150), ScaleKind::kPlain, tile);
  }
}

TEST_P(Fp8QuantizeTest, TwoTilingsInOneRead) {
  const Mat<float> x = uneven(300, 700, 4);
  for (const ScaleTile first : kTiles) {
    for (const ScaleTile second : kTiles) {
      Result a(300, 700, first, 1), b(300, 700, second, 2);
      Result want_a(300, 700, first, 1), want_b(300, 700, second, 2);
      quantize_fp8(context(), {x.cview(), ScaleKind::kPow2, a.padded.out, b.padded.out});
      quantize_fp8_ref(Context{}, std::vector{QuantizeFp8{x.cview(), ScaleKind::kPow2,
                                                          want_a.padded.out, want_b.padded.out}});
      expect_same(a, want_a, testing::name(first) + " of two");
      expect_same(b, want_b, testing::name(second) + " as the second");
    }
  }
}

// encode_e4m3 on every exponent: the ends, the middles (ties) and what lies beside them, random
// fractions, both signs, infinity and NaN. Scales are 1, so that codes are those of the numbers.
TEST_P(Fp8QuantizeTest, EncodesEveryKindOfFloat) {
  std::vector<float> numbers;
  const Rng rng(5);
  for (std::uint32_t exponent = 0; exponent < 256; ++exponent) {
    for (std::uint32_t i = 0; i < 16; ++i) {  // multiples of half a step and their neighbours
      const std::uint32_t bits = (exponent << 23) | (i << 19);
      for (const std::uint32_t b : {bits - 1, bits, bits + 1}) {
        numbers.push_back(std::bit_cast<float>(b & 0x7FFFFFFFu));
      }
    }
    for (std::uint64_t i = 0; i < 200; ++i) {
      numbers.push_back(std::bit_cast<float>(
          (exponent << 23) | static_cast<std::uint32_t>(rng.below(exponent * 200 + i, 1 << 23))));
    }
  }
  for (int code = 0; code < 1024; ++code) {  // ties among the subnormals
    numbers.push_back(static_cast<float>(code) * 0x1p-10f);
  }
  const auto n = static_cast<int>(numbers.size());
  // One tile per number: 448 gives the tile the scale 1.
  Mat<float> x(2 * n, 2);
  for (int i = 0; i < n; ++i) {
    const float value = numbers[static_cast<std::size_t>(i)];
    x.at(2 * i, 0) = value;
    x.at(2 * i + 1, 0) = -value;
    x.at(2 * i, 1) = x.at(2 * i + 1, 1) = numeric::kE4M3Max;
  }
  Fp8Mat q;
  q.resize(2 * n, 2, ScaleTile::kRow);
  for (const ScaleKind kind : {ScaleKind::kPlain, ScaleKind::kPow2}) {
    quantize_fp8(context(), {x.cview(), kind, q.out(), {}});
    for (int i = 0; i < 2 * n; ++i) {
      const float value = x.at(i, 0);
      if (!(std::abs(value) <= numeric::kE4M3Max)) continue;  // another scale: below
      ASSERT_EQ(1.0f, q.view().scale_at(i, 0));
      ASSERT_EQ(numeric::encode_e4m3(value), q.view().row(i)[0]) << value;
    }
    check(context(), x.cview(), kind, ScaleTile::kRow);
  }
}

// Scales of every size, denormal and largest ones too, with each kind of division.
TEST_P(Fp8QuantizeTest, ScalesOfEveryExponent) {
  Mat<float> x(256, 130);
  const Rng rng(6);
  for (int i = 0; i < x.rows(); ++i) {
    for (int j = 0; j < x.cols(); ++j) {
      const auto at = static_cast<std::uint64_t>(i * x.cols() + j);
      const auto exponent = static_cast<std::uint32_t>(std::max(0, i - j % 24));
      const auto bits = static_cast<std::uint32_t>(rng.below(at, 1 << 23)) |
                        (std::min(exponent, 254u) << 23) | static_cast<std::uint32_t>(at % 2 << 31);
      x.at(i, j) = std::bit_cast<float>(bits);
    }
  }
  Mat<float> across(130, 256);
  for (int i = 0; i < x.rows(); ++i) {
    for (int j = 0; j < x.cols(); ++j) across.at(j, i) = x.at(i, j);
  }
  for (const ScaleKind kind : numeric::kScaleKinds) {
    check(context(), x.cview(), kind, ScaleTile::kRow);
    check(context(), across.cview(), kind, ScaleTile::kColumn);
    for (int row = 0; row < 250; row += 7) {
      check(context(), x.cview().sub_rows(row, 5), kind, ScaleTile::kBlock);
      check(context(), x.cview().sub_rows(row, 5), kind, ScaleTile::kTensor);
    }
  }
}

TEST_P(Fp8QuantizeTest, WhatIsNotFiniteSpoilsItsTileOnly) {
  for (const float bad : {kInf, -kInf, std::nanf(""), -std::nanf("")}) {
    Mat<float> x = uneven(200, 300, 8);
    x.at(130, 140) = bad;
    for (const ScaleTile tile : kTiles) {
      for (const ScaleKind kind : numeric::kScaleKinds) {
        check(context(), x.cview(), kind, tile);
        Fp8Mat q;
        q.resize(200, 300, tile);
        quantize_fp8(context(), {x.cview(), kind, q.out(), {}});
        Mat<float> back(200, 300);
        dequantize_fp8(context(), {q.view(), back.view(), {}});
        for (int i = 0; i < 200; ++i) {
          for (int j = 0; j < 300; ++j) {
            const bool row = i == 130, column = j == 140;
            const bool near_row = i >= 128, near_column = j >= 128 && j < 256;
            const bool spoilt = tile == ScaleTile::kRow      ? row && near_column
                                : tile == ScaleTile::kColumn ? near_row && column
                                : tile == ScaleTile::kBlock  ? near_row && near_column
                                                             : true;
            ASSERT_EQ(spoilt, std::isnan(back.at(i, j))) << i << " " << j;
          }
        }
      }
    }
  }
}

// More pieces than are planned at a time.
TEST_P(Fp8QuantizeTest, ThousandsOfJobs) {
  const int rows = 9000, cols = 33;
  const Mat<float> x = uneven(rows, cols, 4);
  Result want(rows, cols, ScaleTile::kRow, 0);
  quantize_fp8(context(), {x.cview(), ScaleKind::kPow2, want.padded.out, {}});
  with_threads([&](const Context& ctx, int) {
    Result got(rows, cols, ScaleTile::kRow, 0);
    std::vector<QuantizeFp8> jobs;
    for (int i = 0; i < rows; ++i) {
      jobs.push_back(
          {x.cview().sub_rows(i, 1), ScaleKind::kPow2, got.padded.out.sub_rows(i, 1), {}});
    }
    quantize_fp8(ctx, jobs);
    expect_same(got, want, "rows by themselves");
  });
}

TEST_P(Fp8QuantizeTest, RequantizesEveryTiling) {
  for (const int rows : {1, 129, 300}) {
    for (const int cols : {1, 17, 130, 700}) {
      for (const ScaleTile from : kTiles) {
        const Fp8Operand x(rows, cols, from, 9, 3);
        for (const ScaleTile to : kTiles) {
          for (const ScaleKind kind : {ScaleKind::kPlain, ScaleKind::kPow2}) {
            Result got(rows, cols, to, 1), want(rows, cols, to, 1);
            requantize_fp8(context(), {x.view(), kind, got.padded.out});
            requantize_fp8_ref(Context{},
                               std::vector{RequantizeFp8{x.view(), kind, want.padded.out}});
            expect_same(got, want, testing::name(from) + " to " + testing::name(to));
          }
        }
      }
    }
  }
}

// Report, section 3.3.3: with power-of-two scales the transposition costs nothing but underflow.
TEST_P(Fp8QuantizeTest, RequantizingPowersOfTwoLosesNothing) {
  const Mat<float> x = testing::random_mat<float>(256, 256, 10);
  Fp8Mat rows, columns;
  rows.resize(256, 256, ScaleTile::kRow);
  columns.resize(256, 256, ScaleTile::kColumn);
  quantize_fp8(context(), {x.cview(), ScaleKind::kPow2, rows.out(), {}});
  requantize_fp8(context(), {rows.view(), ScaleKind::kPow2, columns.out()});
  Mat<float> before(256, 256), after(256, 256);
  dequantize_fp8(context(), {rows.view(), before.view(), {}});
  dequantize_fp8(context(), {columns.view(), after.view(), {}});
  for (int i = 0; i < 256; ++i) {
    for (int j = 0; j < 256; ++j) {
      // Steps among the subnormals of the new scale are 2^-9 of it.
      const float step = columns.view().scale_at(i, j) * 0x1p-9f;
      if (std::abs(before.at(i, j)) >= 8 * step) {
        ASSERT_EQ(before.at(i, j), after.at(i, j));
      } else {
        ASSERT_LE(std::abs(before.at(i, j) - after.at(i, j)), step / 2);
      }
    }
  }
}

TEST_P(Fp8QuantizeTest, MultipliesOutInFloatAndBf16) {
  for (const ScaleTile tile : kTiles) {
    for (const int cols : {1, 7, 16, 129, 300}) {
      Fp8Operand x(140, cols, tile, 12, 2);
      for (int code = 0; code < 256 && code < cols; ++code) {
        x.out.row(3)[code] = static_cast<std::uint8_t>(code);  // all of them, NaN too
      }
      Mat<float> got(140, cols), want(140, cols);
      Mat<Bf16> half(140, cols), only(140, cols);
      dequantize_fp8(context(), {x.view(), got.view(), half.view()});
      dequantize_fp8(context(), {x.view(), {}, only.view()});
      dequantize_fp8_ref(Context{}, {x.view(), want.view(), {}});
      EXPECT_EQ(-1, first_difference(got.span(), want.span())) << testing::name(tile) << cols;
      for (std::size_t i = 0; i < want.size(); ++i) {
        const float rounded = to_float(to_bf16(want.data()[i]));
        ASSERT_TRUE(testing::same_float(rounded, to_float(half.data()[i])));
        ASSERT_EQ(half.data()[i].bits, only.data()[i].bits);
      }
    }
  }
}

TEST_P(Fp8QuantizeTest, NothingToDo) {
  const Mat<float> none(0, 300), thin(300, 0);
  Fp8Mat q;
  for (const ScaleTile tile : kTiles) {
    q.resize(0, 300, tile);
    quantize_fp8(context(), {none.cview(), ScaleKind::kPow2, q.out(), {}});
    requantize_fp8(context(), {q.view(), ScaleKind::kPow2, q.out()});
    dequantize_fp8(context(), {q.view(), Mat<float>(0, 300).view(), {}});
    q.resize(300, 0, tile);
    quantize_fp8(context(), {thin.cview(), ScaleKind::kPow2, q.out(), {}});
  }
  quantize_fp8(context(), std::span<const QuantizeFp8>());
}

TEST_P(Fp8QuantizeTest, ThreadsAndJobsDoNotChangeABit) {
  const Mat<float> x = uneven(700, 900, 13);
  const int begin[] = {0, 0, 1, 140, 141, 700};
  with_threads([&](const Context& ctx, int) {
    std::vector<std::unique_ptr<Result>> got;
    std::vector<QuantizeFp8> jobs;
    for (int g = 0; g < 5; ++g) {
      const int rows = begin[g + 1] - begin[g];
      for (const ScaleTile tile : kTiles) {
        got.push_back(std::make_unique<Result>(rows, 900, tile, 0));
        jobs.push_back(
            {x.cview().sub_rows(begin[g], rows), ScaleKind::kPow2, got.back()->padded.out, {}});
      }
    }
    quantize_fp8(ctx, jobs);
    for (std::size_t i = 0; i < jobs.size(); ++i) {
      Result want(jobs[i].x.rows, 900, jobs[i].out.tile, 0);
      quantize_fp8_ref(Context{},
                       std::vector{QuantizeFp8{jobs[i].x, ScaleKind::kPow2, want.padded.out, {}}});
      if (jobs[i].x.rows > 0) expect_same(*got[i], want, "job " + std::to_string(i));
    }
  });
}

TEST(Fp8QuantizeShapes, ErrorsNameTheShapes) {
  const Context ctx{&kReferenceTable, nullptr};
  const Mat<float> x(4, 8);
  Fp8Mat q;
  q.resize(4, 9, ScaleTile::kRow);
  try {
    quantize_fp8(ctx, {x.cview(), ScaleKind::kPow2, q.out(), {}});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kShape);
    EXPECT_STREQ(e.what(),
                 "quantize_fp8: out is [4, 9] but has to be [4, 8]; make it as large as the other "
                 "operands");
  }
  q.resize(4, 8, ScaleTile::kRow);
  Mat<double> wide(4, 8);
  EXPECT_THROW(quantize_fp8(ctx, {wide.cview(), ScaleKind::kPow2, q.out(), {}}), Error);
  Fp8Out bare = q.out();
  bare.scales = nullptr;
  EXPECT_THROW(quantize_fp8(ctx, {x.cview(), ScaleKind::kPow2, bare, {}}), Error);
  Fp8Mat down;  // a device's layout
  const std::int32_t begins[] = {0, 4};
  down.resize(begins, 8, ScaleTile::kColumn, /*transposed=*/true);
  EXPECT_THROW(quantize_fp8(ctx, {x.cview(), ScaleKind::kPow2, down.out(), {}}), Error);
  Mat<float> narrow(4, 7);
  EXPECT_THROW(dequantize_fp8(ctx, {q.view(), narrow.view(), {}}), Error);
}

}  // namespace
}  // namespace cachalot
