// Attention on AVX2 and FMA. bf16 products are float products of rounded operands.
#include "kernels/cpu/simd.h"

#ifdef CACHALOT_X86
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/avx2.h"

#define CACHALOT_ATTENTION_UNROLL CACHALOT_PRAGMA(GCC unroll 16)

CACHALOT_BEGIN_TARGET(CACHALOT_AVX2)
namespace cachalot::cpu::avx2 {
namespace {

struct Simd {
  using F = __m256;
  using W = __m256i;
  static constexpr int kLanes = 8, kRows = 6, kVecs = 2, kScoreRows = 2;
  struct ProductMode {};  // lives while a product runs
  struct FlushMode {};    // likewise; nobody compares denormals with another level's

  static F zero() { return _mm256_setzero_ps(); }
  static F set(float x) { return _mm256_set1_ps(x); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static F load(const Bf16* p) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
  }
  static W first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static F load_first(const float* p, int n) { return _mm256_maskload_ps(p, first(n)); }
  static F load_first(const Bf16* p, int n) {
    Bf16 copy[kLanes] = {};
    for (int i = 0; i < n; ++i) copy[i] = p[i];
    return load(copy);
  }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static W load_words(const std::uint32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static void store_words(std::uint32_t* p, W x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
  }
  static W set_word(std::uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F fms(F a, F b, F c) { return _mm256_fmsub_ps(a, b, c); }
  static F max(F a, F b) { return _mm256_max_ps(b, a); }  // a where a is NaN
  static F min(F a, F b) { return _mm256_min_ps(b, a); }
  static F round(F x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // x * 2^power; 0 where the power of two would be denormal.
  static F times_power(F x, F power) {
    const W exponent = _mm256_cvtps_epi32(_mm256_max_ps(power, set(-127.0f)));
    const W bits = _mm256_slli_epi32(_mm256_add_epi32(exponent, _mm256_set1_epi32(127)), 23);
    return mul(x, _mm256_castsi256_ps(bits));
  }
  static float reduce_max(F x) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
  }
  // x in the first n lanes, `rest` in the others
  static F keep_first(F x, int n, F rest) {
    return _mm256_blendv_ps(rest, x, _mm256_castsi256_ps(first(n)));
  }
  static F swap_pairs(F x) { return _mm256_permute_ps(x, 0xB1); }
  // Nearest, ties to even, NaN stays NaN.
  static F round_bf16(F f) {
    const W x = _mm256_castps_si256(f);
    const W odd = _mm256_and_si256(_mm256_srli_epi32(x, 16), _mm256_set1_epi32(1));
    const W sum = _mm256_add_epi32(_mm256_add_epi32(x, _mm256_set1_epi32(0x7FFF)), odd);
    const W quiet = _mm256_or_si256(x, _mm256_set1_epi32(0x00400000));
    const F nan = _mm256_cmp_ps(f, f, _CMP_UNORD_Q);
    const F rounded = _mm256_blendv_ps(_mm256_castsi256_ps(sum), _mm256_castsi256_ps(quiet), nan);
    return _mm256_and_ps(rounded,
                         _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xFFFF0000u))));
  }
  static void store_bf16(std::uint32_t* p, F x) {
    const W high = _mm256_srli_epi32(_mm256_castps_si256(round_bf16(x)), 16);
    const W packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
  }

