// Quantising on the GPU gives the codes and scales of the reference.
#include <cstring>
#include <limits>

#include "kernels/cuda/fp8.cuh"
#include "kernels/cuda/fp8_case_test.h"
#include "kernels/cuda/ops.h"
#include "numeric/small_float.h"

namespace cachalot::cuda {
namespace {

using numeric::ScaleKind;
using testing::Codes;
using testing::expect_same;
using testing::expect_transposed;
using testing::Fp8CudaTest;
using testing::random_mat;
using testing::transposed;
using testing::uneven_mat;

constexpr float kInf = std::numeric_limits<float>::infinity();

class CudaFp8Test : public Fp8CudaTest {};
class CudaFp8CodecTest : public Fp8CudaTest {};

// --- codec

__device__ std::uint32_t encode_by_words(float x) {  // numeric/small_float.cc
  const std::uint32_t bits = __float_as_uint(x), sign = bits >> 31 << 7, u = bits & 0x7FFFFFFFu;
  if (u > 0x7F800000u) return 0x7F;  // the one exception: of either sign
  if (u >= __float_as_uint(448.0f)) return sign | 0x7E;
  if (u < (121u << 23)) {
    const float magic = 0x1p14f;
    return sign | (__float_as_uint(__uint_as_float(u) + magic) - __float_as_uint(magic));
  }
  const std::uint32_t rounded = u + 0x7FFFFu + ((u >> 20) & 1u);
  return sign | ((rounded >> 20) - (120u << 3));
}

struct Found {
  unsigned long long count;
  std::uint32_t x, y, got, want;
};
__device__ void note(Found* f, std::uint32_t x, std::uint32_t y, std::uint32_t got,
                     std::uint32_t want) {
  if (atomicAdd(&f->count, 1ull) == 0) {
    f->x = x;
    f->y = y;
    f->got = got;
    f->want = want;
  }
}

__global__ void every_float(Found* f) {
  const std::uint32_t n = blockIdx.x * blockDim.x + threadIdx.x;
  for (std::uint32_t i = 0; i < 4; ++i) {
    const std::uint32_t u = 4 * n + i;
    const float x = __uint_as_float(u);
    const std::uint32_t got = encode_e4m3x4(x, 1.0f, -x, 2.0f), want = encode_by_words(x);
    const std::uint32_t negative = encode_by_words(-x);
    if (got != (want | 0x3800u | negative << 16 | 0x40000000u)) note(f, u, 0, got, want);
  }
}

__global__ void encode_list(const float* x, std::uint8_t* out, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = static_cast<std::uint8_t>(encode_e4m3x4(x[i], 0, 0, 0));
}
__global__ void decode_all(float* out) {
  float x[4];
  const std::uint32_t c = threadIdx.x;
  decode_e4m3x4(c | (255 - c) << 8 | (c ^ 1) << 16 | (c ^ 128) << 24, x);
  for (int j = 0; j < 4; ++j) out[4 * c + j] = x[j];
}
template <bool kPow2>
__global__ void scale_list(const float* amax, float* out, int n, ScaleKind kind) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = tile_scale<kPow2>(kind, amax[i]).scale;
}

// Quotients of random values of a tile with any largest magnitude against the division.
template <bool kPow2>
__global__ void every_quotient(Found* f, ScaleKind kind, std::uint32_t seed) {
  std::uint32_t state = (blockIdx.x * blockDim.x + threadIdx.x) * 2654435761u ^ seed;
  const auto next = [&] {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
  };
  next();
  for (int i = 0; i < 64; ++i) {
    const float amax = __uint_as_float(next() % 0x7F800000u);
    const TileScale t = tile_scale<kPow2>(kind, amax);
    for (int k = 0; k < 4; ++k) {
      // Of all sizes, most near the largest.
      std::uint32_t u = __float_as_uint(amax);
      const std::uint32_t less = next();
      u = k == 0 ? less % (u + 1)
                 : u - min(u, less % (k == 1   ? 1u << 22
                                      : k == 2 ? 12u << 23
                                               : 2u));
      const float x = __uint_as_float(u | (less & 0x80000000u));
      const float got = t.lifted() ? quotient<kPow2, true>(x, t) : quotient<kPow2, false>(x, t),
                  want = __fdiv_rn(x, t.scale);
      const bool small = fabsf(want) < 0x1p-12f;
      const bool same = small ? fabsf(got) < 0x1p-11f && signbit(got) == signbit(want)
                              : __float_as_uint(got) == __float_as_uint(want);
      if (!same || (encode_e4m3x4(got, 0, 0, 0) & 0xFF) != encode_by_words(want)) {
        note(f, __float_as_uint(x), __float_as_uint(t.scale), __float_as_uint(got),
             __float_as_uint(want));
      }
    }
  }
}

std::string hex(std::uint32_t u) {
  char text[48];
  std::snprintf(text, sizeof text, "%08x (%g)", u, double{std::bit_cast<float>(u)});
  return text;
}
void expect_nothing(const Mat<std::uint8_t>& found, const std::string& what) {
  Found f;
  std::memcpy(&f, found.data(), sizeof f);
  EXPECT_EQ(0u, f.count) << what << ": first at x " << hex(f.x) << ", y " << hex(f.y) << ": "
                         << hex(f.got) << " instead of " << hex(f.want);
}

TEST_F(CudaFp8CodecTest, InstructionEncodesEveryFloatAsTheDefinition) {
  Mat<std::uint8_t> found = up(Mat<std::uint8_t>(1, sizeof(Found)));
  every_float<<<1u << 22, 256, 0, stream_of(ctx)>>>(reinterpret_cast<Found*>(found.data()));
  check_launch("every_float");
  expect_nothing(down(found), "encode");
}

// The same against the host's function: floats around every code and every middle, and a grid.
TEST_F(CudaFp8CodecTest, HostAgrees) {
  std::vector<float> list;
  for (std::uint32_t high = 0; high < 0x10000u; ++high) {
    for (const std::uint32_t low : {0u, 1u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu}) {
      list.push_back(std::bit_cast<float>(high << 16 | low));
    }
  }
  for (int code = 0; code < 0x7E; ++code) {
    const float a = numeric::kE4M3Values[static_cast<std::size_t>(code)];
    const float b = numeric::kE4M3Values[static_cast<std::size_t>(code) + 1];
    for (const float x : {a, (a + b) / 2}) {
      for (const float y : {std::nextafter(x, 0.0f), x, std::nextafter(x, kInf)}) {
        list.push_back(y);
        list.push_back(-y);
      }
    }
  }
  Mat<float> x(1, static_cast<int>(list.size()));
  std::copy(list.begin(), list.end(), x.data());
  Mat<std::uint8_t> want(1, x.cols()), got = room<std::uint8_t>(1, x.cols());
  for (int i = 0; i < x.cols(); ++i) want.data()[i] = numeric::encode_e4m3(x.data()[i]);
  const Mat<float> dx = up(x);
  encode_list<<<ceil_div(x.cols(), 256), 256, 0, stream_of(ctx)>>>(dx.data(), got.data(), x.cols());
  check_launch("encode_list");
  expect_same(down(got), want, 1, x.cols(), "encode");
  Mat<float> values = room<float>(256, 4), decoded(256, 4);
  decode_all<<<1, 256, 0, stream_of(ctx)>>>(values.data());
  for (int c = 0; c < 256; ++c) {
    const int codes[4] = {c, 255 - c, c ^ 1, c ^ 128};
    for (int j = 0; j < 4; ++j) decoded.at(c, j) = numeric::kE4M3Values[codes[j]];
  }
  expect_same(down(values), decoded, 256, 4, "decode");
}

TEST_F(CudaFp8CodecTest, ScalesOfEveryKind) {
  std::vector<float> list = {0.0f, kInf, std::nanf("")};
  for (std::uint32_t e = 0; e < 255; ++e) {
    for (const std::uint32_t fraction : {0u, 1u, 2u, 0x300000u, 0x5FFFFFu, 0x600000u, 0x600001u,
                                         0x600002u, 0x6FFFFFu, 0x7FFFFEu, 0x7FFFFFu}) {
      list.push_back(std::bit_cast<float>(e << 23 | fraction));
    }
  }
  for (std::uint32_t u = 1; u < 3000; ++u) list.push_back(std::bit_cast<float>(u));
  for (int i = -40; i < 40; ++i) {
    list.push_back(std::bit_cast<float>(std::bit_cast<std::uint32_t>(1e-4f) + i));
    list.push_back(std::bit_cast<float>(std::bit_cast<std::uint32_t>(448.0f) + i));
  }
  Mat<float> x(1, static_cast<int>(list.size())), want(1, x.cols());
  std::copy(list.begin(), list.end(), x.data());
  const Mat<float> dx = up(x);
  for (const ScaleKind kind : numeric::kScaleKinds) {
    for (int i = 0; i < x.cols(); ++i) want.data()[i] = numeric::block_scale(kind, x.data()[i]);
    for (const bool pow2 : {false, true}) {
      if (pow2 && !is_pow2(kind)) continue;
      Mat<float> got = room<float>(1, x.cols());
      const auto kernel = pow2 ? scale_list<true> : scale_list<false>;
      kernel<<<ceil_div(x.cols(), 256), 256, 0, stream_of(ctx)>>>(dx.data(), got.data(), x.cols(),
                                                                  kind);
      check_launch("scale_list");
      expect_same(down(got), want, 1, x.cols(), "scales of " + std::string(numeric::name(kind)));
    }
  }
}

TEST_F(CudaFp8CodecTest, QuotientsAreDivisions) {
  for (const ScaleKind kind : numeric::kScaleKinds) {
    for (const bool pow2 : {false, true}) {
      if (pow2 && !is_pow2(kind)) continue;
      Mat<std::uint8_t> found = up(Mat<std::uint8_t>(1, sizeof(Found)));
      const auto kernel = pow2 ? every_quotient<true> : every_quotient<false>;
      kernel<<<1u << 13, 256, 0, stream_of(ctx)>>>(reinterpret_cast<Found*>(found.data()), kind,
                                                   12345);
      check_launch("every_quotient");
      expect_nothing(down(found), std::string("quotients of ") + std::string(numeric::name(kind)));
    }
  }
}

// --- quantising

constexpr ScaleTile kTiles[] = {ScaleTile::kRow, ScaleTile::kColumn, ScaleTile::kBlock,
                                ScaleTile::kTensor};

TEST_F(CudaFp8Test, QuantizeEveryTileOfEveryShape) {
  const std::pair<int, int> shapes[] = {{1, 1},     {1, 7168},  {3, 17},    {127, 129}, {128, 128},
                                        {129, 130}, {300, 256}, {257, 388}, {64, 2048}};
  for (const auto& [rows, cols] : shapes) {
    const Mat<float> x = uneven_mat(rows, cols, 1);
    const Mat<float> dx = up(x);
    for (const ScaleTile tile : kTiles) {
      for (const ScaleTile other : kTiles) {
        const ScaleKind kind = numeric::kScaleKinds[(static_cast<int>(tile) * 5 + rows) % 4];
        const int pad = other == ScaleTile::kBlock ? 3 : other == ScaleTile::kRow ? 4 : 0;
        Codes got = device_codes(rows, cols, tile, pad, pad),
              also = device_codes(rows, cols, other);
        Codes want = host_codes(rows, cols, tile), want_also = host_codes(rows, cols, other);
        const QuantizeFp8 ref{x.cview(), kind, want.out(), want_also.out()};
        quantize_fp8_ref(host, std::span(&ref, 1));
        const QuantizeFp8 job{dx.cview(), kind, got.out(), also.out()};
        cuda::quantize_fp8(ctx, std::span(&job, 1));
        const std::string what = std::string(numeric::name(kind)) + " out";
        expect_codes(got, want, what);
        expect_codes(also, want_also, what + ", also");
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(CudaFp8Test, QuantizeEveryKindAndTypeAndAlignment) {
  const int rows = 200, cols = 300;
  const Mat<float> x = uneven_mat(rows, cols, 2);
  const Mat<Bf16> half = testing::to_bf16(x);
  const Mat<float> dx = up(x);
  const Mat<Bf16> dhalf = up(half);
  for (const ScaleKind kind : numeric::kScaleKinds) {
    for (const int skip : {0, 1, 2, 4, 8}) {  // columns left out in front
      for (const bool bf16 : {false, true}) {
        const int n = cols - skip - 3;
        MatRef from =
            bf16 ? MatRef(half.cview().sub_cols(skip, n)) : MatRef(x.cview().sub_cols(skip, n));
        MatRef dfrom =
            bf16 ? MatRef(dhalf.cview().sub_cols(skip, n)) : MatRef(dx.cview().sub_cols(skip, n));
        Codes got = device_codes(rows, n, ScaleTile::kRow, skip),
              also = device_codes(rows, n, ScaleTile::kColumn);
        Codes want = host_codes(rows, n, ScaleTile::kRow),
              want_also = host_codes(rows, n, ScaleTile::kColumn);
        const QuantizeFp8 ref{from, kind, want.out(), want_also.out()};
        quantize_fp8_ref(host, std::span(&ref, 1));
        const QuantizeFp8 job{dfrom, kind, got.out(), also.out()};
        cuda::quantize_fp8(ctx, std::span(&job, 1));
        const std::string what = std::string(numeric::name(kind)) + (bf16 ? " bf16" : " f32") +
                                 " from column " + std::to_string(skip);
        expect_codes(got, want, what);
        expect_codes(also, want_also, what + " also");
        if (HasFailure()) return;
      }
    }
  }
}

// NaN, infinity, zeros, the least and the largest floats, each in some tiles.
TEST_F(CudaFp8Test, QuantizeWhatIsNotOrdinary) {
  const int rows = 300, cols = 400;
  const float special[] = {
      std::nanf(""), kInf,         -kInf,     0.0f,
      0x1p-149f,     -0x1.8p-140f, 0x1p-126f, std::numeric_limits<float>::max(),
      0x1p-118f,     1e-4f,        0x1p-101f};
  for (int s = 0; s < static_cast<int>(std::size(special)); ++s) {
    Mat<float> x(rows, cols);
    const float v = special[s];
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < cols; ++j) {
        const float part = static_cast<float>((i * 13 + j * 7) % 17) / 16.0f - 0.5f;
        x.at(i, j) = std::isfinite(v) ? v * part : part;
      }
    }
    x.at(5, 3) = v;
    x.at(130, 131) = -v;
    for (const ScaleKind kind : numeric::kScaleKinds) {
      const Mat<float> dx = up(x);
      for (const ScaleTile tile : kTiles) {
        Codes got = device_codes(rows, cols, tile), want = host_codes(rows, cols, tile);
        Codes also = device_codes(rows, cols, ScaleTile::kColumn),
              want_also = host_codes(rows, cols, ScaleTile::kColumn);
        const QuantizeFp8 ref{x.cview(), kind, want.out(), want_also.out()};
        quantize_fp8_ref(host, std::span(&ref, 1));
        const QuantizeFp8 job{dx.cview(), kind, got.out(), also.out()};
        cuda::quantize_fp8(ctx, std::span(&job, 1));
        const std::string what = std::string(numeric::name(kind)) + " with " + std::to_string(v);
        expect_codes(got, want, what);
        expect_codes(also, want_also, what);
        if (HasFailure()) return;
      }
    }
  }
}

// Groups of any sizes, none among them, in one call, of both types.
TEST_F(CudaFp8Test, QuantizeManyJobs) {
  for (const int groups : {2, 70, 256, 300}) {
    const int cols = 130;
    std::vector<std::int32_t> begin = {0};
    for (int g = 0; g < groups; ++g) {
      begin.push_back(begin.back() + (g % 5 == 0 ? 0 : g % 7 == 0 ? 150 : g % 4));
    }
    const Mat<float> x = uneven_mat(begin.back(), cols, 3);
    const Mat<Bf16> half = testing::to_bf16(x);
    const Mat<float> dx = up(x);
    const Mat<Bf16> dhalf = up(half);
    std::vector<Codes> got, want;
    std::vector<QuantizeFp8> jobs, refs;
    for (int g = 0; g < groups; ++g) {
      const int rows = begin[g + 1] - begin[g];
      for (const ScaleTile tile : {ScaleTile::kRow, kTiles[1 + g % 3]}) {
        got.push_back(device_codes(rows, cols, tile));
        want.push_back(host_codes(rows, cols, tile));
      }
    }
    for (int g = 0; g < groups; ++g) {
      const int rows = begin[g + 1] - begin[g];
      const bool bf16 = g % 9 == 4;
      const ScaleKind kind = groups == 70 ? numeric::kScaleKinds[g % 4] : ScaleKind::kPow2;
      const auto at = static_cast<std::size_t>(2 * g);
      refs.push_back({bf16 ? MatRef(half.cview()).sub_rows(begin[g], rows)
                           : MatRef(x.cview()).sub_rows(begin[g], rows),
                      kind, want[at].out(), want[at + 1].out()});
      jobs.push_back({bf16 ? MatRef(dhalf.cview()).sub_rows(begin[g], rows)
                           : MatRef(dx.cview()).sub_rows(begin[g], rows),
                      kind, got[at].out(), got[at + 1].out()});
    }
    quantize_fp8_ref(host, refs);
    cuda::quantize_fp8(ctx, jobs);
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (got[i].rows == 0) continue;
      expect_codes(got[i], want[i],
                   "job " + std::to_string(i / 2) + " of " + std::to_string(groups));
      if (HasFailure()) return;
    }
  }
  cuda::quantize_fp8(ctx, std::span<const QuantizeFp8>());
}

// --- from codes

Codes random_codes(int rows, int cols, ScaleTile tile, std::uint64_t seed, int pad) {
  const Mat<float> x = uneven_mat(rows, cols, seed);
  Codes c{Mat<std::uint8_t>(rows, cols + pad),
          Mat<float>(scale_rows(tile, rows), scale_cols(tile, cols)), rows, cols, tile};
  const QuantizeFp8 job{x.cview(), seed % 2 == 0 ? ScaleKind::kPlain : ScaleKind::kPow2, c.out()};
  quantize_fp8_ref(Context{}, std::span(&job, 1));
  return c;
}

TEST_F(CudaFp8Test, RequantizeAndMultiplyOut) {
  const std::pair<int, int> shapes[] = {{1, 1}, {3, 17}, {128, 128}, {130, 129}, {300, 388}};
  for (const auto& [rows, cols] : shapes) {
    for (const ScaleTile tile : kTiles) {
      for (const int pad : {0, 4, 5}) {
        Codes x = random_codes(rows, cols, tile, static_cast<std::uint64_t>(rows + pad), pad);
        if (rows > 100) x.scales.data()[0] = std::nanf("");
        Codes dx = up(x);
        Mat<float> out = room<float>(rows, cols), want_out(rows, cols);
        Mat<Bf16> half = room<Bf16>(rows, cols), want_half(rows, cols);
        for (const int which : {1, 2, 3}) {
          DequantizeFp8 a{dx.view(), which != 2 ? out.view() : MatView<float>{},
                          which != 1 ? half.view() : MatView<Bf16>{}};
          cuda::dequantize_fp8(ctx, a);
          if (which == 2) {
            dequantize_fp8_ref(host, {x.view(), want_out.view(), want_half.view()});
            expect_same(down(half), want_half, rows, cols, "half of " + testing::name(tile));
            half = room<Bf16>(rows, cols);
          }
        }
        expect_same(down(out), want_out, rows, cols, "values of " + testing::name(tile));
        expect_same(down(half), want_half, rows, cols, "halves too of " + testing::name(tile));
        for (const ScaleTile to : kTiles) {
          const ScaleKind kind = pad == 0 ? ScaleKind::kPow2 : ScaleKind::kPlain;
          Codes got = device_codes(rows, cols, to, pad), want = host_codes(rows, cols, to);
          const RequantizeFp8 ref{x.view(), kind, want.out()}, job{dx.view(), kind, got.out()};
          requantize_fp8_ref(host, std::span(&ref, 1));
          cuda::requantize_fp8(ctx, std::span(&job, 1));
          expect_codes(got, want, "requantized from " + testing::name(tile));
        }
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(CudaFp8Test, Gather) {
  for (const int cols : {1, 20, 128, 260, 2048}) {
    for (const int pad : {0, 4, 3}) {
      Codes x = random_codes(50, cols, ScaleTile::kRow, 8, pad);
      Mat<std::int32_t> rows(1, 130);
      for (int i = 0; i < 130; ++i) rows.data()[i] = (i * 37 + 11) % 50;
      Codes dx = up(x), got = device_codes(130, cols, ScaleTile::kRow, pad, 1);
      Codes want = host_codes(130, cols, ScaleTile::kRow);
      const Mat<std::int32_t> drows = up(rows);
      gather_codes_ref(host, {x.view(), rows.span(), want.out()});
      cuda::gather_codes(ctx, {dx.view(), drows.span(), got.out()});
      expect_codes(got, want, "gathered " + std::to_string(cols));
      if (HasFailure()) return;
    }
  }
}

// --- transposed

TEST_F(CudaFp8Test, Transposed) {
  const std::pair<int, int> shapes[] = {{1, 1}, {16, 20}, {128, 128}, {130, 257}, {300, 140}};
  for (const auto& [rows, cols] : shapes) {
    for (const int more : {0, 1, 15}) {
      for (const bool plain : {false, true}) {
        const int stride = more == 15 ? (rows + 15) / 16 * 16 : rows + more;
        const ScaleKind kind = plain ? ScaleKind::kPlain : ScaleKind::kPow2;
        const Mat<float> x = uneven_mat(rows, cols, 5);
        const Mat<float> dx = up(x);
        Codes row = device_codes(rows, cols, ScaleTile::kRow),
              column = device_codes(1, cols, ScaleTile::kColumn),
              again = device_codes(1, cols, ScaleTile::kColumn);
        Codes want_row = host_codes(rows, cols, ScaleTile::kRow),
              want = host_codes(rows, cols, ScaleTile::kColumn),
              want_again = host_codes(rows, cols, ScaleTile::kColumn);
        column.scales = room<float>(scale_rows(ScaleTile::kColumn, rows), cols);
        again.scales = room<float>(scale_rows(ScaleTile::kColumn, rows), cols);
        Mat<std::uint8_t> codes = room<std::uint8_t>(cols, stride),
                          other = room<std::uint8_t>(cols, stride);
        const QuantizeFp8 ref{x.cview(), kind, want_row.out(), want.out()};
        quantize_fp8_ref(host, std::span(&ref, 1));
        const RequantizeFp8 ref2{want_row.view(), kind, want_again.out()};
        requantize_fp8_ref(host, std::span(&ref2, 1));
        Fp8Out columns = transposed(column.out(), codes),
               columns_again = transposed(again.out(), other);
        columns.rows = columns_again.rows = rows;
        QuantizeFp8 job{dx.cview(), kind, row.out(), columns};
        if (more == 1) std::swap(job.out, job.also);
        cuda::quantize_fp8(ctx, std::span(&job, 1));
        const RequantizeFp8 job2{row.view(), kind, columns_again};
        cuda::requantize_fp8(ctx, std::span(&job2, 1));
        expect_codes(row, want_row, "beside transposed");
        expect_transposed(down(codes), want, "quantized");
        expect_transposed(down(other), want_again, "requantized");
        expect_same(down(column.scales), want.scales, want.scales.rows(), cols, "scales");
        expect_same(down(again.scales), want_again.scales, want.scales.rows(), cols,
                    "scales again");
        if (HasFailure()) return;
      }
    }
  }
}

}  // namespace
}  // namespace cachalot::cuda
