// How latent attention is cut into work: rows of one sequence into groups, its context into chunks.
//
// A row is a (query, head) pair of a problem, query-major. Where a context is cut depends on how
// much of it a query sees and on nothing else, so that its bits do not depend on what else is in
// the call: queries of one problem that want different chunks go into different groups. A group's
// chunks are items; each leaves its own softmax and sum (a partial), which are merged in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/latent_attention.h"

namespace cachalot::cuda {

struct RowGroup {
  const float* q;     // of the problem's first row
  float* out;         // likewise
  std::int64_t q_stride, out_stride;  // from one query to the next
  int first_block;    // of the problem, in the list of blocks
  int first_row, rows;
  int heads;
  int first_seen;     // by query 0; each later one sees one row more
  int cached;         // rows of the cache: what lies behind them is not to be used
  int chunk, chunks;  // tokens of a chunk
  int partial;        // number of the group's first
  float scale_log2;   // to powers of two

#ifdef __CUDACC__
  __host__ __device__
#endif
  int query(int row) const { return (first_row + row) / heads; }
#ifdef __CUDACC__
  __host__ __device__
#endif
  int seen(int row) const { return first_seen + query(row); }  // by a row of this group
#ifdef __CUDACC__
  __host__ __device__
#endif
  int end(int c) const {  // of a chunk, as far as any row of the group sees
    const int most = seen(rows - 1), full = (c + 1) * chunk;
    return full < most ? full : most;
  }
};

struct WorkItem {
  int group, chunk;
};

struct LatentPlan {
  std::vector<RowGroup> groups;
  std::vector<WorkItem> items;
  std::vector<const std::byte*> blocks;  // of the layer, offset included
  int partials = 0;  // groups of one chunk leave none

  // Tokens of a chunk by what a query sees: a multiple of 64.
  using ChunkRule = int (*)(int seen);
  void add(const LatentAttention& a, int rows_per_group, ChunkRule rule);
  bool empty() const noexcept { return items.empty(); }
};

// The plan on the device, in one piece.
struct DevicePlan {
  const RowGroup* groups;
  const WorkItem* items;
  const std::byte* const* blocks;
};
DevicePlan upload(const Context& ctx, const LatentPlan& plan);

}  // namespace cachalot::cuda
