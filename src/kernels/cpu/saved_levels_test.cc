// Storage formats at every level: the bits of the scalar definition, at every tail and with any
// number of threads; LogFMT within the errors that kernels/saved.h states.
#include "kernels/saved.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/level_test.h"
#include "numeric/e5m6.h"
#include "numeric/logfmt.h"
#include "numeric/small_float.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using numeric::Payload;
using testing::random_mat;
class SavedLevels : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(SavedLevels);

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

// Normal values spread over many powers of two, row by row further.
Mat<float> spread_mat(int rows, int cols, std::uint64_t seed) {
  Mat<float> x = random_mat<float>(rows, cols, seed);
  const Rng rng(seed, 1);
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < cols; ++j) {
      const auto at = static_cast<std::uint64_t>(i) * static_cast<std::uint64_t>(cols) +
                      static_cast<std::uint64_t>(j);
      x.at(i, j) *= static_cast<float>(std::exp2(2 * (i % 5) * rng.normal(at)));
    }
  }
  return x;
}

// Float patterns of every exponent, specials among them.
Mat<float> patterns(int rows, int cols) {
  Mat<float> x(rows, cols);
  std::uint32_t state = 1;
  for (float& v : x.span()) {
    state = state * 1664525u + 1013904223u;
    v = std::bit_cast<float>(state);
  }
  const float special[] = {0.0f,          -0.0f,           kInf,      -kInf,
                           std::nanf(""), kLargest,        0x1p-149f, -0x1.8p-126f,
                           0x1.ff8p3f,    0x1.ff7ffep3f,   1.0f,      0x1.fep127f,
                           0x1.ffp127f,   0x1.ff0001p127f, 0x1.01p0f, 0x1.03p0f};
  for (std::size_t i = 0; i < std::size(special) && i < x.size(); ++i) {
    x.data()[i * 7 % x.size()] = special[i];
  }
  return x;
}

template <class T>
void expect_same_bits(const Mat<T>& got, const Mat<T>& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    ASSERT_EQ(0, std::memcmp(got.data() + i, want.data() + i, sizeof(T)))
        << what << " element " << i;
  }
}

TEST_P(SavedLevels, Bf16AtEveryTail) {
  for (const int cols : testing::tail_sizes()) {
    const Mat<float> x = patterns(3, cols);
    Mat<Bf16> got(3, cols), want(3, cols);
    ops().store_bf16(context(), x.cview(), got.view());
    for (std::size_t i = 0; i < x.size(); ++i) want.data()[i] = to_bf16(x.data()[i]);
    expect_same_bits(got, want, "store " + std::to_string(cols));
    Mat<float> back(3, cols), want_back(3, cols);
    ops().load_bf16(context(), got.cview(), back.view());
    for (std::size_t i = 0; i < x.size(); ++i) want_back.data()[i] = to_float(want.data()[i]);
    expect_same_bits(back, want_back, "load " + std::to_string(cols));
  }
}

// Columns beside the view keep their values: nothing is written past a row.
TEST_P(SavedLevels, Bf16OfASubMatrix) {
  const Mat<float> x = patterns(4, 90);
  Mat<Bf16> half(4, 100);
  Mat<float> back(4, 70);
  back.span()[0] = 5;
  ops().store_bf16(context(), x.cview().sub_cols(5, 37), half.view().sub_cols(11, 37));
  ops().load_bf16(context(), half.cview().sub_cols(11, 37), back.view().sub_cols(3, 37));
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 100; ++j) {
      const bool inside = j >= 11 && j < 48;
      ASSERT_EQ(inside ? to_bf16(x.at(i, j - 6)).bits : 0, half.at(i, j).bits) << i << ", " << j;
    }
    for (int j = 0; j < 70; ++j) {
      const bool inside = j >= 3 && j < 40;
      if (inside && std::isnan(back.at(i, j))) continue;
      ASSERT_EQ(inside ? to_float(half.at(i, j + 8)) : i + j == 0 ? 5 : 0, back.at(i, j));
    }
  }
}

