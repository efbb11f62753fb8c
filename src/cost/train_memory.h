// What a device holds while it trains: weights, gradients, optimiser, activations.
//
// Threads: pure functions.
// Errors:  none; the layout has been checked.
// Paper:   V3 report 3.2.3, 3.3.1, 3.3.3 and "Insights" 2: FP32 master weights and gradients, BF16
//          moments, activations kept in FP8 (the attention's output in 12 bits), norms, projections
//          out of the latents and SwiGLU computed again. ZeRO-1: Rajbhandari et al. 2020.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "cost/schedule.h"
#include "cost/train_layout.h"

namespace cachalot::cost {

// Parameters of one layer, by how they are split.
struct LayerSizes {
  double attention = 0;
  double norms = 0;
  double dense_ffn = 0;
  double shared = 0;
  double expert = 0;  // one routed
  double router = 0;
  double projection = 0;  // of an MTP layer: 2 D x D
  double table = 0;       // embedding or head
};
LayerSizes layer_sizes(const model::Config& config);

// Bytes kept from the forward to the backward pass, of one token, by kind.
struct KeptBytes {
  std::string_view kind;
  double bytes = 0;
};
// Of one layer, dense or with experts, before tensor parallelism splits them.
std::vector<KeptBytes> kept_per_token(const model::Config& config, const Layout& layout, bool moe);
double sum(const std::vector<KeptBytes>& kept);

// Parameters on one device of a pipeline rank, and how many devices share their optimiser.
struct DeviceParameters {
  double replicated = 0;  // on all data-parallel copies, tensor-split
  double experts = 0;
  double replicated_shards = 1;
  double expert_shards = 1;
  double sum() const noexcept { return replicated + experts; }
  // Whose master and moments lie on this device.
  double owned() const noexcept { return replicated / replicated_shards + experts / expert_shards; }
};
DeviceParameters device_parameters(const model::Config& config, const Layout& layout,
                                   std::span<const Stage> stages, const Schedule& schedule,
                                   int rank);

struct TrainMemory {
  double weights = 0;  // what products read, where it is not the master
  double gradients = 0;
  double optimizer = 0;  // master weights and moments
  double activations = 0;
  double working = 0;  // of one layer, and the logits
  double sum() const noexcept { return weights + gradients + optimizer + activations + working; }
};
// Of a device of `rank`, where activations of `pieces` (peak_pieces) lie at once.
TrainMemory train_memory(const model::Config& config, const Layout& layout,
                         std::span<const Stage> stages, const Schedule& schedule, int rank,
                         int pieces);
// Bytes of weights, gradients, masters and moments for each parameter, at least, over all devices
// together.
double least_state_bytes(TrainPrecision precision) noexcept;
// What the fullest device holds of activations and at work, at least, however the pipeline is cut
// (the pipeline and the schedule of `layout` are not looked at).
double least_activations(const model::Config& config, const Layout& layout);

}  // namespace cachalot::cost
