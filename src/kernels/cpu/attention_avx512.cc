// Attention on AVX-512. bf16 products are float products of rounded operands.
#include "kernels/cpu/simd.h"

#ifdef CACHALOT_X86
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/avx512.h"

#define CACHALOT_ATTENTION_UNROLL CACHALOT_PRAGMA(GCC unroll 16)

CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
namespace cachalot::cpu::avx512 {
namespace {

#include "kernels/cpu/attention_simd_avx512.inc"
using Simd = Avx512;
#include "kernels/cpu/attention_body.inc"

}  // namespace

constinit const AttentionIsa kAttentionIsa{.f32 = attention_kernels<Steps::kFloat>(),
                                           .bf16 = attention_kernels<Steps::kWide>()};

void attention(const Context& ctx, const Attention<float>& a) {
  run_attention(kAttentionIsa, ctx, a);
}
void attention_backward(const Context& ctx, const AttentionBackward<float>& a) {
  run_attention_backward(kAttentionIsa, ctx, a);
}
void latent_attention(const Context& ctx, std::span<const LatentAttention> problems) {
  run_latent_attention(kAttentionIsa, ctx, problems);
}

}  // namespace cachalot::cpu::avx512
CACHALOT_END_TARGET
#endif
