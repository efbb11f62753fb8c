// Hopper's sums, 16 columns of the result at a time; the same bits as numeric/hopper.h.
//
// The rule in floats: W = the largest 2^(exponent) among 32 products and the register, U = 2^13 /
// W. Each term times U is exact (a power of two), its cut towards zero is the conversion to int,
// the sum of ints is exact, and cutting the sum's float to 13 bits of fraction is a mask.
#include "kernels/hopper.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/simd.h"
#include "numeric/hopper.h"
#include "numeric/small_float.h"

#ifdef CACHALOT_X86
namespace cachalot::cpu {

namespace {

constexpr int kTileRows = 128;
constexpr int kTileCols = 64;
constexpr int kBlock = kScaleTileSize;
constexpr int kLanes = 16;

// 2^exponent of each code's leading place; 0 for zeros.
const float* powers() {
  static const std::vector<float> table = [] {
    std::vector<float> t(256);
    for (unsigned code = 0; code < 256; ++code) {
      const int field = static_cast<int>((code >> 3) & 0xFu);
      if ((code & 0x7Fu) != 0) t[code] = numeric::detail::power_of_two(std::max(field, 1) - 7);
    }
    return t;
  }();
  return table.data();
}

// What one task keeps of a tile of C and of a block of K.
struct Tile {
  alignas(64) float a_value[kTileRows][kBlock], a_power[kTileRows][kBlock];
  alignas(64) float b_value[kTileCols / kLanes][kBlock][kLanes];
  alignas(64) float b_power[kTileCols / kLanes][kBlock][kLanes];
  alignas(64) float held[kTileRows][kTileCols], sum[kTileRows][kTileCols];
  alignas(64) float a_scale[kTileRows], a_next[kTileRows];
  alignas(64) float b_scale[kTileCols], b_next[kTileCols];
  bool a_nan[kTileRows], b_nan[kTileCols];
};

struct Place {
  int row, rows, col, cols;
};

// Where line `i` of an operand begins at k0, and how far its codes lie apart along K.
struct Line {
  const std::uint8_t* code;
  std::ptrdiff_t step;
};
Line line_of(const Fp8View& m, bool k_is_row, int i, int k0) {
  return k_is_row ? Line{m.row(k0) + i, m.stride} : Line{m.row(i) + k0, 1};
}

// `count` codes as values and powers, `apart` floats from one to the next; zeros up to kBlock.
// True where one was NaN.
bool unpack(Line line, int count, const float* powers, float* value, float* power,
            std::ptrdiff_t apart) {
  bool nan = false;
  for (int k = 0; k < count; ++k) {
    const std::uint8_t code = line.code[k * line.step];
    value[k * apart] = numeric::kE4M3Values[code];
    power[k * apart] = powers[code];
    nan = nan || (code & 0x7Fu) == 0x7Fu;
  }
  for (int k = count; k < kBlock; ++k) value[k * apart] = power[k * apart] = 0;
  return nan;
}

// Both operands' codes of the block [k0, k0 + count), columns beyond the tile's as zeros.
void unpack(const Fp8Gemm& g, const Place& at, int k0, int count, Tile& t) {
  const float* table = powers();
  for (int i = 0; i < at.rows; ++i) {
    const int row = at.row + i;
    const bool nan = unpack(line_of(g.a, g.trans_a, row, k0), count, table, t.a_value[i],
                            t.a_power[i], /*apart=*/1);
    t.a_nan[i] = t.a_nan[i] || nan;
    t.a_next[i] = g.trans_a ? g.a.scale_at(k0, row) : g.a.scale_at(row, k0);
  }
  for (int j = 0; j < kTileCols; ++j) {
    const int col = at.col + j;
    const bool inside = j < at.cols;
    const Line line = inside ? line_of(g.b, !g.trans_b, col, k0) : Line{};
    const bool nan = unpack(line, inside ? count : 0, table, &t.b_value[j / kLanes][0][j % kLanes],
                            &t.b_power[j / kLanes][0][j % kLanes], kLanes);
    t.b_nan[j] = t.b_nan[j] || nan;
    if (inside) t.b_next[j] = g.trans_b ? g.b.scale_at(col, k0) : g.b.scale_at(k0, col);
  }
}

}  // namespace

CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
namespace avx512 {
namespace {

// The register after 32 products: a's values and powers are one row's, b's 16 columns'.
__m512 step(__m512 held, const float* a_value, const float* a_power, const float (*b_value)[16],
            const float (*b_power)[16]) {
  const __m512i kExponent = _mm512_set1_epi32(0x7F800000);
  const __m512 size = _mm512_abs_ps(held);
  // A register that is NaN (a scale was) compares as small; it comes back at the end.
  const __mmask16 live =
      _mm512_cmp_ps_mask(size, _mm512_set1_ps(numeric::kHopperLeast), _CMP_GE_OQ);
  const __m512 own = _mm512_maskz_mov_ps(live, held);
  // Two chains that do not wait for the register; it joins at the end.
  const auto power = [&](int k) {
    return _mm512_mul_ps(_mm512_set1_ps(a_power[k]), _mm512_load_ps(b_power[k]));
  };
  __m512 even = power(0), odd = power(1);
  for (int k = 2; k < numeric::kHopperGroup; k += 2) {
    even = _mm512_max_ps(even, power(k));
    odd = _mm512_max_ps(odd, power(k + 1));
  }
  const __m512 register_power =
      _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(own), kExponent));
  const __m512 largest =
      _mm512_max_ps(_mm512_max_ps(even, odd),
                    _mm512_max_ps(register_power, _mm512_set1_ps(numeric::kHopperLeast)));
  // 2^13 / W by its bits.
  const __m512i inverse_bits =
      _mm512_sub_epi32(_mm512_set1_epi32((127 + 127 + numeric::kHopperFractionBits) << 23),
                       _mm512_castps_si512(largest));
  const __m512 inverse = _mm512_castsi512_ps(inverse_bits);
  __m512i sum = _mm512_cvttps_epi32(_mm512_mul_ps(own, inverse));
  for (int k = 0; k < numeric::kHopperGroup; ++k) {
    const __m512 term = _mm512_mul_ps(_mm512_mul_ps(_mm512_load_ps(b_value[k]), inverse),
                                      _mm512_set1_ps(a_value[k]));
    sum = _mm512_add_epi32(sum, _mm512_cvttps_epi32(term));
  }
  const __m512i cut = _mm512_and_si512(
      _mm512_castps_si512(_mm512_cvtepi32_ps(sum)),
      _mm512_set1_epi32(static_cast<int>(0xFFFFFFFFu << (23 - numeric::kHopperFractionBits))));
  const __m512 unit = _mm512_mul_ps(
      largest, _mm512_set1_ps(numeric::detail::power_of_two(-numeric::kHopperFractionBits)));
  const __m512 result = _mm512_mul_ps(_mm512_castsi512_ps(cut), unit);
  const __mmask16 nan = _mm512_cmp_ps_mask(held, held, _CMP_UNORD_Q);
  return _mm512_mask_mov_ps(result, nan, held);
}

void block(const Place& at, int k0, int interval, bool first, bool last, Tile& t) {
  for (int i = 0; i < at.rows; ++i) {
    for (int p = 0; p * kLanes < at.cols; ++p) {
      const __m512 scale =
          _mm512_mul_ps(_mm512_set1_ps(t.a_next[i]), _mm512_load_ps(t.b_next + p * kLanes));
      __m512 held = _mm512_load_ps(t.held[i] + p * kLanes);
      __m512 sum = _mm512_load_ps(t.sum[i] + p * kLanes);
      const bool goes_on = !first && (interval == 0 || k0 % interval != 0);
      if (goes_on) {
        const __m512 before =
            _mm512_mul_ps(_mm512_set1_ps(t.a_scale[i]), _mm512_load_ps(t.b_scale + p * kLanes));
        held = _mm512_mul_ps(held, _mm512_div_ps(before, scale));
      }
      for (int k = 0; k < kBlock; k += numeric::kHopperGroup) {
        held = step(held, t.a_value[i] + k, t.a_power[i] + k, t.b_value[p] + k, t.b_power[p] + k);
        if (interval != 0 && (k0 + k + numeric::kHopperGroup) % interval == 0) {
          sum = _mm512_fmadd_ps(held, scale, sum);
          held = _mm512_setzero_ps();
        }
      }
      if (last) sum = _mm512_fmadd_ps(held, scale, sum);
      _mm512_store_ps(t.held[i] + p * kLanes, held);
      _mm512_store_ps(t.sum[i] + p * kLanes, sum);
    }
  }
}

}  // namespace
}  // namespace avx512
CACHALOT_END_TARGET

