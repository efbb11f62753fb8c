// What the level avx512bf16 (avx512 + vdpbf16ps) offers over avx512, whose slots it inherits. To
// add a slot: declare it, list it in add_avx512bf16.
#pragma once

#include "kernels/cpu/avx512.h"
#include "kernels/table.h"

namespace cachalot::cpu {

namespace avx512bf16 {

// vdpbf16ps does two products per lane, but not every core starts as many of them per cycle as
// FMAs. Both ways give the same bits, so the faster one may be chosen by trying, once.
bool pairs_are_faster();

void gemm(const Context& ctx, Precision precision, std::span<const Gemm> problems);
void gemm_fp8(const Context& ctx, std::span<const Fp8Gemm> problems);
void quant_linear(const Context& ctx, QuantActivations activations,
                  std::span<const QuantLinear> problems);
void attention(const Context& ctx, const Attention<float>& a);
void attention_backward(const Context& ctx, const AttentionBackward<float>& a);
void latent_attention(const Context& ctx, std::span<const LatentAttention> problems);

}  // namespace avx512bf16

constexpr void add_avx512bf16(KernelTable& table) {
  add_avx512(table);
  table.gemm = avx512bf16::gemm;
  table.gemm_fp8 = avx512bf16::gemm_fp8;
  table.quant_linear = avx512bf16::quant_linear;
  table.attention = avx512bf16::attention;
  table.attention_backward = avx512bf16::attention_backward;
  table.latent_attention = avx512bf16::latent_attention;
}

}  // namespace cachalot::cpu
