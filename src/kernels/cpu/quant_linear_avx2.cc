// Weights in 8 or 4 bits without AVX-512: activations in bf16 by float multiply-adds, codes become
// floats, the odd one of a pair first (the sums of kernels/quant_linear.h); activations in int8 by
// products of 16 bits, since vpmaddubsw would cut sums of two.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/gemm_avx2.h"
#include "kernels/cpu/panel_stream.h"
#include "kernels/cpu/quant_driver.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose_avx2.h"
#include "kernels/cpu/vec_avx2.h"
#include "numeric/group_quant.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX2)
namespace cachalot::cpu::avx2 {

namespace {

constexpr int kTileRows = 6;    // x 2 vectors: 12 sums, 2 vectors of W, 1 of x
constexpr int kDirectRows = 4;  // 8 sums and the words of a vector of codes

inline __m256i load_words(const std::uint32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline void store_words(std::uint32_t* p, __m256i v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
}
// Bytes of the bf16 of an E4M3 code: the high one by the code's high half (sign, and exponent but
// for its last bit), and what that has to be changed by where the exponent is 0 or the code a NaN.
struct Tables {
  alignas(16) std::uint8_t high[16];
  alignas(16) std::uint8_t high_change[16];
  alignas(16) std::uint8_t low_change[16];
};
constexpr Tables make_tables() {
  Tables t{};
  for (unsigned i = 0; i < 16; ++i) {  // exponent e becomes e + 120
    t.high[i] = static_cast<std::uint8_t>((i & 8) << 4 | (60 + (i & 7)));
  }
  // At 8 + m: m * 2^-9 instead of 2^-7 * (1 + m / 8).
  constexpr unsigned kSmall[8] = {0x0000, 0x3B00, 0x3B80, 0x3BC0, 0x3C00, 0x3C20, 0x3C40, 0x3C60};
  for (unsigned m = 0; m < 8; ++m) {
    t.high_change[8 + m] = static_cast<std::uint8_t>((kSmall[m] >> 8) ^ 60);
    t.low_change[8 + m] = static_cast<std::uint8_t>((kSmall[m] & 0xFF) ^ (m << 4));
  }
  // At 7: 480, which would be 0x43F0, becomes NaN.
  t.high_change[7] = 0x43 ^ 0x7F;
  t.low_change[7] = 0xF0 ^ 0xC0;
  return t;
}
constexpr Tables kTables = make_tables();

inline __m256i table_16(const std::uint8_t* bytes) {
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes)));
}

// What a step is: quant_avx512.inc, for 8 outputs.
struct Floats {
  using Sum = __m256;
  static constexpr int kTileWords = kQuantTile;
  static constexpr bool kReadsE4m3 = true;
  static constexpr bool kMissesNan = false;
  template <QuantCode kCode>
  static constexpr int kWords = kCode == QuantCode::kInt4 ? 8 : 4;

  __m256i high, high_change, low_change;

  Floats()  // written out: an implicit one would lie outside the region
      : high(table_16(kTables.high)),
        high_change(table_16(kTables.high_change)),
        low_change(table_16(kTables.low_change)) {}

  // Four fields of `kBits` at the low end of each word: whole numbers, less half of their range.
  // A field is put where the last digits of a large float are: 2^23 for the lowest one, and so on.
  template <int kBits>
  static __m256i field(__m256i v, int i) {
    const int shift = kBits * i;
    const __m256i bits = _mm256_and_si256(v, _mm256_set1_epi32(((1 << kBits) - 1) << shift));
    const __m256i large = _mm256_set1_epi32((127 + 23 - shift) << 23);
    const float offset = static_cast<float>(1 << (23 - shift)) + (1 << (kBits - 1));
    return _mm256_castps_si256(
        _mm256_sub_ps(_mm256_castsi256_ps(_mm256_or_si256(bits, large)), _mm256_set1_ps(offset)));
  }