void expect_e5m6(const KernelTable& ops, const Context& ctx, const Mat<float>& x,
                 const std::string& what) {
  const int rows = x.rows(), cols = x.cols();
  E5m6Mat got, want;
  got.resize(rows, cols);
  want.resize(rows, cols);
  ops.store_e5m6(ctx, x.cview(), got);
  store_e5m6_ref(Context{}, x.cview(), want);
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < e5m6_tiles(cols); ++j) {
      ASSERT_EQ(want.scale_row(i)[j], got.scale_row(i)[j]) << what << " tile " << i << ", " << j;
    }
    for (int j = 0; j < cols; ++j) {
      ASSERT_EQ(numeric::unpack_e5m6(want.row(i), j), numeric::unpack_e5m6(got.row(i), j))
          << what << " at " << i << ", " << j << ": " << x.at(i, j);
    }
    ASSERT_EQ(0,
              std::memcmp(want.row(i), got.row(i), static_cast<std::size_t>(e5m6_row_bytes(cols))))
        << what << " row " << i;
  }
  Mat<float> back(rows, cols), want_back(rows, cols);
  ops.load_e5m6(ctx, want, back.view());
  load_e5m6_ref(Context{}, want, want_back.view());
  for (std::size_t i = 0; i < back.size(); ++i) {
    const float a = want_back.data()[i], b = back.data()[i];
    ASSERT_TRUE((std::isnan(a) && std::isnan(b)) ||
                std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b))
        << what << " element " << i << ": " << a << " and " << b;
  }
}

TEST_P(SavedLevels, E5m6AtEveryTail) {
  for (const int cols : testing::tail_sizes()) {
    expect_e5m6(ops(), context(), spread_mat(6, cols, 3), "spread " + std::to_string(cols));
    expect_e5m6(ops(), context(), patterns(3, cols), "patterns " + std::to_string(cols));
  }
}

// Tiles around every power, the least ones too; then every code of the format beside the largest,
// and the floats at and around each midpoint.
TEST_P(SavedLevels, E5m6AtEveryScaleAndEveryMidpoint) {
  Mat<float> powers(300, 128);
  for (int e = 0; e < 300; ++e) {
    const Mat<float> row = random_mat<float>(1, 128, static_cast<std::uint64_t>(e));
    for (int j = 0; j < 128; ++j) powers.at(e, j) = std::ldexp(row.at(0, j), e - 160);
  }
  expect_e5m6(ops(), context(), powers, "powers");

  Mat<float> points(2 * 0x7FE, 8);
  for (int code = 0; code < 0x7FE; ++code) {
    const float a = numeric::decode_e5m6(static_cast<std::uint16_t>(code));
    const float b = numeric::decode_e5m6(static_cast<std::uint16_t>(code + 1));
    const float middle = (a + b) / 2;
    const float row[] = {a,
                         middle,
                         std::nextafter(middle, kInf),
                         std::nextafter(middle, 0.0f),
                         -middle,
                         b,
                         -a,
                         numeric::kE5M6Max};
    for (int j = 0; j < 8; ++j) {
      points.at(2 * code, j) = row[j];
      points.at(2 * code + 1, j) = std::ldexp(row[j], -40);
    }
  }
  expect_e5m6(ops(), context(), points, "midpoints");
}

TEST_P(SavedLevels, E5m6NonFiniteTiles) {
  for (const float bad : {std::nanf(""), kInf, -kInf}) {
    for (const int at : {0, 127, 128, 200, 299}) {
      Mat<float> x = spread_mat(2, 300, 5);
      x.at(1, at) = bad;
      expect_e5m6(ops(), context(), x, "non-finite at " + std::to_string(at));
    }
  }
  Mat<float> zeros(2, 130);
  zeros.at(0, 1) = -0.0f;
  expect_e5m6(ops(), context(), zeros, "zeros");
}

TEST_P(SavedLevels, E5m6OfASubMatrix) {
  const Mat<float> x = spread_mat(3, 300, 6);
  Mat<float> wide(3, 300), tight(3, 131), want(3, 131);
  E5m6Mat got, same;
  got.resize(3, 131);
  same.resize(3, 131);
  for (int i = 0; i < 3; ++i) std::memcpy(tight.row(i), x.row(i) + 77, 131 * sizeof(float));
  ops().store_e5m6(context(), x.cview().sub_cols(77, 131), got);
  store_e5m6_ref(Context{}, tight.cview(), same);
  ops().load_e5m6(context(), got, wide.view().sub_cols(10, 131));
  load_e5m6_ref(Context{}, same, want.view());
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 300; ++j) {
      ASSERT_EQ(j >= 10 && j < 141 ? want.at(i, j - 10) : 0.0f, wide.at(i, j)) << i << ", " << j;
    }
  }
}

