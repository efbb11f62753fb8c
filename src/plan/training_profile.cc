#include "plan/training_profile.h"

namespace cachalot::plan {

void TrainingProfile::fields(FieldVisitor& f) {
  constexpr double kMost = 1e12;
  f("sustained", sustained, 0.0, 1.0,
    "share of a lone kernel's rate that is left in a step (clocks under load); 0: all");
  f("attention_forward", attention_forward, 0.0, 1.0,
    "share of the bf16 peak (else f32) of attention; 0: achieved.attention");
  f("attention_backward", attention_backward, 0.0, 1.0, "of its backward pass; 0: as forward");
  f("expert_imbalance", expert_imbalance, 0.0, 1e6,
    "tokens of the busiest device of an expert group over the mean; 0: 1");
  f("expert_ranks", expert_ranks, 1.0, 1e6, "devices of an expert group, rising");
  f("dispatch_gbps", dispatch_gbps, 0.0, kMost, "dispatch of one device, a copy per node counted");
  f("combine_gbps", combine_gbps, 0.0, kMost, "combine, likewise");
  f("half_size", half_size, 0.0, 1e6,
    "depth or width at which a product reaches half of its rate: n / (n + half_size)");
  f("elementwise_bytes", elementwise_bytes, 0.0, 1e3,
    "bytes read and written per activation and pass outside of products; 0: 4");
  f("product_us", product_us, 0.0, 1e9, "of each product, besides bytes and operations");
  f("reserve_gb", reserve_gb, 0.0, kMost, "memory of a device that is not the model's");
  f("source", source, "where these figures come from");
}

}  // namespace cachalot::plan
