// Weights in 8 or 4 bits with vdpbf16ps, and with vpdpbusd where activations are int8. Codes are
// expanded by byte permutations (VBMI) and dot products with unit vectors (VNNI), which every core
// with vdpbf16ps has but the first; there float multiply-adds do it.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/cpu/avx512bf16.h"
#include "kernels/cpu/gemm_avx512.h"
#include "kernels/cpu/panel_stream.h"
#include "kernels/cpu/quant_avx512.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose_avx512.h"
#include "numeric/group_quant.h"
#include "numeric/small_float.h"

#ifdef CACHALOT_X86

namespace cachalot::cpu::avx512bf16 {

namespace {

// Bytes of the bf16 of each E4M3 magnitude, of the pairs that int4 codes give.
struct Tables {
  alignas(64) std::uint8_t high[128];
  alignas(64) std::uint8_t low[128];
  alignas(64) std::uint16_t nibble[32];
  alignas(
      64) std::uint8_t shift[4][64];  // bit of a byte's lowest bit, within 64: nibbles 2i, 2i + 1
  alignas(64) std::uint8_t nibbles[2][64];        // nibbles 4i .. 4i + 3 as bytes
  alignas(64) std::uint8_t panel_nibbles[2][64];  // likewise, of panels: even columns first
};

constexpr Tables make_tables() {
  Tables t{};
  for (unsigned code = 0; code < 128; ++code) {
    const std::uint32_t bits =
        code == 0x7F ? 0x7FC00000u
                     : std::bit_cast<std::uint32_t>(numeric::detail::decode_finite<3, 7>(code));
    t.high[code] = static_cast<std::uint8_t>(bits >> 24);
    t.low[code] = static_cast<std::uint8_t>(bits >> 16);
  }
  for (int i = 0; i < 32; ++i) {
    const auto value = static_cast<float>(i % 16 - 8);
    t.nibble[i] = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
  }
  for (int i = 0; i < 64; ++i) {
    const int word = i / 4, byte = i % 4;
    for (int p = 0; p < 2; ++p) {
      t.nibbles[p][i] = static_cast<std::uint8_t>(word % 2 * 32 + 16 * p + 4 * byte);
      t.panel_nibbles[p][i] =
          static_cast<std::uint8_t>(word % 2 * 32 + byte % 2 * 16 + 8 * p + byte / 2 * 4);
    }
    for (int p = 0; p < 4; ++p) {
      t.shift[p][i] = static_cast<std::uint8_t>(word % 2 * 32 + 8 * p + byte / 2 * 4);
    }
  }
  return t;
}
constexpr Tables kTables = make_tables();

bool has_instructions() {
  static const bool there =
      __builtin_cpu_supports("avx512vbmi") != 0 && __builtin_cpu_supports("avx512vnni") != 0;
  return there;
}

}  // namespace

CACHALOT_BEGIN_TARGET(CACHALOT_AVX512LOWBIT)
namespace {

using avx512::first_lanes;
using avx512::transpose_16x16;
using avx512::transpose_16x16_halves;

struct Pairs {
  using Sum = __m512;
  static constexpr int kTileWords = kQuantTile / 2;
  static constexpr bool kReadsE4m3 = true;
  template <QuantCode kCode>
  static constexpr int kWords = kCode == QuantCode::kInt4 ? 4 : 2;

  __m512i high[2], low[2], nibble, shift[4];

  Pairs() {  // written out: an implicit one would lie outside the region
    for (int i = 0; i < 2; ++i) {
      high[i] = _mm512_load_si512(kTables.high + 64 * i);
      low[i] = _mm512_load_si512(kTables.low + 64 * i);
    }
    nibble = _mm512_load_si512(kTables.nibble);
    for (int i = 0; i < 4; ++i) shift[i] = _mm512_load_si512(kTables.shift[i]);
  }

