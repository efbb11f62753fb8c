// Attention with vdpbf16ps, or with float FMAs that give the same bits where those are faster. f32
// precision stays with AVX-512's kernels.
#include "kernels/cpu/simd.h"

#ifdef CACHALOT_X86
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/avx512bf16.h"

#define CACHALOT_ATTENTION_UNROLL CACHALOT_PRAGMA(GCC unroll 16)

CACHALOT_BEGIN_TARGET(CACHALOT_AVX512BF16)
namespace cachalot::cpu::avx512bf16 {
namespace {

#include "kernels/cpu/attention_simd_avx512.inc"

// Roundings by the instruction, which takes denormals for zero.
struct Rounding : Avx512 {
  static F round_bf16(F x) { return widen(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x))); }
  static void store_bf16(std::uint32_t* p, F x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
  }
};

namespace pairs {
struct Simd : Rounding {
  template <bool kPair>
  static F step(F acc, W a, W b) {
    static_assert(kPair);
    return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  static W pair_words(F even, F odd) {
    const W low = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(even)));
    const W high = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(odd)));
    return _mm512_or_si512(_mm512_slli_epi32(high, 16), low);
  }
};
#include "kernels/cpu/attention_body.inc"
}  // namespace pairs

namespace floats {
struct Simd : Rounding {
  using ProductMode = FlushMode;  // as vdpbf16ps has it
};
#include "kernels/cpu/attention_body.inc"
}  // namespace floats

}  // namespace

constinit const AttentionKernels kAttentionPairs = pairs::attention_kernels<pairs::Steps::kPair>();
constinit const AttentionKernels kAttentionFloats =
    floats::attention_kernels<floats::Steps::kWide>();

namespace {
// f32 kernels are those of avx512.
AttentionIsa isa() {
  return {.f32 = avx512::kAttentionIsa.f32,
          .bf16 = pairs_are_faster() ? kAttentionPairs : kAttentionFloats};
}
}  // namespace

void attention(const Context& ctx, const Attention<float>& a) { run_attention(isa(), ctx, a); }
void attention_backward(const Context& ctx, const AttentionBackward<float>& a) {
  run_attention_backward(isa(), ctx, a);
}
void latent_attention(const Context& ctx, std::span<const LatentAttention> problems) {
  run_latent_attention(isa(), ctx, problems);
}

}  // namespace cachalot::cpu::avx512bf16
CACHALOT_END_TARGET
#endif
