// Storage formats on the GPU: the bits of the reference; LogFMT within the errors that
// kernels/saved.h states.
#include "kernels/saved.h"

#include <cstring>
#include <limits>

#include "kernels/cuda/bench_test.h"
#include "kernels/cuda/fp8_case_test.h"
#include "kernels/cuda/ops.h"
#include "numeric/e5m6.h"
#include "numeric/logfmt.h"
#include "numeric/small_float.h"

namespace cachalot::cuda {
namespace {

using numeric::Payload;
using testing::expect_same;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr int kTails[] = {1, 2, 3, 4, 7, 8, 31, 127, 128, 129, 255, 256, 257, 300, 391, 512, 1024};

// Normal values spread over many powers of two, row by row further.
Mat<float> spread_mat(int rows, int cols, std::uint64_t seed) {
  Mat<float> x = testing::random_mat(rows, cols, seed);
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
                           0x1.ffp127f,   0x1.ff0002p127f, 0x1.01p0f, 0x1.03p0f};
  for (std::size_t i = 0; i < std::size(special) && i < x.size(); ++i) {
    x.data()[i * 7 % x.size()] = special[i];
  }
  return x;
}

class CudaSavedTest : public testing::CudaTest {
 protected:
  E5m6Mat e5m6_room(int rows, int cols) {
    const MemoryScope scope(device_.get());
    E5m6Mat m;
    m.resize(rows, cols);
    return m;
  }
  void expect_e5m6(const Mat<float>& x, const std::string& what) {
    const int rows = x.rows(), cols = x.cols();
    E5m6Mat want, got = e5m6_room(rows, cols);
    want.resize(rows, cols);
    store_e5m6_ref(host, x.cview(), want);
    const Mat<float> dx = up(x);
    cuda::store_e5m6(ctx, dx.cview(), got);
    const int bytes = e5m6_row_bytes(cols), tiles = e5m6_tiles(cols);
    Mat<std::uint8_t> codes(rows, bytes), scales(rows, tiles), want_codes(rows, bytes),
        want_scales(rows, tiles);
    device_->download(codes.data(), got.row(0), codes.size());
    device_->download(scales.data(), got.scale_row(0), scales.size());
    std::memcpy(want_codes.data(), want.row(0), codes.size());
    std::memcpy(want_scales.data(), want.scale_row(0), scales.size());
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < cols; ++j) {
        const int a = numeric::unpack_e5m6(codes.row(i), j),
                  b = numeric::unpack_e5m6(want.row(i), j);
        if (a != b || scales.at(i, j / 128) != want_scales.at(i, j / 128)) {
          ADD_FAILURE() << what << " [" << rows << ", " << cols << "] at " << i << ", " << j << ": "
                        << x.at(i, j) << " became " << a << " with scale "
                        << int{scales.at(i, j / 128)} << " instead of " << b << " with "
                        << int{want_scales.at(i, j / 128)};
          return;
        }
      }
    }
    ASSERT_EQ(0, std::memcmp(codes.data(), want_codes.data(), codes.size())) << what << " filling";
    Mat<float> back = room<float>(rows, cols), want_back(rows, cols);
    load_e5m6_ref(host, want, want_back.view());
    cuda::load_e5m6(ctx, got, back.view());
    expect_same(down(back), want_back, rows, cols, what + " loaded");
  }
  void run_payload(Payload payload, const Mat<float>& x, Mat<float>& got) {
    got = up(x);
    cuda::payload_round_trip(ctx, payload, got.view());
    got = down(got);
  }
};

TEST_F(CudaSavedTest, Bf16AtEveryTail) {
  for (const int cols : kTails) {
    const Mat<float> x = patterns(3, cols), dx = up(x);
    Mat<Bf16> half = room<Bf16>(3, cols), want(3, cols);
    Mat<float> back = room<float>(3, cols), want_back(3, cols);
    cuda::store_bf16(ctx, dx.cview(), half.view());
    store_bf16_ref(host, x.cview(), want.view());
    cuda::load_bf16(ctx, std::as_const(half).view(), back.view());
    load_bf16_ref(host, std::as_const(want).view(), want_back.view());
    const Mat<Bf16> got = down(half);
    ASSERT_EQ(0, std::memcmp(got.data(), want.data(), want.size() * 2)) << cols;
    const Mat<float> got_back = down(back);
    ASSERT_EQ(0, std::memcmp(got_back.data(), want_back.data(), want_back.size() * 4)) << cols;
  }
}

