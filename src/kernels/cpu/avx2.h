// What the level avx2 (AVX2 + FMA + F16C) offers. To add a slot: declare it, list it in add_avx2.
#pragma once

#include "kernels/table.h"

namespace cachalot::cpu {

namespace avx2 {

void gemm(const Context& ctx, Precision precision, std::span<const Gemm> problems);
void pack_b(const Context& ctx, Precision precision, std::span<const PackB> jobs);
void gemm_fp8(const Context& ctx, std::span<const Fp8Gemm> problems);
void quant_linear(const Context& ctx, QuantActivations activations,
                  std::span<const QuantLinear> problems);
void pack_quant(const Context& ctx, std::span<const PackQuant> jobs);
void quantize_fp8(const Context& ctx, std::span<const QuantizeFp8> jobs);
void requantize_fp8(const Context& ctx, std::span<const RequantizeFp8> jobs);
void dequantize_fp8(const Context& ctx, const DequantizeFp8& a);
bool quantize_groups(const Context& ctx, const QuantizeGroups& a);
void rms_norm_fp8(const Context& ctx, const RmsNormFp8& a);
void swiglu_fp8(const Context& ctx, std::span<const SwigluFp8> jobs);
void swiglu_backward_fp8(const Context& ctx, std::span<const SwigluBackwardFp8> jobs);
void rms_norm(const Context& ctx, const RmsNorm<float>& a);
void rms_norm_backward(const Context& ctx, const RmsNormBackward<float>& a);
void rope(const Context& ctx, const Rope<float>& a);
void swiglu(const Context& ctx, const Swiglu<float>& a);
void swiglu_backward(const Context& ctx, const SwigluBackward<float>& a);
void swiglu_bf16(const Context& ctx, const SwigluBf16& a);
void swiglu_backward_bf16(const Context& ctx, const SwigluBackwardBf16& a);
void gather_rows_bf16(const Context& ctx, const GatherRowsBf16& a);
void combine_bf16(const Context& ctx, const CombineBf16& a);
void rope_bf16(const Context& ctx, const RopeBf16& a);
void embedding(const Context& ctx, const Embedding& a);
void embedding_backward(const Context& ctx, const EmbeddingBackward<float>& a);
void dropout(const Context& ctx, const Dropout<float>& a);
double sum_squares(const Context& ctx, std::span<const float> x);
void cross_entropy(const Context& ctx, const CrossEntropy<float>& a);
void route(const Context& ctx, const Route<float>& a);
void route_backward(const Context& ctx, const RouteBackward<float>& a);
double balance_loss(const Context& ctx, const BalanceLoss<float>& a);
void gather_rows(const Context& ctx, const GatherRows<float>& a);
void combine(const Context& ctx, const Combine<float>& a);
void combine_backward(const Context& ctx, const CombineBackward<float>& a);
void adamw(const Context& ctx, const AdamW<float>& a);
void adamw_bf16(const Context& ctx, const AdamW<float, Bf16>& a);
void weight_average(const Context& ctx, const WeightAverage& a);
void attention(const Context& ctx, const Attention<float>& a);
void attention_backward(const Context& ctx, const AttentionBackward<float>& a);
void latent_attention(const Context& ctx, std::span<const LatentAttention> problems);
void store_bf16(const Context& ctx, MatView<const float> x, MatView<Bf16> out);
void load_bf16(const Context& ctx, MatView<const Bf16> x, MatView<float> out);
void store_e5m6(const Context& ctx, MatView<const float> x, E5m6Mat& out);
void load_e5m6(const Context& ctx, const E5m6Mat& x, MatView<float> out);
void payload_round_trip(const Context& ctx, numeric::Payload payload, MatView<float> x);

}  // namespace avx2

constexpr void add_avx2(KernelTable& table) {
  table.gemm = avx2::gemm;
  table.pack_b = avx2::pack_b;
  table.gemm_fp8 = avx2::gemm_fp8;
  table.quant_linear = avx2::quant_linear;
  table.pack_quant = avx2::pack_quant;
  table.quantize_fp8 = avx2::quantize_fp8;
  table.requantize_fp8 = avx2::requantize_fp8;
  table.dequantize_fp8 = avx2::dequantize_fp8;
  table.quantize_groups = avx2::quantize_groups;
  table.rms_norm_fp8 = avx2::rms_norm_fp8;
  table.swiglu_fp8 = avx2::swiglu_fp8;
  table.swiglu_backward_fp8 = avx2::swiglu_backward_fp8;
  table.rms_norm = avx2::rms_norm;
  table.rms_norm_backward = avx2::rms_norm_backward;
  table.rope = avx2::rope;
  table.swiglu = avx2::swiglu;
  table.swiglu_backward = avx2::swiglu_backward;
  table.swiglu_bf16 = avx2::swiglu_bf16;
  table.swiglu_backward_bf16 = avx2::swiglu_backward_bf16;
  table.gather_rows_bf16 = avx2::gather_rows_bf16;
  table.combine_bf16 = avx2::combine_bf16;
  table.rope_bf16 = avx2::rope_bf16;
  table.embedding = avx2::embedding;
  table.embedding_backward = avx2::embedding_backward;
  table.dropout = avx2::dropout;
  table.sum_squares = avx2::sum_squares;
  table.cross_entropy = avx2::cross_entropy;
  table.route = avx2::route;
  table.route_backward = avx2::route_backward;
  table.balance_loss = avx2::balance_loss;
  table.gather_rows = avx2::gather_rows;
  table.combine = avx2::combine;
  table.combine_backward = avx2::combine_backward;
  table.adamw = avx2::adamw;
  table.adamw_bf16 = avx2::adamw_bf16;
  table.weight_average = avx2::weight_average;
  table.attention = avx2::attention;
  table.attention_backward = avx2::attention_backward;
  table.latent_attention = avx2::latent_attention;
  table.store_bf16 = avx2::store_bf16;
  table.load_bf16 = avx2::load_bf16;
  table.store_e5m6 = avx2::store_e5m6;
  table.load_e5m6 = avx2::load_e5m6;
  table.payload_round_trip = avx2::payload_round_trip;
}

}  // namespace cachalot::cpu
