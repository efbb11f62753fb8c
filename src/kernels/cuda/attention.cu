// Forward attention: tiles of 128 queries against blocks of 128 keys, as FlashAttention-2 and -3
// (arXiv 2307.08691, 2407.08608) do it.
//
// Blocks of threads stay and take one tile after the other. One warp fetches keys and values by TMA
// into two buffers each; two warpgroups of 64 queries multiply. The scores of the next keys are
// queued ahead of the product with the last values, and the warpgroups take turns queueing, so that
// exponentials hide behind products. Keys come in ascending order, so a row's result does not
// depend on its tile.
#include "kernels/cuda/attention_hopper.cuh"
#include "kernels/cuda/attention_queue.cuh"
#include "kernels/cuda/attention_slow.cuh"
#include "kernels/cuda/attention_wgmma.cuh"
#include "kernels/cuda/attention_work.cuh"
#include "kernels/cuda/ops.h"

namespace cachalot::cuda {

namespace attn {
namespace {

constexpr int kQueries = 128, kKeys = 128, kStages = 2;
constexpr int kThreads = 384, kConsumers = 256;
enum NamedBarrier { kTurn = 1, kTail = 3 };  // kTurn + 0, 1: one for each warpgroup

struct ForwardArgs {
  TileQueue queue;
  float scale, scale_log2;
  float* out;
  std::ptrdiff_t out_stride;
  int value;   // columns of out per head
  bool pairs;  // out can be written two floats at a time
  float* lse;  // or null
  std::ptrdiff_t lse_stride;
};

template <class W>
struct ForwardShared {
  static constexpr int kQ = W::kKeyPanels * kQueries * kRowBytes;
  static constexpr int kK = W::kKeyPanels * kKeys * kRowBytes;
  static constexpr int kV = W::kValuePanels * kKeys * kRowBytes;
  static constexpr int kBytes = kQ + kStages * (kK + kV) + 1024 + 32 + 8 * (2 + 4 * kStages);

  std::uint32_t q, k, v, tile, barriers;
  __device__ explicit ForwardShared(const void* memory) {
    q = (ptx::shared_address(memory) + 1023) & ~1023u;
    k = q + kQ;
    v = k + kStages * kK;
    tile = v + kStages * kV;
    barriers = tile + 32;
  }
  __device__ std::uint32_t keys(int stage) const { return k + stage * kK; }
  __device__ std::uint32_t values(int stage) const { return v + stage * kV; }
  __device__ std::uint32_t q_full() const { return barriers; }
  __device__ std::uint32_t q_empty() const { return barriers + 8; }
  __device__ std::uint32_t k_full(int stage) const { return barriers + 8 * (2 + stage); }
  __device__ std::uint32_t k_empty(int stage) const { return k_full(kStages + stage); }
  __device__ std::uint32_t v_full(int stage) const { return k_full(2 * kStages + stage); }
  __device__ std::uint32_t v_empty(int stage) const { return k_full(3 * kStages + stage); }
};

template <class W>
__device__ void fetch(const CUtensorMap& q_map, const CUtensorMap& kv_map,
                      const CUtensorMap& rope_map, const ForwardArgs& a,
                      const ForwardShared<W>& shared) {
  Ring<kStages> ring;
  take_tiles(a.queue, shared.tile, shared.q_full(), shared.q_empty(), [&](const Tile& tile) {
    ptx::barrier_arrive_expect(shared.q_full(), ForwardShared<W>::kQ);
    for (int p = 0; p < W::kKeyPanels; ++p) {
      load_panel<kQueries>(q_map, shared.q_full(), shared.q + p * kQueries * kRowBytes,
                           tile.head * W::kKey + p * 64, tile.span.q_begin + tile.block * kQueries);
    }
    const int col = tile.head * (W::kNope + W::kValue);
    for (int j = 0; j < tile.work; ++j, ring.advance()) {
      const int s = ring.stage, row = tile.span.kv_begin + j * kKeys;
      wait(shared.k_empty(s), ring.phase ^ 1);
      ptx::barrier_arrive_expect(shared.k_full(s), ForwardShared<W>::kK);
      for (int p = 0; p < W::kNope / 64; ++p) {
        load_panel<kKeys>(kv_map, shared.k_full(s), shared.keys(s) + p * kKeys * kRowBytes,
                          col + p * 64, row);
      }
      load_panel<kKeys>(rope_map, shared.k_full(s),
                        shared.keys(s) + W::kNope / 64 * kKeys * kRowBytes, 0, row);
      wait(shared.v_empty(s), ring.phase ^ 1);
      ptx::barrier_arrive_expect(shared.v_full(s), ForwardShared<W>::kV);
      for (int p = 0; p < W::kValuePanels; ++p) {
        load_panel<kKeys>(kv_map, shared.v_full(s), shared.values(s) + p * kKeys * kRowBytes,
                          col + W::kNope + p * 64, row);
      }
    }
  });
}

// A thread's two rows of softmax: scores become probabilities relative to the largest so far.
struct RunningSoftmax {
  float max[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};  // of this thread's columns alone, until finish()

