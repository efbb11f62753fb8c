// What the level avx512bf16 (avx512 + vdpbf16ps) offers over avx512, whose slots it inherits. To
// add a slot: declare it, list it in add_avx512bf16.
#pragma once

#include "kernels/cpu/avx512.h"
#include "kernels/table.h"

namespace cachalot::cpu {

namespace avx512bf16 {

// vdpbf16ps does two products per lane, but not every core starts as many of them per cycle as
// FMAs. Both ways give the same bits, so the faster one may be chosen by trying, once.
bool pairs_are_faster() noexcept;

void gemm(const Context& ctx, Precision precision, std::span<const Gemm> problems);
void pack_b(const Context& ctx, Precision precision, std::span<const PackB> jobs);
void gemm_fp8(const Context& ctx, std::span<const Fp8Gemm> problems);
void swiglu_bf16(const Context& ctx, const SwigluBf16& a);
void swiglu_backward_bf16(const Context& ctx, const SwigluBackwardBf16& a);
void gather_rows_bf16(const Context& ctx, const GatherRowsBf16& a);
void combine_bf16(const Context& ctx, const CombineBf16& a);
void rope_bf16(const Context& ctx, const RopeBf16& a);
void quant_linear(const Context& ctx, QuantActivations activations,
                  std::span<const QuantLinear> problems);
void attention(const Context& ctx, const Attention<float>& a);
void attention_backward(const Context& ctx, const AttentionBackward<float>& a);
void latent_attention(const Context& ctx, std::span<const LatentAttention> problems);

}  // namespace avx512bf16

constexpr void add_avx512bf16(KernelTable& table) {
  add_avx512(table);
  table.gemm = avx512bf16::gemm;
  table.pack_b = avx512bf16::pack_b;
  table.packs_bf16_in_pairs = avx512bf16::pairs_are_faster;
  table.gemm_fp8 = avx512bf16::gemm_fp8;
  table.swiglu_bf16 = avx512bf16::swiglu_bf16;
  table.swiglu_backward_bf16 = avx512bf16::swiglu_backward_bf16;
  table.gather_rows_bf16 = avx512bf16::gather_rows_bf16;
  table.combine_bf16 = avx512bf16::combine_bf16;
  table.rope_bf16 = avx512bf16::rope_bf16;
  table.quant_linear = avx512bf16::quant_linear;
  table.attention = avx512bf16::attention;
  table.attention_backward = avx512bf16::attention_backward;
  table.latent_attention = avx512bf16::latent_attention;
}

}  // namespace cachalot::cpu
