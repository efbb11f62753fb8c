#include "kernels/planned_latents.h"

#include <iterator>
#include <string_view>

#include "kernels/shape_check.h"
#include "kernels/table.h"

namespace cachalot {

void plan_latents_ref(const Context&, PlannedLatents& plan) { plan.shape.clear(); }

void store_planned_ref(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t bytes) {
  std::vector<StoreLatent> jobs = plan.stores;
  for (StoreLatent& a : jobs) a.row += bytes;
  ctx.ops().store_latent(ctx, jobs);
}

void attend_planned_ref(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t bytes) {
  std::vector<LatentAttention> problems = plan.problems;
  for (LatentAttention& a : problems) a.cache.offset += bytes;
  ctx.ops().latent_attention(ctx, problems);
}

void norm_planned_ref(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t bytes,
                      const LatentNorms& a) {
  const int latent = a.c_kv.cols, rope = a.kv_a.cols - latent;
  ctx.ops().rope(ctx, {a.kv_a.sub_cols(latent, rope), 1, rope, 0, a.cos, a.sin, false});
  if (a.q_a.rows > 0) ctx.ops().rms_norm(ctx, {a.q_a, a.q_weight, a.eps, a.q_an, {}});
  ctx.ops().rms_norm(ctx, {a.kv_a.sub_cols(0, latent), a.kv_weight, a.eps, a.c_kv, {}});
  ctx.ops().store_planned(ctx, plan, bytes);
}

void plan_latents(const Context& ctx, PlannedLatents& plan) {
  for (const StoreLatent& a : plan.stores) check_shapes(a);
  for (const LatentAttention& a : plan.problems) check_shapes(a);
  ctx.ops().plan_latents(ctx, plan);
}
void store_planned(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t bytes) {
  ctx.ops().store_planned(ctx, plan, bytes);
}
void norm_planned(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t bytes,
                  const LatentNorms& a) {
  constexpr std::string_view kOp = "norm_planned";
  const int rows = a.kv_a.rows, latent = a.c_kv.cols, rope = a.kv_a.cols - latent;
  require_size(kOp, "c_kv", a.c_kv, rows, latent);
  require_size(kOp, "cos", a.cos, rows, rope / 2);
  require_size(kOp, "sin", a.sin, rows, rope / 2);
  require_shape(std::ssize(a.kv_weight) == latent, kOp, ": ", a.kv_weight.size(), " weights for ",
                latent, " latent columns");
  if (a.q_a.rows > 0) {
    require_size(kOp, "q_a", a.q_a, rows, a.q_an.cols);
    require_size(kOp, "q_an", a.q_an, rows, a.q_a.cols);
    require_shape(std::ssize(a.q_weight) == a.q_a.cols, kOp, ": ", a.q_weight.size(),
                  " weights for ", a.q_a.cols, " columns of queries");
  }
  ctx.ops().norm_planned(ctx, plan, bytes, a);
}
void attend_planned(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t bytes) {
  ctx.ops().attend_planned(ctx, plan, bytes);
}

}  // namespace cachalot