TEST_P(SavedLevels, ExactPayloadsAtEveryTail) {
  for (const Payload payload : {Payload::kBf16, Payload::kE4m3, Payload::kE5m2}) {
    for (const int cols : testing::tail_sizes()) {
      for (const bool any : {false, true}) {
        const Mat<float> x = any ? patterns(3, cols) : spread_mat(6, cols, 8);
        Mat<float> got = x.clone(), want = x.clone();
        ops().payload_round_trip(context(), payload, got.view());
        numeric::round_trip(payload, want.view());
        for (std::size_t i = 0; i < x.size(); ++i) {
          const float a = want.data()[i], b = got.data()[i];
          ASSERT_TRUE((std::isnan(a) && std::isnan(b)) ||
                      std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b))
              << name(payload) << " " << cols << " element " << i << " of " << x.data()[i] << ": "
              << a << " and " << b;
        }
      }
    }
  }
}

// Where a value stands on its tile's grid, in steps: code + 0.5 is the point between two codes.
double place(const numeric::LogFmtGrid& grid, numeric::LogFmtRange range, float magnitude) {
  const double step = grid.step();
  return std::log2(double{magnitude} / range.low) / step + 1.5 -
         std::log2((1 + std::exp2(step)) / 2) / step;
}

struct Seen {
  int values = 0;
  int other_code = 0;  // took the neighbour where that is allowed
};

// One tile against the definition: the same codes but at near ties, values within their error.
void expect_logfmt(int bits, const float* x, const float* got, int n, Seen& seen,
                   const std::string& what) {
  const std::span<const float> tile(x, static_cast<std::size_t>(n));
  const numeric::LogFmtRange range = numeric::logfmt_range(tile);
  const numeric::LogFmtGrid grid(bits, range);
  for (int j = 0; j < n; ++j) {
    const float size = std::fabs(x[j]);
    ++seen.values;
    if (std::isnan(range.high)) {
      ASSERT_TRUE(std::isnan(got[j])) << what << " " << j;
      continue;
    }
    ASSERT_EQ(std::signbit(x[j]), std::signbit(got[j])) << what << " " << j << ": " << x[j];
    const int code = grid.nearest(size);
    const double want = grid.value(code), is = std::fabs(double{got[j]});
    if (std::fabs(is - want) <= kLogFmtValueError * want) continue;
    // Not this code: then the value has to stand between it and the one that was taken.
    ASSERT_GT(grid.step(), 0) << what << " " << j << ": " << x[j] << " became " << got[j];
    const double at = place(grid, range, size);
    const int other = at > code ? code + 1 : code - 1;
    ASSERT_NEAR(at, (code + other) / 2.0, logfmt_unsure(grid.step()))
        << what << " " << j << ": " << x[j] << " became " << got[j] << ", not " << want;
    ASSERT_GE(other, 1) << what;
    ASSERT_NEAR(is, double{grid.value(other)}, kLogFmtValueError * want) << what << " " << j;
    ++seen.other_code;
  }
}