  template <QuantCode kCode>
  [[gnu::always_inline]] inline void expand(__m256i v, __m256i* words) const {
    if constexpr (kCode == QuantCode::kE4m3) {
      const __m256i half = _mm256_set1_epi8(15);
      const __m256i low = _mm256_and_si256(v, half);
      // 0 for NaN, 1 + m for exponent 0, more for others; then 7, 8 + m, and what finds nothing.
      const __m256i kind = _mm256_adds_epu8(
          _mm256_and_si256(_mm256_add_epi8(v, _mm256_set1_epi8(1)), _mm256_set1_epi8(0x7F)),
          _mm256_set1_epi8(0x77));
      const __m256i h = _mm256_xor_si256(
          _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16(v, 4), half)),
          _mm256_shuffle_epi8(high_change, kind));
      const __m256i l =
          _mm256_xor_si256(_mm256_slli_epi16(low, 4), _mm256_shuffle_epi8(low_change, kind));
      const __m256i first = _mm256_unpacklo_epi8(l, h), second = _mm256_unpackhi_epi8(l, h);
      const __m256i odd = _mm256_set1_epi32(static_cast<int>(0xFFFF0000u));
      words[0] = _mm256_and_si256(first, odd);
      words[1] = _mm256_slli_epi32(first, 16);
      words[2] = _mm256_and_si256(second, odd);
      words[3] = _mm256_slli_epi32(second, 16);
    } else if constexpr (kCode == QuantCode::kInt8) {
      const __m256i upper = _mm256_srli_epi32(v, 16);
      words[0] = field<8>(v, 1);
      words[1] = field<8>(v, 0);
      words[2] = field<8>(upper, 1);
      words[3] = field<8>(upper, 0);
    } else {
      const __m256i upper = _mm256_srli_epi32(v, 16);  // the odd columns
      CACHALOT_UNROLL
      for (int i = 0; i < 4; ++i) {
        words[2 * i] = field<4>(upper, i);
        words[2 * i + 1] = field<4>(v, i);
      }
    }
  }
  static __m256 start(const QuantPanel&, std::ptrdiff_t) { return _mm256_setzero_ps(); }
  static __m256 add(__m256 sum, __m256i x, __m256i w) {
    return _mm256_fmadd_ps(_mm256_castsi256_ps(x), _mm256_castsi256_ps(w), sum);
  }
  static __m256 join(__m256 part, const QuantPanel&, std::ptrdiff_t, __m256 scale, __m256 sum) {
    return _mm256_fmadd_ps(part, scale, sum);
  }
};

// E4M3 for words of x that are multiplied by 2^kShift: a code's seven bits are put where a float
// has the end of its exponent and the beginning of its fraction, subnormal or not, which is the
// number times 2^-120. The same sums, but for the power of two. NaN would be 480: who sums has to
// look.
struct ScaledFloats : Floats {
  static constexpr bool kMissesNan = true;
  static constexpr int kShift = 112;
  static constexpr float kBelow = 65280;  // sizes of x that stay finite, also rounded to bf16

  template <QuantCode kCode>
  [[gnu::always_inline]] inline void expand(__m256i v, __m256i* words) const {
    static_assert(kCode == QuantCode::kE4m3);
    const __m256i bits = _mm256_set1_epi16(static_cast<short>(0x87F0));
    const __m256i zero = _mm256_setzero_si256();
    const __m256i odd = _mm256_and_si256(_mm256_srai_epi16(v, 4), bits);
    const __m256i even = _mm256_and_si256(_mm256_srai_epi16(_mm256_slli_epi16(v, 8), 4), bits);
    words[0] = _mm256_unpacklo_epi16(zero, odd);
    words[1] = _mm256_unpacklo_epi16(zero, even);
    words[2] = _mm256_unpackhi_epi16(zero, odd);
    words[3] = _mm256_unpackhi_epi16(zero, even);
  }
  static __m256 join(__m256 part, const QuantPanel&, std::ptrdiff_t, __m256 scale, __m256 sum) {
    return _mm256_fmadd_ps(_mm256_mul_ps(part, set(0x1p8f)), scale, sum);
  }

  // The largest of each byte's codes so far, without their signs.
  static __m256i larger(__m256i most, __m256i v) {
    return _mm256_max_epu8(most, _mm256_add_epi8(v, v));
  }
  // NaN in the lanes of outputs that have one among their codes.
  static __m256 nans(__m256i most) {
    const __m256i some = _mm256_cmpeq_epi8(most, _mm256_set1_epi8(static_cast<char>(0xFE)));
    const __m256i of_output =
        _mm256_or_si256(_mm256_unpacklo_epi16(some, some), _mm256_unpackhi_epi16(some, some));
    const __m256i none = _mm256_cmpeq_epi32(of_output, _mm256_setzero_si256());
    return _mm256_andnot_ps(_mm256_castsi256_ps(none),
                            set(std::numeric_limits<float>::quiet_NaN()));
  }
};

// Two numbers of 16 bits to a word: codes as they are, and codes of x. The offset of the weights is
// taken away where a sum starts: - zero * (sum of x's codes).
struct Shorts {
  using Sum = __m256i;
  static constexpr int kTileWords = kQuantTile / 2;
  static constexpr bool kReadsE4m3 = false;
  static constexpr bool kMissesNan = false;
  template <QuantCode kCode>
  static constexpr int kWords = kCode == QuantCode::kInt4 ? 4 : 2;