  // Returns what earlier sums and results have to be multiplied by.
  __device__ float2 update(float (&s)[64], float scale_log2) {
    float factor[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float m = max[r];
#pragma unroll
      for (int i = 0; i < 64; i += 4) m = fmaxf(m, fmaxf(s[i + 2 * r], s[i + 2 * r + 1]));
      m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
      m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
      factor[r] = exp2_fast((max[r] - m) * scale_log2);
      max[r] = m;
      const float shift = m * scale_log2;
      float total = 0;
#pragma unroll
      for (int i = 0; i < 64; i += 4) {
        s[i + 2 * r] = exp2_fast(fmaf(s[i + 2 * r], scale_log2, -shift));
        s[i + 2 * r + 1] = exp2_fast(fmaf(s[i + 2 * r + 1], scale_log2, -shift));
        total += s[i + 2 * r] + s[i + 2 * r + 1];
      }
      sum[r] = fmaf(sum[r], factor[r], total);
    }
    return {factor[0], factor[1]};
  }
  __device__ void finish() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
      sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
    }
  }
};

// Keys behind a row's own position. `ahead` = first key of the block - the position of row 0 of
// this thread.
__device__ inline void mask_future(float (&s)[64], int ahead, int lane) {
#pragma unroll
  for (int i = 0; i < 64; ++i) {
    const int key = i / 4 * 8 + lane % 4 * 2 + i % 2, row = i / 2 % 2 * 8;
    if (ahead + key > row) s[i] = -INFINITY;
  }
}

// One tile by a warpgroup. `ring` is that of keys and values alike; it goes on from tile to tile.
template <class W>
__device__ void attend(const ForwardArgs& a, const ForwardShared<W>& shared, const Tile& tile,
                       int group, Ring<kStages>& ring) {
  constexpr int kKeySteps = W::kKey / 16, kProbSteps = kKeys / 16, kOut = W::kValue / 2;
  const int thread = threadIdx.x % 128, lane = thread % 32, warp = thread / 32;
  const int group_row = tile.block * kQueries + group * 64;  // among the span's queries
  const int row = group_row + warp * 16 + lane / 4;
  const int before = tile.before(), key_blocks = tile.work;
  const AttentionSpan& span = tile.span;

  float s[64], o[kOut];
  std::uint32_t p[4 * kProbSteps];
  RunningSoftmax softmax;
  const Operand q = along_rows(shared.q + group * 64 * kRowBytes);

  const auto mask = [&](int j) {
    if (j * kKeys + kKeys - 1 > before + group_row) mask_future(s, j * kKeys - before - row, lane);
  };
  const auto round = [&] {
#pragma unroll
    for (int i = 0; i < 32; ++i) p[i] = pack(s[2 * i], s[2 * i + 1]);
  };
  const auto release = [&](std::uint32_t barrier) {
    if (lane == 0) ptx::barrier_arrive(barrier);
  };

#pragma unroll
  for (int i = 0; i < kOut; ++i) o[i] = 0;
  wait(shared.k_full(ring.stage), ring.phase);
  begin_products();
  multiply_rows<kKeySteps, kQueries, kKeys>(s, q, along_rows(shared.keys(ring.stage)));
  commit();
  wait_products<0>();
  pin(s);
  release(shared.k_empty(ring.stage));
  mask(0);
  softmax.update(s, a.scale_log2);
  round();

  if (group == 1 && key_blocks > 1) arrive_threads(kTurn + 0, kConsumers);
  for (int j = 1; j < key_blocks; ++j) {
    const Ring<kStages> v_ring = ring;  // values are one block behind
    ring.advance();
    wait(shared.k_full(ring.stage), ring.phase);
    sync_threads(kTurn + group, kConsumers);
    begin_products();
    multiply_rows<kKeySteps, kQueries, kKeys>(s, q, along_rows(shared.keys(ring.stage)));
    commit();
    wait(shared.v_full(v_ring.stage), v_ring.phase);
    multiply_add_rows<kProbSteps>(o, p, across_rows<kKeys>(shared.values(v_ring.stage)));
    commit();
    if (group == 0 || j + 1 < key_blocks) arrive_threads(kTurn + 1 - group, kConsumers);
    wait_products<1>();
    pin(s);
    release(shared.k_empty(ring.stage));
    mask(j);
    const float2 factor = softmax.update(s, a.scale_log2);
    wait_products<0>();
    pin(o);
    keep(p);
    release(shared.v_empty(v_ring.stage));
    round();
#pragma unroll
    for (int i = 0; i < kOut; i += 4) {
      o[i] *= factor.x;
      o[i + 1] *= factor.x;
      o[i + 2] *= factor.y;
      o[i + 3] *= factor.y;
    }
  }

  release(shared.q_empty());  // the next tile's may come
  wait(shared.v_full(ring.stage), ring.phase);
  if (key_blocks * kKeys > span.kv_rows) {
    zero_rows_behind<W::kValuePanels, kKeys>(shared.values(ring.stage),
                                             span.kv_rows - (key_blocks - 1) * kKeys,
                                             threadIdx.x - 128, kConsumers, kTail);
  }
  begin_products();
  multiply_add_rows<kProbSteps>(o, p, across_rows<kKeys>(shared.values(ring.stage)));
  commit();
  softmax.finish();
  wait_products<0>();
  pin(o);
  release(shared.v_empty(ring.stage));
  ring.advance();

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (row + 8 * r >= span.q_rows) continue;
    const std::int64_t at = span.q_begin + row + 8 * r;
    const float inverse = 1 / softmax.sum[r];
    float* out = a.out + at * a.out_stride + tile.head * a.value;
#pragma unroll
    for (int i = 0; i < kOut / 4; ++i) {
      store_pair(out, 8 * i + lane % 4 * 2, a.value, a.pairs, o[4 * i + 2 * r] * inverse,
                 o[4 * i + 2 * r + 1] * inverse);
    }
    if (a.lse != nullptr && lane % 4 == 0) {
      a.lse[at * a.lse_stride + tile.head] = softmax.max[r] * a.scale + logf(softmax.sum[r]);
    }
  }
}