  // Byte i of each word, less 128, as a float.
  static __m512i byte(__m512i v, int i) {
    const __m512i x =
        _mm512_dpbusd_epi32(_mm512_set1_epi32(-128), v, _mm512_set1_epi32(1 << (8 * i)));
    return _mm512_castps_si512(_mm512_cvtepi32_ps(x));
  }
  template <QuantCode kCode, bool kPanels>
  [[gnu::always_inline]] inline void expand(__m512i v, __m512i* words) const {
    if constexpr (kCode == QuantCode::kE4m3) {
      const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
      const __m512i h =
          _mm512_ternarylogic_epi32(_mm512_permutex2var_epi8(high[0], v, high[1]), v, sign, 0xF8);
      const __m512i l = _mm512_permutex2var_epi8(low[0], v, low[1]);
      words[0] = _mm512_unpacklo_epi8(l, h);
      words[1] = _mm512_unpackhi_epi8(l, h);
    } else if constexpr (kCode == QuantCode::kInt8) {
      const __m512i mask = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
      words[0] =
          _mm512_ternarylogic_epi32(_mm512_srli_epi32(byte(v, 0), 16), byte(v, 1), mask, 0xF8);
      words[1] =
          _mm512_ternarylogic_epi32(_mm512_srli_epi32(byte(v, 2), 16), byte(v, 3), mask, 0xF8);
    } else if constexpr (kPanels) {  // an index is the low five bits; the table has all 16 twice
      words[0] = _mm512_permutexvar_epi16(v, nibble);
      words[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 4), nibble);
      words[2] = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 8), nibble);
      words[3] = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 12), nibble);
    } else {
      CACHALOT_UNROLL
      for (int i = 0; i < 4; ++i) {
        words[i] = _mm512_permutexvar_epi16(_mm512_multishift_epi64_epi8(shift[i], v), nibble);
      }
    }
  }
  static __m512 start(const QuantPanel&, std::ptrdiff_t) { return _mm512_setzero_ps(); }
  static __m512 add(__m512 sum, const std::uint32_t* a, __m512i b) {
    return _mm512_dpbf16_ps(sum,
                            reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(*a))),
                            reinterpret_cast<__m512bh>(b));
  }
  static __m512 join(__m512 part, const QuantPanel&, std::ptrdiff_t, __m512 scale, __m512 sum) {
    return _mm512_fmadd_ps(part, scale, sum);
  }
};

// Four bytes to a word: codes as they are, unsigned, against signed codes of x. The offset of the
// weights is taken away where a sum starts: - zero * (sum of x's codes).
struct Quads {
  using Sum = __m512i;
  static constexpr int kTileWords = kQuantTile / 4;
  static constexpr bool kReadsE4m3 = false;
  template <QuantCode kCode>
  static constexpr int kWords = kCode == QuantCode::kInt4 ? 2 : 1;

  __m512i nibbles[2], panel_nibbles[2];

  Quads() {
    for (int i = 0; i < 2; ++i) {
      nibbles[i] = _mm512_load_si512(kTables.nibbles[i]);
      panel_nibbles[i] = _mm512_load_si512(kTables.panel_nibbles[i]);
    }
  }

  template <QuantCode kCode, bool kPanels>
  [[gnu::always_inline]] inline void expand(__m512i v, __m512i* words) const {
    if constexpr (kCode == QuantCode::kInt8) {
      words[0] = v;
    } else {
      const __m512i mask = _mm512_set1_epi8(15);
      const __m512i* at = kPanels ? panel_nibbles : nibbles;
      words[0] = _mm512_and_si512(_mm512_multishift_epi64_epi8(at[0], v), mask);
      words[1] = _mm512_and_si512(_mm512_multishift_epi64_epi8(at[1], v), mask);
    }
  }
  static __m512i start(const QuantPanel& a, std::ptrdiff_t at) {
    return _mm512_set1_epi32(a.starts[at]);
  }
  static __m512i add(__m512i sum, const std::uint32_t* a, __m512i b) {
    // As an instruction: GCC 12 gives the intrinsic's result a new register each time, and 28 sums
    // then go through memory in every step.
    __asm__("vpdpbusd %2, %1, %0"
            : "+v"(sum)
            : "v"(b), "v"(_mm512_set1_epi32(static_cast<int>(*a))));
    return sum;
  }
  static __m512 join(__m512i part, const QuantPanel& a, std::ptrdiff_t at, __m512 scale,
                     __m512 sum) {
    const __m512 both = _mm512_mul_ps(_mm512_set1_ps(a.scales[at]), scale);
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(part), both, sum);
  }
};

#include "kernels/cpu/quant_avx512.inc"
#include "kernels/cpu/quant_direct.inc"
#include "kernels/cpu/quant_tiles.inc"