TEST_F(CudaSavedTest, SubMatrices) {
  const Mat<float> x = patterns(40, 300), dx = up(x);
  for (const int skip : {0, 1, 4, 8}) {
    for (const int n : {37, 131, 264}) {
      Mat<float> tight(40, n), wide = room<float>(40, 300);
      for (int i = 0; i < 40; ++i) std::copy_n(x.row(i) + skip, n, tight.row(i));
      Mat<Bf16> half = room<Bf16>(40, 300);
      cuda::store_bf16(ctx, dx.cview().sub_cols(skip, n), half.view().sub_cols(skip, n));
      cuda::load_bf16(ctx, std::as_const(half).view().sub_cols(skip, n),
                      wide.view().sub_cols(skip, n));
      E5m6Mat packed = e5m6_room(40, n), same;
      same.resize(40, n);
      Mat<float> values = room<float>(40, 300), want(40, n), sent = up(x);
      cuda::store_e5m6(ctx, dx.cview().sub_cols(skip, n), packed);
      cuda::load_e5m6(ctx, packed, values.view().sub_cols(skip, n));
      store_e5m6_ref(host, tight.cview(), same);
      load_e5m6_ref(host, same, want.view());
      cuda::payload_round_trip(ctx, Payload::kE4m3, sent.view().sub_cols(skip, n));
      payload_round_trip_ref(host, Payload::kE4m3, tight.view());
      const Mat<float> a = down(wide), b = down(values), c = down(sent);
      const auto untouched = [](float v) { return std::bit_cast<std::uint32_t>(v) == 0xFFFFFFFFu; };
      for (int i = 0; i < 40; ++i) {
        for (int j = 0; j < 300; ++j) {
          const bool inside = j >= skip && j < skip + n;
          if (!inside) {
            ASSERT_TRUE(untouched(a.at(i, j)) && untouched(b.at(i, j))) << skip << " " << n;
            ASSERT_TRUE(testing::same(c.at(i, j), x.at(i, j))) << skip << " " << n;
            continue;
          }
          ASSERT_TRUE(testing::same(a.at(i, j), to_float(to_bf16(x.at(i, j))))) << i << " " << j;
          ASSERT_TRUE(testing::same(b.at(i, j), want.at(i, j - skip))) << i << " " << j;
          ASSERT_TRUE(testing::same(c.at(i, j), tight.at(i, j - skip))) << i << " " << j;
        }
      }
    }
  }
}

TEST_F(CudaSavedTest, E5m6AtEveryTail) {
  for (const int cols : kTails) {
    expect_e5m6(spread_mat(6, cols, 3), "spread");
    expect_e5m6(patterns(3, cols), "patterns");
    if (HasFailure()) return;
  }
}

TEST_F(CudaSavedTest, E5m6AtEveryScaleAndEveryMidpoint) {
  Mat<float> powers(300, 128);
  for (int e = 0; e < 300; ++e) {
    const Mat<float> row = testing::random_mat(1, 128, static_cast<std::uint64_t>(e));
    for (int j = 0; j < 128; ++j) powers.at(e, j) = std::ldexp(row.at(0, j), e - 160);
  }
  expect_e5m6(powers, "powers");
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
  expect_e5m6(points, "midpoints");
}

TEST_F(CudaSavedTest, E5m6NonFiniteTiles) {
  for (const float bad : {std::nanf(""), kInf, -kInf}) {
    for (const int at : {0, 127, 128, 200, 298}) {
      Mat<float> x = spread_mat(2, 299, 5);
      x.at(1, at) = bad;
      expect_e5m6(x, "non-finite at " + std::to_string(at));
    }
  }
  Mat<float> zeros(2, 130);
  zeros.at(0, 1) = -0.0f;
  expect_e5m6(zeros, "zeros");
}

TEST_F(CudaSavedTest, ExactPayloads) {
  Mat<float> powers(300, 128);
  for (int e = 0; e < 300; ++e) {
    const Mat<float> row = testing::random_mat(1, 128, static_cast<std::uint64_t>(e));
    for (int j = 0; j < 128; ++j) powers.at(e, j) = std::ldexp(row.at(0, j), e - 160);
  }
  for (const Payload payload : {Payload::kBf16, Payload::kE4m3, Payload::kE5m2}) {
    const auto check = [&](const Mat<float>& x, const std::string& what) {
      Mat<float> got, want = x.clone();
      run_payload(payload, x, got);
      payload_round_trip_ref(host, payload, want.view());
      expect_same(got, want, x.rows(), x.cols(), std::string(name(payload)) + " " + what);
    };
    for (const int cols : kTails) {
      check(patterns(3, cols), "patterns");
      check(spread_mat(6, cols, 8), "spread");
    }
    check(powers, "powers");
    // Every float of two magnitudes in tiles of the largest code, so that all codes' middles come.
    Mat<float> fine(512, 256);
    for (std::size_t i = 0; i < fine.size(); ++i) {
      fine.data()[i] = std::bit_cast<float>(static_cast<std::uint32_t>(i) << 14 & 0x7FFFFFFFu);
      if (!(fine.data()[i] <= 57344.0f)) fine.data()[i] = 1;
      if (i % 128 == 0) fine.data()[i] = 57344.0f;
    }
    check(fine, "fine");
    if (HasFailure()) return;
  }
}

