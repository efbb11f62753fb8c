// What the blocks of threads of all kernels do alike: their pieces, references of softmax, sums of
// chunks.
#pragma once

#include "kernels/cuda/latent_device.cuh"
#include "kernels/cuda/latent_plan.h"

namespace cachalot::cuda {

// The pieces of a block of threads.
struct PieceRange {
  int first, last;
};
__device__ inline PieceRange pieces_of_block(const DevicePlan& plan) {
  return {plan.begins[blockIdx.x], plan.begins[blockIdx.x + 1]};
}

// The tokens of some pieces, in order.
class TokenWalk {
 public:
  // Every `step`th from `first` on, of each piece.
  __device__ TokenWalk(const DevicePlan& plan, PieceRange range, int first, int step)
      : plan_(plan), range_(range), first_(first), step_(step) {
    enter();
  }
  __device__ bool more() const { return range_.first < range_.last; }
  __device__ void next() {
    pos_ += step_;
    if (pos_ >= end_) {
      ++range_.first;
      enter();
    }
  }
  __device__ int pos() const { return pos_; }
  __device__ int end() const { return end_; }              // of the piece
  __device__ int valid() const { return cached_ - pos_; }  // rows of the cache from here on
  __device__ const std::byte* block() const { return blocks_[pos_ / kLatentBlock] + plan_.shift; }

 private:
  __device__ void enter() {
    for (; range_.first < range_.last; ++range_.first) {
      const Piece piece = plan_.pieces[range_.first];
      const RowGroup& g = plan_.groups[piece.group];
      blocks_ = plan_.blocks + g.first_block;
      pos_ = g.lengths.begin(piece.first_chunk) + first_;
      end_ = g.end(piece.first_chunk + piece.chunks - 1);
      cached_ = g.cached;
      if (pos_ < end_) return;
    }
  }
  const DevicePlan& plan_;
  PieceRange range_;
  int first_, step_, pos_ = 0, end_ = 0, cached_ = 0;
  const std::byte* const* blocks_ = nullptr;
};

// The queries of a group in bf16, as products read them; rows that are not there are zeros. By
// `kThreads`, six pieces at once: a read takes as long as a tile does.
template <int kRows, int kThreads>
__device__ inline void load_queries(const RowGroup& g, std::uint32_t query, int thread) {
  constexpr int kPieces = kQueryWidth / 8, kAtOnce = 6;
#pragma unroll 1
  for (int i0 = thread; i0 < kRows * kPieces; i0 += kAtOnce * kThreads) {
    float4 low[kAtOnce], high[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int i = i0 + j * kThreads, r = i / kPieces, flat = g.first_row + r;
      low[j] = high[j] = {0, 0, 0, 0};
      if (r >= g.rows) continue;
      const auto* from = reinterpret_cast<const float4*>(
          g.q + flat / g.heads * g.q_stride + flat % g.heads * kQueryWidth + i % kPieces * 8);
      low[j] = from[0];
      high[j] = from[1];
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int i = i0 + j * kThreads, r = i / kPieces, piece = i % kPieces;
      if (r >= kRows) break;
      store_piece(query + piece_at<kRows>(r, piece / 8, piece % 8),
                  {pack_bf16(low[j].x, low[j].y), pack_bf16(low[j].z, low[j].w),
                   pack_bf16(high[j].x, high[j].y), pack_bf16(high[j].z, high[j].w)});
    }
  }
}

// Largest scores are rounded up to whole powers of two, and kept while no score is 2^8 past them:
// factors between them are exact, so that when they change changes no bits of a result.
inline constexpr float kReferenceSlack = 8;
__device__ inline float next_reference(float reference, float largest) {
  return largest > reference + kReferenceSlack ? ceilf(largest) : reference;
}

// 2^(from - to), exact; of nothing yet (-infinity) 0.
__device__ inline float between(float from, float to) {
  return exp2_of(from - (to == -INFINITY ? 0 : to));
}

// What becomes of a chunk's sums: the first of a piece is stored as a partial, others are added to
// it, and where the piece is all of a row its last one makes the result. `carry` brings the partial
// to the reference of the sums. Always a + b of exact a and b: bits do not depend on the path.
enum class Deposit { kStore, kAdd, kResult, kLastResult };

__device__ inline Deposit deposit_of(const RowGroup& g, bool first, bool last) {
  if (g.pieces == 1 && last) return first ? Deposit::kResult : Deposit::kLastResult;
  return first ? Deposit::kStore : Deposit::kAdd;
}
// Four sums; `carried`: some lane of the warp has a carry other than 1.
__device__ inline void deposit(Deposit how, float4 x, float4* partial, float4 carry, bool carried) {
  if (how == Deposit::kStore) {
    *partial = x;
  } else if (carried) {
    const float4 before = __ldcg(partial);
    *partial = {__fmaf_rn(before.x, carry.x, x.x), __fmaf_rn(before.y, carry.y, x.y),
                __fmaf_rn(before.z, carry.z, x.z), __fmaf_rn(before.w, carry.w, x.w)};
  } else {
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(partial),
                 "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w)
                 : "memory");
  }
}

}  // namespace cachalot::cuda
