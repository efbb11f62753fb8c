#include "kernels/cuda/latent_plan.h"

#include <algorithm>
#include <cstring>
#include <numbers>

#include "kernels/cuda/stream.cuh"

namespace cachalot::cuda {

void LatentPlan::add(const LatentAttention& a, int rows_per_group, ChunkRule rule) {
  const int queries = a.q.rows;
  const int first_block = static_cast<int>(blocks.size());
  const int used = ceil_div(a.cache.rows, kLatentBlock);
  for (int b = 0; b < used; ++b) {
    blocks.push_back(a.cache.blocks[static_cast<std::size_t>(b)] + a.cache.offset);
  }
  const int first_seen = a.cache.rows - queries + 1;
  for (int begin = 0; begin < queries;) {
    const int chunk = rule(first_seen + begin);
    int end = begin + 1;
    while (end < queries && rule(first_seen + end) == chunk) ++end;
    for (int row = begin * a.heads; row < end * a.heads; row += rows_per_group) {
      RowGroup g{};
      g.q = a.q.data;
      g.out = a.out.data;
      g.q_stride = a.q.stride;
      g.out_stride = a.out.stride;
      g.first_block = first_block;
      g.first_row = row;
      g.rows = std::min(rows_per_group, end * a.heads - row);
      g.heads = a.heads;
      g.first_seen = first_seen;
      g.cached = a.cache.rows;
      g.chunk = chunk;
      g.chunks = ceil_div(g.seen(g.rows - 1), chunk);
      g.partial = partials;
      g.scale_log2 = a.scale * std::numbers::log2e_v<float>;
      if (g.chunks > 1) partials += g.chunks;
      for (int c = 0; c < g.chunks; ++c) items.push_back({static_cast<int>(groups.size()), c});
      groups.push_back(g);
    }
    begin = end;
  }
}

DevicePlan upload(const Context& ctx, const LatentPlan& plan) {
  std::vector<std::byte> bytes;
  const auto append = [&bytes](const auto& list) {
    const std::size_t at = (bytes.size() + 15) / 16 * 16;
    const std::size_t size = list.size() * sizeof(list[0]);
    bytes.resize(at + size);
    std::memcpy(bytes.data() + at, list.data(), size);
    return at;
  };
  const std::size_t groups = append(plan.groups), items = append(plan.items),
                    blocks = append(plan.blocks);
  const std::byte* base = stage(ctx, std::span<const std::byte>(bytes));
  return {reinterpret_cast<const RowGroup*>(base + groups),
          reinterpret_cast<const WorkItem*>(base + items),
          reinterpret_cast<const std::byte* const*>(base + blocks)};
}

}  // namespace cachalot::cuda