// Where a value stands on its tile's grid, in steps: code + 0.5 is the point between two codes.
double place(const numeric::LogFmtGrid& grid, numeric::LogFmtRange range, float magnitude) {
  const double step = grid.step();
  return std::log2(double{magnitude} / range.low) / step + 1.5 -
         std::log2((1 + std::exp2(step)) / 2) / step;
}

// One tile against the definition: the same codes but at near ties, values within their error.
void expect_logfmt(int bits, const float* x, const float* got, int n, int& other_codes,
                   const std::string& what) {
  const numeric::LogFmtRange range =
      numeric::logfmt_range(std::span<const float>(x, static_cast<std::size_t>(n)));
  const numeric::LogFmtGrid grid(bits, range);
  for (int j = 0; j < n; ++j) {
    const float size = std::fabs(x[j]);
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
    ++other_codes;
  }
}

class CudaLogFmtTest : public CudaSavedTest {
 protected:
  void run(const Mat<float>& x, const std::string& what) {
    for (const Payload payload : {Payload::kLogFmt8, Payload::kLogFmt10}) {
      Mat<float> got;
      int other = 0;
      run_payload(payload, x, got);
      for (int i = 0; i < x.rows(); ++i) {
        for (int j = 0; j < x.cols(); j += 128) {
          expect_logfmt(numeric::logfmt_bits(payload), x.row(i) + j, got.row(i) + j,
                        std::min(128, x.cols() - j), other,
                        what + " " + std::string(name(payload)) + " row " + std::to_string(i));
          if (HasFatalFailure()) return;
        }
      }
      if (x.size() > 5000) EXPECT_LE(other, static_cast<int>(x.size() / 200)) << what;
    }
  }
};

TEST_F(CudaLogFmtTest, EveryTail) {
  for (const int cols : kTails) {
    run(spread_mat(10, cols, 9), std::to_string(cols));
    run(patterns(3, cols), "patterns " + std::to_string(cols));
    if (HasFailure()) return;
  }
}

TEST_F(CudaLogFmtTest, EveryWidth) {
  Mat<float> x(600, 128);
  for (int i = 0; i < x.rows(); ++i) {
    const Rng rng(static_cast<std::uint64_t>(i), 3);
    const double width = i % 10 == 0 ? 0.006 : std::exp2(rng.uniform(1000) * 9 - 3.5);
    const double top = rng.uniform(1001) * 250 - 126;
    for (std::uint64_t j = 0; j < 128; ++j) {
      const double size = std::max(-148.0, std::min(top, 127.9) - width * rng.uniform(2 * j));
      x.at(i, static_cast<int>(j)) =
          static_cast<float>(std::exp2(size) * (rng.uniform(2 * j + 1) < 0.5 ? -1 : 1));
    }
  }
  run(x, "width");
}

TEST_F(CudaLogFmtTest, DegenerateTiles) {
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
      run(x, "tile of " + std::to_string(values[0]));
      if (HasFailure()) return;
    }
  }
}

class CudaSavedBench : public CudaSavedTest {};

TEST_F(CudaSavedBench, All) {
  const int rows = 32768, cols = 2048;
  Mat<float> x = room<float>(rows, cols), out = room<float>(rows, cols);
  const Mat<float> some = up(testing::random_mat(1, 1 << 20, 1));
  for (std::size_t i = 0; i < x.size(); i += some.size()) {
    device_->copy(x.data() + i, some.data(), some.size() * sizeof(float));
  }
  Mat<Bf16> half = room<Bf16>(rows, cols);
  E5m6Mat packed = e5m6_room(rows, cols);
  const double n = static_cast<double>(x.size());
  const auto bench = [&](const std::string& name, double bytes, auto run) {
    testing::bench(ctx, name + " [32768, 2048]", bytes, run);
  };
  bench("store_bf16", 6 * n, [&] { cuda::store_bf16(ctx, x.cview(), half.view()); });
  bench("load_bf16", 6 * n, [&] { cuda::load_bf16(ctx, std::as_const(half).view(), out.view()); });
  bench("store_e5m6", n * (5.5 + 1 / 128.0), [&] { cuda::store_e5m6(ctx, x.cview(), packed); });
  bench("load_e5m6", n * (5.5 + 1 / 128.0), [&] { cuda::load_e5m6(ctx, packed, out.view()); });
  for (const Payload payload : numeric::kPayloads) {
    bench(std::string("payload ") + std::string(name(payload)), 8 * n,
          [&] { cuda::payload_round_trip(ctx, payload, x.view()); });
  }
}

}  // namespace
}  // namespace cachalot::cuda