// 16 elements of x, zeros where `live` has none.
inline __m512 load_x(const MatRef& x, std::ptrdiff_t at, __mmask16 live) {
  if (x.dtype == DType::kF32)
    return _mm512_maskz_loadu_ps(live, static_cast<const float*>(x.data) + at);
  const __m256i half = _mm256_maskz_loadu_epi16(live, static_cast<const Bf16*>(x.data) + at);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// Few rows: each as it comes, because 16 at a time are mostly none.
void pack_pairs(const QuantPackJob& job) {
  const int rows = job.out.rows;
  if (rows > kQuantDirectRows) return avx512::quant_pack_bf16(job, Steps::kPair);
  const int end = job.tiles * kQuantTile;
  for (int i = 0; i < rows; ++i) {
    const std::ptrdiff_t at = (job.row + i) * job.x.stride;
    std::uint32_t* to = job.out.words + i;
    for (int k = 0; k < end; k += 2 * kLanes, to += kLanes * rows) {
      const int left = job.x.cols - k;
      const __m512 low = load_x(job.x, at + k, first_lanes(left));
      const __m512 high = load_x(job.x, at + k + kLanes, first_lanes(left - kLanes));
      const auto words = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
      if (rows == 1) {
        _mm512_storeu_si512(to, words);
        continue;
      }
      alignas(64) std::uint32_t each[kLanes];
      _mm512_store_si512(each, words);
      for (int j = 0; j < kLanes; ++j) to[j * rows] = each[j];
    }
  }
}

// numeric::quantize_int8_tile, a tile of a row at a time.
void pack_quads(const QuantPackJob& job) {
  const QuantPanel& out = job.out;
  const int rows = out.rows;
  const int per_tile = kQuantTile / job.group;
  for (int i = 0; i < rows; ++i) {
    const std::ptrdiff_t at = (job.row + i) * job.x.stride;
    for (int t = 0; t < job.tiles; ++t) {
      __m512 v[8];
      __m512 largest = _mm512_setzero_ps();
      __mmask16 finite = 0xFFFF;
      const __m512 infinity = _mm512_set1_ps(std::numeric_limits<float>::infinity());
      CACHALOT_UNROLL
      for (int j = 0; j < 8; ++j) {
        const int k = t * kQuantTile + j * kLanes;
        v[j] = load_x(job.x, at + k, first_lanes(job.x.cols - k));
        const __m512 size = _mm512_abs_ps(v[j]);
        finite &= _mm512_cmp_ps_mask(size, infinity, _CMP_LT_OQ);
        largest = _mm512_max_ps(largest, size);
      }
      const float amax = finite == 0xFFFF ? _mm512_reduce_max_ps(largest)
                                          : std::numeric_limits<float>::quiet_NaN();
      const bool some = amax >= numeric::kInt8Tiny;  // false for NaN
      const __m512 inverse = _mm512_set1_ps(some ? 127 / amax : 0.0f);
      out.scales[t * rows + i] = some ? amax / 127 : finite == 0xFFFF ? 0.0f : amax;
      alignas(64) std::int8_t codes[kQuantTile];
      CACHALOT_UNROLL
      for (int j = 0; j < 8; ++j) {
        const __m512i q =
            some ? _mm512_cvtps_epi32(_mm512_mul_ps(v[j], inverse)) : _mm512_setzero_si512();
        _mm_store_si128(reinterpret_cast<__m128i*>(codes + j * kLanes), _mm512_cvtepi32_epi8(q));
      }
      const auto* words = reinterpret_cast<const std::uint32_t*>(codes);
      std::uint32_t* to = out.words + static_cast<std::ptrdiff_t>(t) * Quads::kTileWords * rows + i;
      for (int d = 0; d < Quads::kTileWords; ++d) to[d * rows] = words[d];
      for (int g = 0; g < per_tile; ++g) {
        __m256i sum = _mm256_setzero_si256();
        for (int j = 0; j < job.group; j += 32) {
          sum = _mm256_dpbusd_epi32(
              sum, _mm256_set1_epi8(1),
              _mm256_load_si256(reinterpret_cast<const __m256i*>(codes + g * job.group + j)));
        }
        const __m512i wide = _mm512_castsi256_si512(sum);
        out.starts[(t * per_tile + g) * rows + i] =
            -quant_zero(job.code) * _mm512_mask_reduce_add_epi32(0xFF, wide);
      }
    }
  }
}

constexpr QuantIsa kPairs = {.tile_words = Pairs::kTileWords,
                             .rows = kQuantRows,
                             .width = kQuantLanes * kQuantVecs,
                             .fresh_rows = kQuantFreshRows,
                             .flush_denormals = true,
                             .integers = false,
                             .pack = pack_pairs,
                             .unpack = unpack<Pairs>,
                             .tile = tile<Pairs>,
                             .direct = direct<Pairs>,
                             .store = avx512::gemm_store};
constexpr QuantIsa kQuads = {.tile_words = Quads::kTileWords,
                             .rows = kQuantRows,
                             .width = kQuantLanes * kQuantVecs,
                             .fresh_rows = kQuantFreshRows,
                             .flush_denormals = false,
                             .integers = true,
                             .pack = pack_quads,
                             .unpack = unpack<Quads>,
                             .tile = tile<Quads>,
                             .direct = direct<Quads>,
                             .store = avx512::gemm_store};

}  // namespace
CACHALOT_END_TARGET

bool quant_linear_pairs(const Context& ctx, std::span<const QuantLinear> problems) {
  if (!has_instructions()) return false;
  run_quant_linear(kPairs, ctx, problems);
  return true;
}

bool quant_linear_integers(const Context& ctx, std::span<const QuantLinear> problems) {
  if (!has_instructions()) return false;
  run_quant_linear(kQuads, ctx, problems);
  return true;
}

void quant_linear(const Context& ctx, QuantActivations activations,
                  std::span<const QuantLinear> problems) {
  if (activations == QuantActivations::kInt8) {
    if (!quant_linear_integers(ctx, problems)) quant_linear_ref(ctx, activations, problems);
  } else if (!pairs_are_faster() || !quant_linear_pairs(ctx, problems)) {
    avx512::quant_linear_floats(ctx, problems, true);
  }
}

}  // namespace cachalot::cpu::avx512bf16
#endif