void run_logfmt(const KernelTable& ops, const Context& ctx, const Mat<float>& x, Seen& seen,
                const std::string& what) {
  for (const Payload payload : {Payload::kLogFmt8, Payload::kLogFmt10}) {
    Mat<float> got = x.clone();
    ops.payload_round_trip(ctx, payload, got.view());
    for (int i = 0; i < x.rows(); ++i) {
      for (int j = 0; j < x.cols(); j += numeric::kLogFmtTile) {
        const int n = std::min(numeric::kLogFmtTile, x.cols() - j);
        expect_logfmt(numeric::logfmt_bits(payload), x.row(i) + j, got.row(i) + j, n, seen,
                      what + " " + std::string(name(payload)) + " row " + std::to_string(i));
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(SavedLevels, LogFmtAtEveryTail) {
  Seen seen;
  for (const int cols : testing::tail_sizes()) {
    run_logfmt(ops(), context(), spread_mat(10, cols, 9), seen, std::to_string(cols));
    run_logfmt(ops(), context(), patterns(3, cols), seen, "patterns " + std::to_string(cols));
    if (HasFatalFailure()) return;
  }
  EXPECT_LE(seen.other_code, seen.values * 1e-3);  // near ties are rare
}

// Tiles from one power to 45 apart, at every size of float; the finest grids hang between two
// neighbours of bf16.
TEST_P(SavedLevels, LogFmtOfEveryWidth) {
  constexpr int kRows = 600;
  Mat<float> x(kRows, 128);
  for (int i = 0; i < kRows; ++i) {
    const Rng rng(static_cast<std::uint64_t>(i), 3);
    const double width = i % 10 == 0 ? 0.006 : std::exp2(rng.uniform(1000) * 9 - 3.5);
    const double top = rng.uniform(1001) * 250 - 126;
    for (std::uint64_t j = 0; j < 128; ++j) {
      const double size = std::max(-148.0, std::min(top, 127.9) - width * rng.uniform(2 * j));
      x.at(i, static_cast<int>(j)) =
          static_cast<float>(std::exp2(size) * (rng.uniform(2 * j + 1) < 0.5 ? -1 : 1));
    }
  }
  Seen seen;
  run_logfmt(ops(), context(), x, seen, "width");
  RecordProperty("other_code", seen.other_code);
  RecordProperty("values", seen.values);
}

TEST_P(SavedLevels, LogFmtDegenerateTiles) {
  const float cases[][4] = {{0, -0.0f, 0, 0},
                            {1.5f, -1.5f, 0, 1.5f},
                            {1 + 0x1p-12f, -1 + 0x1p-12f, 1, 1},
                            {2, -5, 2, 5},
                            {1, 0x1p-32f * 0.51f, 0x1p-33f, 1e-30f},
                            {1, -0x1p-149f, 0x1.fffffep-34f, 0x1.000002p-33f},
                            {0x1p-91f, -0x1p-149f, 0, 0},
                            {0x1p-90f, 0x1p-122f, -0x1p-123f, 0x1.8p-123f},
                            {0x1.fep127f, 0x1p95f, 1, -0x1.fep127f},
                            {kLargest, 1, 1, 1},
                            {kInf, 1, 1, 1},
                            {std::nanf(""), 1, 1, 0},
                            {1, 2, 4, -kInf}};
  for (const auto& values : cases) {
    for (const int cols : {4, 16, 128, 131}) {
      Mat<float> x(1, cols);
      std::copy_n(values, 4, x.row(0));
      Seen seen;
      run_logfmt(ops(), context(), x, seen, "tile of " + std::to_string(values[0]));
      ASSERT_FALSE(HasFatalFailure());
    }
  }
}

TEST_P(SavedLevels, ThreadsDoNotMatter) {
  const Mat<float> x = spread_mat(67, 389, 4);
  Mat<float> back1, sent1;
  Mat<Bf16> half1;
  with_threads([&](const Context& ctx, int threads) {
    E5m6Mat saved;
    saved.resize(67, 389);
    Mat<float> back(67, 389), sent = x.clone();
    Mat<Bf16> half(67, 389);
    store_e5m6(ctx, x.cview(), saved);
    load_e5m6(ctx, saved, back.view());
    store_bf16(ctx, x.cview(), half.view());
    payload_round_trip(ctx, Payload::kLogFmt10, sent.view());
    if (threads == 1) {
      back1 = back.clone();
      sent1 = sent.clone();
      half1 = half.clone();
    }
    expect_same_bits(back, back1, "e5m6");
    expect_same_bits(sent, sent1, "logfmt");
    expect_same_bits(half, half1, "bf16");
  });
}

TEST(SavedVectors, LevelsAgreeBitForBit) {
  const Mat<float> x = spread_mat(40, 300, 12);
  for (const Payload payload : {Payload::kLogFmt8, Payload::kLogFmt10}) {
    Mat<float> first;
    for (const KernelTable* table : cpu::tables_on_this_host()) {
      if (table->payload_round_trip == payload_round_trip_ref) continue;
      Mat<float> got = x.clone();
      table->payload_round_trip(Context{}, payload, got.view());
      if (first.size() == 0) first = got.clone();
      expect_same_bits(got, first, table->name);
    }
  }
}

}  // namespace
}  // namespace cachalot