  // For latent_body.inc.
  static W load_raw(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static W load_raw_first(const void* p, int bytes) {
    alignas(32) std::byte copy[32] = {};
    for (int i = 0; i < bytes && i < 32; ++i) copy[i] = static_cast<const std::byte*>(p)[i];
    return load_raw(copy);
  }
  static W as_words(F x) { return _mm256_castps_si256(x); }
  static F low(W pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
  static F high(W pairs) {
    return _mm256_castsi256_ps(
        _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xFFFF0000u))));
  }
  template <int R>
  static void store_sums(const F (&sums)[R][4], float* dst, std::ptrdiff_t stride) {
    CACHALOT_ATTENTION_UNROLL
    for (int r = 0; r < R; ++r) {
      const F pairs = _mm256_hadd_ps(_mm256_hadd_ps(sums[r][0], sums[r][1]),
                                     _mm256_hadd_ps(sums[r][2], sums[r][3]));
      _mm_storeu_ps(dst + r * stride,
                    _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
    }
  }
  // 16 codes to bf16; `add` goes to the exponent of what is not zero.
  static void widen_codes(const std::uint8_t* codes, std::uint16_t add, std::uint16_t* out) {
    const W x = _mm256_slli_epi16(
        _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes))), 4);
    const W size = _mm256_and_si256(x, _mm256_set1_epi16(0x07F0));
    const W zero = _mm256_cmpeq_epi16(size, _mm256_setzero_si256());
    const W scaled = _mm256_add_epi16(
        size, _mm256_andnot_si256(zero, _mm256_set1_epi16(static_cast<short>(add))));
    const W sign = _mm256_and_si256(x, _mm256_set1_epi16(static_cast<short>(0x8000)));
    store_words(reinterpret_cast<std::uint32_t*>(out), _mm256_or_si256(sign, scaled));
  }
  // Pairs are for levels that multiply them.
  static W unpack_low(W even, W odd);
  static W unpack_high(W even, W odd);
  static void in_order(F& low, F& high);
  static W pair_words(F even, F odd);
  template <bool kPair>
  static F step(F acc, W a, W b) {
    static_assert(!kPair);
    return _mm256_fmadd_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), acc);
  }

  static void transpose_block(const std::uint32_t* src, std::ptrdiff_t src_stride,
                              std::uint32_t* dst, std::ptrdiff_t dst_stride) {
    W v[8], t[8];
    CACHALOT_ATTENTION_UNROLL
    for (int i = 0; i < 8; ++i) v[i] = load_words(src + i * src_stride);
    CACHALOT_ATTENTION_UNROLL
    for (int i = 0; i < 4; ++i) {
      t[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
      t[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    // v[4q + c]: in each 128-bit half l, column 4l + c of rows 4q .. 4q + 3
    CACHALOT_ATTENTION_UNROLL
    for (int q = 0; q < 2; ++q) {
      v[4 * q + 0] = _mm256_unpacklo_epi64(t[4 * q], t[4 * q + 2]);
      v[4 * q + 1] = _mm256_unpackhi_epi64(t[4 * q], t[4 * q + 2]);
      v[4 * q + 2] = _mm256_unpacklo_epi64(t[4 * q + 1], t[4 * q + 3]);
      v[4 * q + 3] = _mm256_unpackhi_epi64(t[4 * q + 1], t[4 * q + 3]);
    }
    CACHALOT_ATTENTION_UNROLL
    for (int c = 0; c < 4; ++c) {
      store_words(dst + c * dst_stride, _mm256_permute2x128_si256(v[c], v[4 + c], 0x20));
      store_words(dst + (4 + c) * dst_stride, _mm256_permute2x128_si256(v[c], v[4 + c], 0x31));
    }
  }
};
#include "kernels/cpu/attention_body.inc"

constinit const AttentionIsa kIsa{.f32 = attention_kernels<Steps::kFloat>(),
                                  .bf16 = attention_kernels<Steps::kWide>()};

}  // namespace

void attention(const Context& ctx, const Attention<float>& a) { run_attention(kIsa, ctx, a); }
void attention_backward(const Context& ctx, const AttentionBackward<float>& a) {
  run_attention_backward(kIsa, ctx, a);
}
void latent_attention(const Context& ctx, std::span<const LatentAttention> problems) {
  run_latent_attention(kIsa, ctx, problems);
}

}  // namespace cachalot::cpu::avx2
CACHALOT_END_TARGET
#endif
