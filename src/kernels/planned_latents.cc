#include "kernels/planned_latents.h"

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

void plan_latents(const Context& ctx, PlannedLatents& plan) {
  for (const StoreLatent& a : plan.stores) check_shapes(a);
  for (const LatentAttention& a : plan.problems) check_shapes(a);
  ctx.ops().plan_latents(ctx, plan);
}
void store_planned(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t bytes) {
  ctx.ops().store_planned(ctx, plan, bytes);
}
void attend_planned(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t bytes) {
  ctx.ops().attend_planned(ctx, plan, bytes);
}

}  // namespace cachalot
