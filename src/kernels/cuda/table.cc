#include "kernels/cuda/cuda.h"
#include "kernels/cuda/ops.h"

namespace cachalot::cuda {

namespace {

constexpr KernelTable make_table() {
  KernelTable t;
  t.name = "cuda";
  t.gemm = gemm;
  t.gemm_fp8 = gemm_fp8;
  t.quant_linear = quant_linear;
  t.quantize_fp8 = quantize_fp8;
  t.requantize_fp8 = requantize_fp8;
  t.dequantize_fp8 = dequantize_fp8;
  t.scale_rows = scale_rows;
  t.copy_heads = copy_heads;
  t.rotate_heads = rotate_heads;
  t.gather_codes = gather_codes;
  t.rms_norm_fp8 = rms_norm_fp8;
  t.swiglu_fp8 = swiglu_fp8;
  t.swiglu_backward_fp8 = swiglu_backward_fp8;
  t.store_bf16 = store_bf16;
  t.load_bf16 = load_bf16;
  t.store_e5m6 = store_e5m6;
  t.load_e5m6 = load_e5m6;
  t.payload_round_trip = payload_round_trip;
  t.attention = attention;
  t.attention_backward = attention_backward;
  t.latent_attention = latent_attention;
  t.store_latent = store_latent;
  t.load_latent = load_latent;
  t.plan_latents = plan_latents;
  t.store_planned = store_planned;
  t.attend_planned = attend_planned;
  t.norm_planned = norm_planned;
  t.rms_norm = rms_norm;
  t.rms_norm_backward = rms_norm_backward;
  t.rope = rope;
  t.rope_bf16 = rope_bf16;
  t.swiglu = swiglu;
  t.swiglu_backward = swiglu_backward;
  t.swiglu_bf16 = swiglu_bf16;
  t.swiglu_backward_bf16 = swiglu_backward_bf16;
  t.dropout = dropout;
  t.copy_rows = copy_rows;
  t.zero_rows = zero_rows;
  t.sum_squares = sum_squares;
  t.embedding = embedding;
  t.embedding_backward = embedding_backward;
  t.cross_entropy = cross_entropy;
  t.adamw = adamw;
  t.adamw_bf16 = adamw_bf16;
  t.weight_average = weight_average;
  t.route = route;
  t.routed_rows = routed_rows;
  t.takes_routed_rows = takes_routed_rows;
  t.route_backward = route_backward;
  t.balance_loss = balance_loss;
  t.expert_order = expert_order;
  t.choices_to_rows = choices_to_rows;
  t.rows_to_choices = rows_to_choices;
  t.add_rows = add_rows;
  t.gather_rows = gather_rows;
  t.gather_rows_bf16 = gather_rows_bf16;
  t.combine = combine;
  t.combine_bf16 = combine_bf16;
  t.combine_backward = combine_backward;
  return t;
}
constinit const KernelTable kTable = make_table();

}  // namespace

const KernelTable& table() noexcept { return kTable; }

}  // namespace cachalot::cuda