  template <QuantCode kCode>
  [[gnu::always_inline]] inline void expand(__m256i v, __m256i* words) const {
    if constexpr (kCode == QuantCode::kInt8) {  // columns 0 and 2, 1 and 3
      words[0] = _mm256_and_si256(v, _mm256_set1_epi16(0xFF));
      words[1] = _mm256_srli_epi16(v, 8);
    } else {  // columns 2i and 2i + 1
      const __m256i mask = _mm256_set1_epi16(15);
      words[0] = _mm256_and_si256(v, mask);
      words[1] = _mm256_and_si256(_mm256_srli_epi16(v, 4), mask);
      words[2] = _mm256_and_si256(_mm256_srli_epi16(v, 8), mask);
      words[3] = _mm256_srli_epi16(v, 12);
    }
  }
  static __m256i start(const QuantPanel& a, std::ptrdiff_t at) {
    return _mm256_set1_epi32(a.starts[at]);
  }
  static __m256i add(__m256i sum, __m256i x, __m256i w) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(x, w));
  }
  static __m256 join(__m256i part, const QuantPanel& a, std::ptrdiff_t at, __m256 scale,
                     __m256 sum) {
    const __m256 both = _mm256_mul_ps(_mm256_set1_ps(a.scales[at]), scale);
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(part), both, sum);
  }
};

#include "kernels/cpu/quant_avx2.inc"
#include "kernels/cpu/quant_products_avx2.inc"

// 8 elements of x, zeros where it has none.
inline __m256 load_x(const MatRef& x, std::ptrdiff_t at, int left) {
  const auto load = [&](auto live) {
    return x.dtype == DType::kF32 ? avx2::load(static_cast<const float*>(x.data) + at, live)
                                  : load_bf16(static_cast<const Bf16*>(x.data) + at, live);
  };
  if (left >= kLanes) return load(All{});
  return left > 0 ? load(First(first_lanes(left))) : _mm256_setzero_ps();
}

// Whether all of x is so small that ScaledFloats can take it.
bool can_scale(const QuantPackJob& job) {
  const Vec below = set(ScaledFloats::kBelow);
  for (int i = 0; i < job.out.rows; ++i) {
    const std::ptrdiff_t at = (job.row + i) * job.x.stride;
    for (int j = 0; j < job.x.cols; j += static_cast<int>(kLanes)) {
      const Vec size = _mm256_andnot_ps(set(-0.0f), load_x(job.x, at + j, job.x.cols - j));
      if (_mm256_movemask_ps(_mm256_cmp_ps(size, below, _CMP_NLT_UQ)) != 0) return false;
    }
  }
  return true;
}

// x rounded to bf16, as floats, the odd one of a pair first; zeros behind K.
void pack_floats(const QuantPackJob& job) {
  const int rows = job.out.rows, k = job.x.cols, end = job.tiles * kQuantTile;
  if (rows > kQuantDirectRows) {
    const auto bytes = static_cast<std::ptrdiff_t>(size_of(job.x.dtype));
    PackJob pack;
    pack.src = static_cast<const char*>(job.x.data) + job.row * job.x.stride * bytes;
    pack.dtype = job.x.dtype;
    pack.line_stride = job.x.stride;
    pack.k_stride = 1;
    pack.lines = pack.width = rows;
    pack.k_end = k;
    pack.steps = Steps::kWide;
    pack.dst = job.out.words;
    gemm_pack(pack);
    std::fill(job.out.words + steps_of(Steps::kWide, k) * rows,
              job.out.words + std::ptrdiff_t{end} * rows, 0u);
    return;
  }
  const bool scaled = job.out.scaled != nullptr && rows <= kDirectRows &&
                      job.code == QuantCode::kE4m3 && can_scale(job);
  if (job.out.scaled != nullptr) *job.out.scaled = scaled ? 1 : 0;
  const Vec power = set(scaled ? std::ldexp(1.0f, ScaledFloats::kShift) : 1.0f);
  for (int i = 0; i < rows; ++i) {  // each as it comes: 8 at a time are mostly none
    const std::ptrdiff_t at = (job.row + i) * job.x.stride;
    std::uint32_t* to = job.out.words + i;
    for (int j = 0; j < end; j += static_cast<int>(kLanes), to += kLanes * rows) {
      const Vec rounded = widen_bf16(narrow_to_bf16(load_x(job.x, at + j, k - j))) * power;
      const __m256i words = _mm256_castps_si256(swap_pairs(rounded));
      if (rows == 1) {
        store_words(to, words);
        continue;
      }
      alignas(32) std::uint32_t each[kLanes];
      store_words(each, words);
      for (int l = 0; l < kLanes; ++l) to[std::ptrdiff_t{l} * rows] = each[l];
    }
  }
}

