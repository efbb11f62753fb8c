// The kernels of the CUDA table, one per slot, each with the contract of its header in kernels/:
// operands lie on the device, lists of problems and spans of rows on the host.
#pragma once

#include "kernels/table.h"

namespace cachalot::cuda {

// gemm.cu
void gemm(const Context& ctx, Precision precision, std::span<const Gemm> problems);
void quant_linear(const Context& ctx, QuantActivations activations,
                  std::span<const QuantLinear> problems);
// gemm_fp8.cu
void gemm_fp8(const Context& ctx, std::span<const Fp8Gemm> problems);
// fp8.cu
void quantize_fp8(const Context& ctx, std::span<const QuantizeFp8> jobs);
void requantize_fp8(const Context& ctx, std::span<const RequantizeFp8> jobs);
void dequantize_fp8(const Context& ctx, const DequantizeFp8& a);
void gather_codes(const Context& ctx, const GatherCodes& a);
// fp8_fused.cu
void rms_norm_fp8(const Context& ctx, const RmsNormFp8& a);
void swiglu_fp8(const Context& ctx, std::span<const SwigluFp8> jobs);
void swiglu_backward_fp8(const Context& ctx, std::span<const SwigluBackwardFp8> jobs);
// saved.cu
void store_bf16(const Context& ctx, MatView<const float> x, MatView<Bf16> out);
void load_bf16(const Context& ctx, MatView<const Bf16> x, MatView<float> out);
void store_e5m6(const Context& ctx, MatView<const float> x, E5m6Mat& out);
void load_e5m6(const Context& ctx, const E5m6Mat& x, MatView<float> out);
void payload_round_trip(const Context& ctx, numeric::Payload payload, MatView<float> x);
// attention.cu, attention_backward.cu
void attention(const Context& ctx, const Attention<float>& a);
void attention_backward(const Context& ctx, const AttentionBackward<float>& a);
// latent_attention.cu, latent_rows.cu
void latent_attention(const Context& ctx, std::span<const LatentAttention> problems);
void store_latent(const Context& ctx, std::span<const StoreLatent> jobs);
void load_latent(const Context& ctx, const LatentRows& rows, int begin, MatView<float> out);
void plan_latents(const Context& ctx, PlannedLatents& plan);
void store_planned(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t shift);
void norm_planned(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t shift,
                  const LatentNorms& a);
void attend_planned(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t shift);
// routed_rows.cu
void routed_rows(const Context& ctx, const RoutedRows& a);
bool takes_routed_rows(const Context& ctx, const RoutedRows& a) noexcept;
// rms_norm.cu
void rms_norm(const Context& ctx, const RmsNorm<float>& a);
void rms_norm_backward(const Context& ctx, const RmsNormBackward<float>& a);
// elementwise.cu
void rope(const Context& ctx, const Rope<float>& a);
void rope_bf16(const Context& ctx, const RopeBf16& a);
void swiglu(const Context& ctx, const Swiglu<float>& a);
void swiglu_backward(const Context& ctx, const SwigluBackward<float>& a);
void swiglu_bf16(const Context& ctx, const SwigluBf16& a);
void swiglu_backward_bf16(const Context& ctx, const SwigluBackwardBf16& a);
void dropout(const Context& ctx, const Dropout<float>& a);
void copy_rows(const Context& ctx, MatView<const float> x, MatView<float> out);
void zero_rows(const Context& ctx, MatView<float> out);
double sum_squares(const Context& ctx, std::span<const float> x);
// rows.cu
void scale_rows(const Context& ctx, const ScaleRows& a);
void copy_heads(const Context& ctx, const CopyHeads& a);
void rotate_heads(const Context& ctx, const RotateHeads& a);
// embedding.cu
void embedding(const Context& ctx, const Embedding& a);
void embedding_backward(const Context& ctx, const EmbeddingBackward<float>& a);
// cross_entropy.cu
void cross_entropy(const Context& ctx, const CrossEntropy<float>& a);
// adamw.cu
void adamw(const Context& ctx, const AdamW<float>& a);
void adamw_bf16(const Context& ctx, const AdamW<float, Bf16>& a);
void weight_average(const Context& ctx, const WeightAverage& a);
// route.cu
void route(const Context& ctx, const Route<float>& a);
void route_backward(const Context& ctx, const RouteBackward<float>& a);
double balance_loss(const Context& ctx, const BalanceLoss<float>& a);
// permute.cu
void expert_order(const Context& ctx, MatView<const std::int32_t> index, int experts,
                  ExpertOrder& out);
void choices_to_rows(const Context& ctx, const RowsOfChoices& a);
void rows_to_choices(const Context& ctx, const RowsOfChoices& a);
void add_rows(const Context& ctx, const AddRows& a);
void gather_rows(const Context& ctx, const GatherRows<float>& a);
void gather_rows_bf16(const Context& ctx, const GatherRowsBf16& a);
void combine(const Context& ctx, const Combine<float>& a);
void combine_bf16(const Context& ctx, const CombineBf16& a);
void combine_backward(const Context& ctx, const CombineBackward<float>& a);

}  // namespace cachalot::cuda