template <class W>
__global__ void __launch_bounds__(kThreads, 1)
    forward_kernel(const __grid_constant__ CUtensorMap q_map,
                   const __grid_constant__ CUtensorMap kv_map,
                   const __grid_constant__ CUtensorMap rope_map, const ForwardArgs a) {
  extern __shared__ std::uint8_t memory[];
  const ForwardShared<W> shared(memory);
  if (threadIdx.x == 0) {
    ptx::barrier_init(shared.q_full(), 1);
    ptx::barrier_init(shared.q_empty(), kConsumers / 32);
    for (int s = 0; s < kStages; ++s) {
      ptx::barrier_init(shared.k_full(s), 1);
      ptx::barrier_init(shared.v_full(s), 1);
      ptx::barrier_init(shared.k_empty(s), kConsumers / 32);
      ptx::barrier_init(shared.v_empty(s), kConsumers / 32);
    }
    publish_barriers();
  }
  __syncthreads();
  const int group = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 128, 0);
  if (group == 0) {
    give_registers<24>();
    if (threadIdx.x == 0) fetch<W>(q_map, kv_map, rope_map, a, shared);
  } else {
    take_registers<240>();
    Ring<kStages> ring;
    for (std::uint32_t phase = 0;; phase ^= 1) {
      const Tile tile = next_tile(shared.tile, shared.q_full(), phase);
      if (tile.head < 0) break;
      attend<W>(a, shared, tile, group - 1, ring);
    }
  }
}

template <class W>
void forward_tiled(const Context& ctx, const Attention<float>& a) {
  const Inputs inputs = inputs_of(a);
  Room room;
  PackedInputs packed(inputs, W::kNope, W::kRope, W::kValue, room);
  thread_local TileLists lists;
  if (!lists.hold(a.spans, a.dims.heads)) {
    lists.add((W::kKey + W::kValue) * sizeof(Bf16),
              [](const AttentionSpan& s) { return ceil_div(s.q_rows, kQueries); },
              [](const AttentionSpan& s, int block) {  // blocks of keys that the last query sees
                const int end = std::min((block + 1) * kQueries, s.q_rows);
                return ceil_div(s.kv_rows - s.q_rows + end, kKeys);
              });
  }
  if (lists.count(0) == 0) return;
  packed.pack(ctx,
              static_cast<std::byte*>(device_of(ctx).scratch(kScratchAttention, room.bytes())));

  ForwardArgs args;
  lists.upload(ctx);
  args.queue = lists.queue(0);
  args.scale = a.scale;
  args.scale_log2 = a.scale * 1.4426950408889634f;
  args.out = a.out.data;
  args.out_stride = a.out.stride;
  args.value = a.dims.value;
  args.pairs = takes_pairs(a.out) && a.dims.value % 2 == 0;
  args.lse = a.lse.cols != 0 ? a.lse.data : nullptr;
  args.lse_stride = a.lse.stride;
  constexpr int kBytes = ForwardShared<W>::kBytes;
  check(
      cudaFuncSetAttribute(forward_kernel<W>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
      "attention: asking for shared memory");
  const int blocks = std::min(lists.count(0), device_of(ctx).processors());
  forward_kernel<W><<<blocks, kThreads, kBytes, stream_of(ctx)>>>(packed.q_map(), packed.kv_map(),
                                                                  packed.rope_map(), args);
  check_launch("attention");
}

}  // namespace
}  // namespace attn

void attention(const Context& ctx, const Attention<float>& a) {
  switch (attn::head_kind(a.dims, a.precision)) {
    case attn::HeadKind::kWide:
      return attn::forward_tiled<attn::WideHeads>(ctx, a);
    case attn::HeadKind::kNarrow:
      return attn::forward_tiled<attn::NarrowHeads>(ctx, a);
    case attn::HeadKind::kOther:
      return attn::forward_slow(ctx, a);
  }
}

}  // namespace cachalot::cuda
