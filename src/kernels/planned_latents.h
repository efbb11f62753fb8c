// What a pass writes into latent caches and attends over, planned once for all layers: rows of
// every layer lie at the same places of their blocks, some bytes after those of the first, and all
// layers use the same queries, results and new rows.
//
// A device keeps the plan in its memory, so that the launches of a layer depend on `shape` alone
// and may be recorded (tensor/device.h): with another plan of the same shape in the same object
// they do that plan's work.
//
// Threads: as kernels/latent_attention.h and kernels/latent_rows.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/latent_attention.h"
#include "kernels/latent_rows.h"

namespace cachalot {

// Views of the pass: blocks, queries and rows have to outlive the plan's use.
struct PlannedLatents {
  std::vector<StoreLatent> stores;        // of the first layer
  std::vector<LatentAttention> problems;  // likewise
  Mat<std::byte> memory;                  // the device's
  std::vector<std::int64_t> shape;        // what launches depend on
};

// From `stores` and `problems`, which are given, all else.
void plan_latents_ref(const Context& ctx, PlannedLatents& plan);
void store_planned_ref(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t bytes);
void attend_planned_ref(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t bytes);

// From the products of a pass's rows to the latents of its attention, and those into the caches.
struct LatentNorms {
  MatView<const float> q_a;          // [T, Q]; or no rows
  std::span<const float> q_weight;   // [Q]
  MatView<float> q_an;               // [T, Q] normed
  MatView<float> kv_a;               // [T, L + R]: the rope part is rotated
  std::span<const float> kv_weight;  // [L]
  MatView<float> c_kv;               // [T, L] normed
  float eps = 0;
  MatView<const float> cos, sin;  // [T, R / 2]
};
void norm_planned_ref(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t bytes,
                      const LatentNorms& a);

// Checks shapes, then the table's. `bytes`: from the first layer's rows to this one's.
void plan_latents(const Context& ctx, PlannedLatents& plan);
void store_planned(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t bytes);
void attend_planned(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t bytes);
// Rotates, norms and stores: the rows that the plan stores are c_kv and the rope part of kv_a.
void norm_planned(const Context& ctx, const PlannedLatents& plan, std::ptrdiff_t bytes,
                  const LatentNorms& a);

}  // namespace cachalot