// numeric::quantize_int8_tile of a row's tile.
float quantize_tile(const QuantPackJob& job, std::ptrdiff_t row, int tile,
                    std::int8_t (&codes)[kQuantTile]) {
  constexpr int kVectors = kQuantTile / static_cast<int>(kLanes);
  const Vec infinity = set(std::numeric_limits<float>::infinity());
  Vec v[kVectors];
  Vec most = set(0);
  Vec finite = _mm256_cmp_ps(most, infinity, _CMP_LT_OQ);
  for (int j = 0; j < kVectors; ++j) {
    const int k = tile * kQuantTile + j * static_cast<int>(kLanes);
    v[j] = load_x(job.x, row + k, job.x.cols - k);
    const Vec size = _mm256_andnot_ps(set(-0.0f), v[j]);
    finite = _mm256_and_ps(finite, _mm256_cmp_ps(size, infinity, _CMP_LT_OQ));
    most = max(most, size);
  }
  const bool whole = _mm256_movemask_ps(finite) == 0xFF;
  const float amax = whole ? largest(most) : std::numeric_limits<float>::quiet_NaN();
  const bool some = amax >= numeric::kInt8Tiny;  // false for NaN
  const Vec inverse = set(some ? 127 / amax : 0.0f);
  for (int j = 0; j < kVectors; ++j) {
    alignas(32) std::int32_t q[kLanes] = {};
    if (some) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(q),
                         _mm256_cvtps_epi32(_mm256_mul_ps(v[j], inverse)));
    }
    for (int l = 0; l < kLanes; ++l) {
      codes[j * kLanes + l] = static_cast<std::int8_t>(q[l]);
    }
  }
  return some ? amax / 127 : whole ? 0.0f : amax;
}

void pack_shorts(const QuantPackJob& job) {
  const QuantPanel& out = job.out;
  const int rows = out.rows;
  const int per_tile = kQuantTile / job.group;
  const bool nibbles = job.code == QuantCode::kInt4;
  for (int i = 0; i < rows; ++i) {
    const std::ptrdiff_t at = (job.row + i) * job.x.stride;
    for (int t = 0; t < job.tiles; ++t) {
      std::int8_t codes[kQuantTile];
      out.scales[t * rows + i] = quantize_tile(job, at, t, codes);
      std::uint32_t* to = out.words + std::ptrdiff_t{t} * Shorts::kTileWords * rows + i;
      for (int j = 0; j < kQuantTile; j += 2, to += rows) {
        // Of int8 weights columns 0 and 2, then 1 and 3 of each four.
        const int first = nibbles ? j : j / 4 * 4 + j / 2 % 2;
        const int second = nibbles ? j + 1 : first + 2;
        *to = static_cast<std::uint16_t>(codes[first]) |
              static_cast<std::uint32_t>(static_cast<std::uint16_t>(codes[second])) << 16;
      }
      for (int g = 0; g < per_tile; ++g) {
        int sum = 0;
        for (int j = 0; j < job.group; ++j) sum += codes[g * job.group + j];
        out.starts[(t * per_tile + g) * rows + i] = -quant_zero(job.code) * sum;
      }
    }
  }
}

constexpr QuantIsa kFloats = {.tile_words = Floats::kTileWords,
                              .rows = 2 * kTileRows,
                              .width = kQuantLanes,
                              .fresh_rows = 0,
                              .flush_denormals = false,
                              .integers = false,
                              .pack = pack_floats,
                              .unpack = unpack<Floats>,
                              .tile = tile<Floats>,
                              .direct = direct<Floats>,
                              .store = gemm_store};
constexpr QuantIsa kShorts = {.tile_words = Shorts::kTileWords,
                              .rows = 2 * kTileRows,
                              .width = kQuantLanes,
                              .fresh_rows = 0,
                              .flush_denormals = false,
                              .integers = true,
                              .pack = pack_shorts,
                              .unpack = unpack<Shorts>,
                              .tile = tile<Shorts>,
                              .direct = direct<Shorts>,
                              .store = gemm_store};

void pack_codes(const PackQuant& job, int block) {
  switch (job.from.code) {
    case QuantCode::kE4m3:
      return pack_panel<QuantCode::kE4m3>(job, block);
    case QuantCode::kInt8:
      return pack_panel<QuantCode::kInt8>(job, block);
    case QuantCode::kInt4:
      return pack_panel<QuantCode::kInt4>(job, block);
  }
}

}  // namespace

void quant_linear(const Context& ctx, QuantActivations activations,
                  std::span<const QuantLinear> problems) {
  run_quant_linear(activations == QuantActivations::kInt8 ? kShorts : kFloats, ctx, problems);
}

void pack_quant(const Context& ctx, std::span<const PackQuant> jobs) {
  run_pack_quant(ctx, jobs, pack_codes);
}

}  // namespace cachalot::cpu::avx2
CACHALOT_END_TARGET
#endif
