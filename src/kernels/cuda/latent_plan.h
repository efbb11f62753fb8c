// How latent attention is cut into work: rows of one sequence into groups, its context into chunks.
//
// A row is a (query, head) pair of a problem, query-major. A row's result is a sum over chunks of
// the context, in order, of every eight chunks first: where chunks lie depends on the place in the
// context alone, so that bits do not depend on what else is in the call. How chunks are shared out
// depends on the call. A block of threads does pieces: a chunk, or, where they begin eight, several
// that it adds up itself. Pieces of a row leave partial results that are merged in the same order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/planned_latents.h"

namespace cachalot::cuda {

inline constexpr int kChunksTogether = 8;

// Tokens of chunks: `first` of each up to chunk `alike`, then twice as many whenever the context
// has doubled: a long context leaves fewer sums to add, and can still be shared out evenly.
struct ChunkLengths {
  int first, alike;  // `alike` is even

#ifdef __CUDACC__
  __host__ __device__
#endif
      int
      begin(int c) const {
    const int doublings = c < alike ? 0 : c / (alike / 2) - 1;
    return (first << doublings) * (c - alike / 2 * doublings);
  }
  int chunks(int tokens) const {
    int doublings = 0;
    while (tokens > (first * alike) << doublings) ++doublings;
    return alike / 2 * doublings + (tokens + (first << doublings) - 1) / (first << doublings);
  }
};

struct RowGroup {
  const float* q;                     // of the problem's first row
  float* out;                         // likewise
  std::int64_t q_stride, out_stride;  // from one query to the next
  int first_block;                    // of the problem, in the list of blocks
  int first_row, rows;
  int heads;
  int first_seen;  // by query 0; each later one sees one row more
  int cached;      // rows of the cache: what lies behind them is not to be used
  ChunkLengths lengths;
  int chunks;
  int partial;  // its first: one for each of its pieces
  int pieces;
  int first_eight;   // in the list of eights
  float scale_log2;  // to powers of two

#ifdef __CUDACC__
  __host__ __device__
#endif
      int
      query(int row) const {
    return (first_row + row) / heads;
  }
#ifdef __CUDACC__
  __host__ __device__
#endif
      int
      seen(int row) const {
    return first_seen + query(row);
  }  // by a row of this group
#ifdef __CUDACC__
  __host__ __device__
#endif
      int
      end(int c) const {  // of a chunk, as far as any row of the group sees
    const int most = seen(rows - 1), full = lengths.begin(c + 1);
    return full < most ? full : most;
  }
};

struct Piece {
  int group, first_chunk, chunks, partial;
};

struct LatentPlan {
  std::vector<RowGroup> groups;
  std::vector<const std::byte*> blocks;  // of the layer, offset included
  // Made by `share`:
  std::vector<Piece> pieces;
  std::vector<int> begins;  // pieces of each block of threads
  std::vector<int> eights;  // of each group: the first piece of every eight chunks, and their end
  int partials = 0;

  void add(const LatentAttention& a, int rows_per_group, ChunkLengths lengths);
  // Among up to `workers` blocks of threads, to each about as many tokens. `partial_always`: also
  // for groups of one chunk. Where groups come in twos that see the same rows (halves of 128
  // heads), so do blocks of threads: both read the same rows at the same time, from memory once.
  void share(int workers, bool partial_always);
  bool empty() const noexcept { return groups.empty(); }
};

// The plan on the device, in one piece.
struct DevicePlan {
  const RowGroup* groups;
  const Piece* pieces;
  const int* begins;
  const int* eights;
  const std::byte* const* blocks;
  std::ptrdiff_t shift = 0;  // from a block of the plan to that of the layer
};
DevicePlan upload(const Context& ctx, const LatentPlan& plan);

// latent_rows.cu: the list of stores as its kernel reads it, at the beginning of `bytes`; what its
// launch depends on, kStoreNumbers numbers.
inline constexpr std::size_t kStoreNumbers = 2;
std::vector<std::int64_t> append_stores(std::span<const StoreLatent> stores,
                                        std::vector<std::byte>& bytes);

}  // namespace cachalot::cuda