namespace {

void tile(const Fp8Gemm& g, int interval, const Place& at, Tile& t) {
  std::fill(&t.held[0][0], &t.held[0][0] + sizeof(t.held) / sizeof(float), 0.0f);
  std::fill(&t.sum[0][0], &t.sum[0][0] + sizeof(t.sum) / sizeof(float), 0.0f);
  std::fill(std::begin(t.b_next), std::end(t.b_next), 1.0f);
  std::fill(std::begin(t.a_nan), std::end(t.a_nan), false);
  std::fill(std::begin(t.b_nan), std::end(t.b_nan), false);
  const int k = g.k();
  for (int k0 = 0; k0 < k; k0 += kBlock) {
    std::copy(std::begin(t.a_next), std::end(t.a_next), t.a_scale);
    std::copy(std::begin(t.b_next), std::end(t.b_next), t.b_scale);
    const int count = std::min(kBlock, k - k0);
    unpack(g, at, k0, count, t);
    avx512::block(at, k0, interval, k0 == 0, k0 + kBlock >= k, t);
  }
  for (int i = 0; i < at.rows; ++i) {
    float* c = g.c.row(at.row + i) + at.col;
    for (int j = 0; j < at.cols; ++j) {
      const bool nan = t.a_nan[i] || t.b_nan[j];
      const float sum = nan ? std::numeric_limits<float>::quiet_NaN() : t.sum[i][j];
      c[j] = g.accumulate ? c[j] + sum : sum;
    }
  }
}

}  // namespace

void avx512::gemm_fp8_hopper(const Context& ctx, int interval, std::span<const Fp8Gemm> problems) {
  for (const Fp8Gemm& g : problems) {
    const int down = (g.m() + kTileRows - 1) / kTileRows;
    const int across = (g.n() + kTileCols - 1) / kTileCols;
    ctx.for_range(std::int64_t{down} * across, 1, [&](std::int64_t begin, std::int64_t end) {
      thread_local std::unique_ptr<Tile> t;  // a training step allocates nothing
      if (!t) t = std::make_unique<Tile>();
      for (std::int64_t at = begin; at < end; ++at) {
        const int row = static_cast<int>(at / across) * kTileRows;
        const int col = static_cast<int>(at % across) * kTileCols;
        tile(g, interval,
             {row, std::min(kTileRows, g.m() - row), col, std::min(kTileCols, g.n() - col)}, *t);
      }
    });
  }
}

}  // namespace cachalot::cpu
#endif
