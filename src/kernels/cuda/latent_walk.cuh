// Walks of a block of threads over its items, their tiles and its ring of buffers.
#pragma once

#include "kernels/cuda/latent_device.cuh"
#include "kernels/cuda/latent_plan.h"

namespace cachalot::cuda {

#ifdef LATENT_PROFILE
__device__ unsigned long long latent_profile[16];
#define PROFILE_BEGIN long long profile_at = clock64();
#define PROFILE(i)                                                         \
  {                                                                        \
    const long long now = clock64();                                       \
    if (thread % 128 == 0 && blockIdx.x == 0) latent_profile[i] += now - profile_at; \
    profile_at = now;                                                      \
  }
#define PROFILE_COUNT \
  if (thread == 0 && blockIdx.x == 0) ++latent_profile[15];
#else
#define PROFILE_BEGIN
#define PROFILE(i)
#define PROFILE_COUNT
#endif

// The items of a block of threads: as many for each, neighbours together.
struct ItemRange {
  int first, last;
};
__device__ inline ItemRange items_of_block(int items) {
  const std::int64_t n = items;
  return {static_cast<int>(n * blockIdx.x / gridDim.x),
          static_cast<int>(n * (blockIdx.x + 1) / gridDim.x)};
}

// Largest scores are rounded up to whole powers of two, and kept while no score is 2^8 past them:
// factors between them are exact, so that when they change changes no bits of a result.
inline constexpr float kReferenceSlack = 8;
__device__ inline float next_reference(float reference, float largest) {
  return largest > reference + kReferenceSlack ? ceilf(largest) : reference;
}

// A place in a ring of buffers, and the parity of its barriers there.
template <int kSize>
struct Ring {
  int at = 0;
  std::uint32_t parity = 0;
  __device__ void step() {
    if (++at == kSize) {
      at = 0;
      parity ^= 1;
    }
  }
};

// The tiles of some items, one after the other.
class TileWalk {
 public:
  __device__ TileWalk(const DevicePlan& plan, int item, int last)
      : plan_(plan), item_(item), last_(last) {
    if (more()) enter();
  }
  __device__ bool more() const { return item_ < last_; }
  __device__ void step(int tokens) {
    pos_ += tokens;
    if (pos_ >= end_ && ++item_ < last_) enter();
  }
  __device__ const std::byte* block() const { return blocks_[pos_ / kLatentBlock]; }
  __device__ int in_block() const { return pos_ % kLatentBlock; }
  __device__ int behind() const { return cached_ - pos_; }  // rows of the cache from here on

 private:
  __device__ void enter() {
    const WorkItem work = plan_.items[item_];
    const RowGroup& g = plan_.groups[work.group];
    blocks_ = plan_.blocks + g.first_block;
    pos_ = work.chunk * g.chunk;
    end_ = g.end(work.chunk);
    cached_ = g.cached;
  }
  const DevicePlan& plan_;
  int item_, last_;
  const std::byte* const* blocks_ = nullptr;
  int pos_ = 0, end_ = 0, cached_ = 0;
};

}  // namespace cachalot::cuda
