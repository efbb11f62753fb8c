// One table of kernels per CPU level. A level leaves a slot on `_ref` until it has something
// faster; `cachalot info` shows which.
#pragma once

#include <span>
#include <string_view>

#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/bf16_ops.h"
#include "kernels/cross_entropy.h"
#include "kernels/dropout.h"
#include "kernels/elementwise.h"
#include "kernels/fp8.h"
#include "kernels/fp8_fused.h"
#include "kernels/gemm.h"
#include "kernels/hopper.h"
#include "kernels/latent_attention.h"
#include "kernels/permute.h"
#include "kernels/planned_latents.h"
#include "kernels/quant_linear.h"
#include "kernels/quantize_groups.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/route.h"
#include "kernels/routed_rows.h"
#include "kernels/saved.h"

namespace cachalot {

struct KernelTable {
  const char* name = "ref";
  void (*gemm)(const Context&, Precision, std::span<const Gemm>) = gemm_ref;
  void (*pack_b)(const Context&, Precision, std::span<const PackB>) = pack_b_ref;
  bool (*packs_bf16_in_pairs)() noexcept = packs_floats_only;
  void (*gemm_fp8)(const Context&, std::span<const Fp8Gemm>) = gemm_fp8_ref;
  void (*quant_linear)(const Context&, QuantActivations,
                       std::span<const QuantLinear>) = quant_linear_ref;
  void (*pack_quant)(const Context&, std::span<const PackQuant>) = pack_quant_ref;
  void (*gemm_fp8_hopper)(const Context&, int, std::span<const Fp8Gemm>) = gemm_fp8_hopper_ref;
  void (*quantize_fp8)(const Context&, std::span<const QuantizeFp8>) = quantize_fp8_ref;
  void (*requantize_fp8)(const Context&, std::span<const RequantizeFp8>) = requantize_fp8_ref;
  void (*dequantize_fp8)(const Context&, const DequantizeFp8&) = dequantize_fp8_ref;
  bool (*quantize_groups)(const Context&, const QuantizeGroups&) = quantize_groups_ref;
  void (*rms_norm_fp8)(const Context&, const RmsNormFp8&) = rms_norm_fp8_ref;
  void (*swiglu_fp8)(const Context&, std::span<const SwigluFp8>) = swiglu_fp8_ref;
  void (*swiglu_backward_fp8)(const Context&,
                              std::span<const SwigluBackwardFp8>) = swiglu_backward_fp8_ref;
  void (*rms_norm)(const Context&, const RmsNorm<float>&) = rms_norm_ref<float>;
  void (*rms_norm_backward)(const Context&,
                            const RmsNormBackward<float>&) = rms_norm_backward_ref<float>;
  void (*rope)(const Context&, const Rope<float>&) = rope_ref<float>;
  void (*attention)(const Context&, const Attention<float>&) = attention_ref<float>;
  void (*attention_backward)(const Context&,
                             const AttentionBackward<float>&) = attention_backward_ref<float>;
  void (*latent_attention)(const Context&, std::span<const LatentAttention>) = latent_attention_ref;
  void (*store_latent)(const Context&, std::span<const StoreLatent>) = store_latent_ref;
  void (*plan_latents)(const Context&, PlannedLatents&) = plan_latents_ref;
  void (*store_planned)(const Context&, const PlannedLatents&, std::ptrdiff_t) = store_planned_ref;
  void (*norm_planned)(const Context&, const PlannedLatents&, std::ptrdiff_t,
                       const LatentNorms&) = norm_planned_ref;
  void (*attend_planned)(const Context&, const PlannedLatents&,
                         std::ptrdiff_t) = attend_planned_ref;
  void (*load_latent)(const Context&, const LatentRows&, int, MatView<float>) = load_latent_ref;
  void (*swiglu)(const Context&, const Swiglu<float>&) = swiglu_ref<float>;
  void (*swiglu_backward)(const Context&,
                          const SwigluBackward<float>&) = swiglu_backward_ref<float>;
  void (*swiglu_bf16)(const Context&, const SwigluBf16&) = swiglu_bf16_ref;
  void (*swiglu_backward_bf16)(const Context&,
                               const SwigluBackwardBf16&) = swiglu_backward_bf16_ref;
  void (*gather_rows_bf16)(const Context&, const GatherRowsBf16&) = gather_rows_bf16_ref;
  void (*combine_bf16)(const Context&, const CombineBf16&) = combine_bf16_ref;
  void (*rope_bf16)(const Context&, const RopeBf16&) = rope_bf16_ref;
  void (*embedding)(const Context&, const Embedding&) = embedding_ref;
  void (*embedding_backward)(const Context&,
                             const EmbeddingBackward<float>&) = embedding_backward_ref<float>;
  void (*dropout)(const Context&, const Dropout<float>&) = dropout_ref<float>;
  double (*sum_squares)(const Context&, std::span<const float>) = sum_squares_ref<float>;
  void (*cross_entropy)(const Context&, const CrossEntropy<float>&) = cross_entropy_ref<float>;
  void (*route)(const Context&, const Route<float>&) = route_ref<float>;
  void (*routed_rows)(const Context&, const RoutedRows&) = routed_rows_ref;
  bool (*takes_routed_rows)(const Context&, const RoutedRows&) noexcept = takes_no_routed_rows;
  void (*route_backward)(const Context&, const RouteBackward<float>&) = route_backward_ref<float>;
  double (*balance_loss)(const Context&, const BalanceLoss<float>&) = balance_loss_ref<float>;
  void (*expert_order)(const Context&, MatView<const std::int32_t>, int,
                       ExpertOrder&) = expert_order_ref;
  void (*choices_to_rows)(const Context&, const RowsOfChoices&) = choices_to_rows_ref;
  void (*rows_to_choices)(const Context&, const RowsOfChoices&) = rows_to_choices_ref;
  void (*add_rows)(const Context&, const AddRows&) = add_rows_ref;
  void (*copy_rows)(const Context&, MatView<const float>, MatView<float>) = copy_rows_ref;
  void (*zero_rows)(const Context&, MatView<float>) = zero_rows_ref;
  void (*scale_rows)(const Context&, const ScaleRows&) = scale_rows_ref;
  void (*copy_heads)(const Context&, const CopyHeads&) = copy_heads_ref;
  void (*rotate_heads)(const Context&, const RotateHeads&) = rotate_heads_ref;
  void (*gather_codes)(const Context&, const GatherCodes&) = gather_codes_ref;
  void (*gather_rows)(const Context&, const GatherRows<float>&) = gather_rows_ref<float>;
  void (*combine)(const Context&, const Combine<float>&) = combine_ref<float>;
  void (*combine_backward)(const Context&,
                           const CombineBackward<float>&) = combine_backward_ref<float>;
  void (*store_bf16)(const Context&, MatView<const float>, MatView<Bf16>) = store_bf16_ref;
  void (*load_bf16)(const Context&, MatView<const Bf16>, MatView<float>) = load_bf16_ref;
  void (*store_e5m6)(const Context&, MatView<const float>, E5m6Mat&) = store_e5m6_ref;
  void (*load_e5m6)(const Context&, const E5m6Mat&, MatView<float>) = load_e5m6_ref;
  void (*payload_round_trip)(const Context&, numeric::Payload,
                             MatView<float>) = payload_round_trip_ref;
  void (*adamw)(const Context&, const AdamW<float>&) = adamw_ref<float, float>;
  void (*adamw_bf16)(const Context&, const AdamW<float, Bf16>&) = adamw_ref<float, Bf16>;
  void (*weight_average)(const Context&, const WeightAverage&) = weight_average_ref;
};

extern constinit const KernelTable kReferenceTable;

}  // namespace cachalot
