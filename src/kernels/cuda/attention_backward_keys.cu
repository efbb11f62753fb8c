// dK and dV: a block of threads owns 128 keys of a head, two warpgroups 64 each, and goes over the
// queries that see them by 64. Scores are formed transposed, [keys, queries], so that probabilities
// and gradients leave the registers they were computed in only as operands of the next products.
#include "kernels/cuda/attention_backward.cuh"
#include "kernels/cuda/attention_hopper.cuh"
#include "kernels/cuda/attention_wgmma.cuh"

namespace cachalot::cuda::attn {

namespace {

constexpr int kKeys = kGradKeyTile, kQueries = kGradQueries, kStages = 3;
constexpr int kThreads = 384, kConsumers = 256;
constexpr int kTailBarrier = 1;
constexpr int kStatBytes = 2 * kQueries * sizeof(float);

template <class W>
struct Shared {
  static constexpr int kK = W::kKeyPanels * kKeys * kRowBytes;
  static constexpr int kV = W::kValuePanels * kKeys * kRowBytes;
  static constexpr int kQ = W::kKeyPanels * kQueries * kRowBytes;
  static constexpr int kDout = W::kValuePanels * kQueries * kRowBytes;
  static constexpr int kBytes =
      kK + kV + kStages * (kQ + kDout + kStatBytes) + 1024 + 32 + 8 * (2 + 3 * kStages);

  std::uint32_t k, v, q, dout, stats, tile, barriers;
  __device__ explicit Shared(const void* memory) {
    k = (ptx::shared_address(memory) + 1023) & ~1023u;
    v = k + kK;
    q = v + kV;
    dout = q + kStages * kQ;
    stats = dout + kStages * kDout;
    tile = stats + kStages * kStatBytes;
    barriers = tile + 32;
  }
  __device__ std::uint32_t queries(int s) const { return q + s * kQ; }
  __device__ std::uint32_t douts(int s) const { return dout + s * kDout; }
  __device__ std::uint32_t lse2(int s) const { return stats + s * kStatBytes; }
  __device__ std::uint32_t delta(int s) const { return lse2(s) + kStatBytes / 2; }
  __device__ std::uint32_t kv_full() const { return barriers; }
  __device__ std::uint32_t kv_empty() const { return barriers + 8; }
  __device__ std::uint32_t q_full(int s) const { return barriers + 8 * (2 + s); }
  __device__ std::uint32_t dout_full(int s) const { return barriers + 8 * (2 + kStages + s); }
  __device__ std::uint32_t empty(int s) const { return barriers + 8 * (2 + 2 * kStages + s); }
};

struct Work : Tile {
  int first_key, first_block, blocks;  // blocks of queries [first_block, blocks)
  __device__ explicit Work(const Tile& t) : Tile(t), first_key(t.block * kKeys) {
    blocks = (span.q_rows + kQueries - 1) / kQueries;
    first_block = max(0, first_key - before()) / kQueries;
  }
};

template <class W>
__device__ void fetch(const BackwardMaps& maps, const BackwardArgs& a, const Shared<W>& shared) {
  Ring<kStages> ring;
  take_tiles(a.queue, shared.tile, shared.kv_full(), shared.kv_empty(), [&](const Tile& tile) {
    const Work w(tile);
    const int kv_col = w.head * (W::kNope + W::kValue), kv_row = w.span.kv_begin + w.first_key;
    ptx::barrier_arrive_expect(shared.kv_full(), Shared<W>::kK + Shared<W>::kV);
    for (int p = 0; p < W::kNope / 64; ++p) {
      load_panel<kKeys>(maps.kv, shared.kv_full(), shared.k + p * kKeys * kRowBytes,
                        kv_col + p * 64, kv_row);
    }
    load_panel<kKeys>(maps.k_rope, shared.kv_full(), shared.k + W::kNope / 64 * kKeys * kRowBytes,
                      0, kv_row);
    for (int p = 0; p < W::kValuePanels; ++p) {
      load_panel<kKeys>(maps.kv, shared.kv_full(), shared.v + p * kKeys * kRowBytes,
                        kv_col + W::kNope + p * 64, kv_row);
    }
    int row = w.first_block * kQueries;
    const float* stats = a.stats + (w.head * a.padded_rows + w.padded_begin + row) * 2;
    for (; row < w.span.q_rows; row += kQueries, stats += 2 * kQueries, ring.advance()) {
      const int s = ring.stage;
      wait(shared.empty(s), ring.phase ^ 1);
      ptx::barrier_arrive_expect(shared.q_full(s), Shared<W>::kQ + kStatBytes);
      load_bytes(stats, shared.q_full(s), shared.lse2(s), kStatBytes);
      for (int p = 0; p < W::kKeyPanels; ++p) {
        load_panel<kQueries>(maps.q, shared.q_full(s), shared.queries(s) + p * kQueries * kRowBytes,
                             w.head * W::kKey + p * 64, w.span.q_begin + row);
      }
      ptx::barrier_arrive_expect(shared.dout_full(s), Shared<W>::kDout);
      for (int p = 0; p < W::kValuePanels; ++p) {
        load_panel<kQueries>(maps.dout, shared.dout_full(s),
                             shared.douts(s) + p * kQueries * kRowBytes,
                             w.head * W::kValue + p * 64, w.padded_begin + row);
      }
    }
  });
}

__device__ inline float2 shared_pair(std::uint32_t at) {
  float2 x;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(at) : "memory");
  return x;
}

template <class W>
__device__ void write(const BackwardArgs& a, const Work& w, const float (&dk)[W::kKey / 2],
                      const float (&dv)[W::kValue / 2], int key, int lane) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (key + 8 * r >= w.span.kv_rows) continue;
    const std::int64_t row = w.span.kv_begin + key + 8 * r;
    float* dkv = a.dkv + row * a.dkv_stride + w.head * (a.dims.nope + a.dims.value);
    float* rope = a.rope_parts + (row * a.heads + w.head) * W::kRope;
#pragma unroll
    for (int i = 0; i < W::kKey / 8; ++i) {
      const float x = dk[4 * i + 2 * r] * a.scale, y = dk[4 * i + 2 * r + 1] * a.scale;
      const int col = 8 * i + lane % 4 * 2;
      if (i < W::kNope / 8) {
        store_pair(dkv, col, a.dims.nope, a.dkv_pairs, x, y);
      } else {
        store_pair(rope, col - W::kNope, W::kRope, true, x, y);
      }
    }
#pragma unroll
    for (int i = 0; i < W::kValue / 8; ++i) {
      store_pair(dkv + a.dims.nope, 8 * i + lane % 4 * 2, a.dims.value, a.dkv_pairs,
                 dv[4 * i + 2 * r], dv[4 * i + 2 * r + 1]);
    }
  }
}

template <class W>
__device__ void accumulate(const BackwardArgs& a, const Shared<W>& shared, const Work& w, int group,
                           Ring<kStages>& ring) {
  constexpr int kKeySteps = W::kKey / 16, kValueSteps = W::kValue / 16, kSteps = kQueries / 16;
  const int thread = threadIdx.x % 128, lane = thread % 32;
  const int group_key = w.first_key + group * 64;
  const int key = group_key + thread / 32 * 16 + lane / 4;  // and 8 further down
  const std::uint32_t column = lane % 4 * 2 * sizeof(float);

  float dk[W::kKey / 2], dv[W::kValue / 2], s[32];
  std::uint32_t p[4 * kSteps], ds[4 * kSteps];
#pragma unroll
  for (int i = 0; i < W::kKey / 2; ++i) dk[i] = 0;
#pragma unroll
  for (int i = 0; i < W::kValue / 2; ++i) dv[i] = 0;

  const Operand k = along_rows(shared.k + group * 64 * kRowBytes);
  const Operand v = along_rows(shared.v + group * 64 * kRowBytes);

  const auto await_queries = [&](int m, const Ring<kStages>& ring) {
    wait(shared.q_full(ring.stage), ring.phase);
    if ((m + 1) * kQueries > w.span.q_rows) {
      zero_rows_behind<W::kKeyPanels, kQueries>(shared.queries(ring.stage),
                                                w.span.q_rows - m * kQueries, threadIdx.x - 128,
                                                kConsumers, kTailBarrier);
    }
  };
  const auto release = [&](std::uint32_t barrier) {
    if (lane == 0) ptx::barrier_arrive(barrier);
  };
  const auto queue_scores = [&](int stage) {
    multiply_rows<kKeySteps, kKeys, kQueries>(s, k, along_rows(shared.queries(stage)));
    commit();
  };
  const auto probabilities = [&](int m, int stage) {  // s to p
    const int first_position = w.before() + m * kQueries;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float2 lse2 = shared_pair(shared.lse2(stage) + column + i * 32);
      s[4 * i] = exp2_fast(fmaf(s[4 * i], a.scale_log2, -lse2.x));
      s[4 * i + 1] = exp2_fast(fmaf(s[4 * i + 1], a.scale_log2, -lse2.y));
      s[4 * i + 2] = exp2_fast(fmaf(s[4 * i + 2], a.scale_log2, -lse2.x));
      s[4 * i + 3] = exp2_fast(fmaf(s[4 * i + 3], a.scale_log2, -lse2.y));
    }
    if (group_key + 63 > first_position) {
      const int ahead = key - first_position;
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int position = i / 4 * 8 + lane % 4 * 2 + i % 2;
        if (ahead + i / 2 % 2 * 8 > position) s[i] = 0;
      }
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) p[i] = pack(s[2 * i], s[2 * i + 1]);
  };
  // dv += p dout, and ds of what dout says of the probabilities. Of these the rounded ones are
  // used: the others' registers are needed, and ds is rounded as coarsely itself.
  const auto gradients = [&](const Ring<kStages>& ring) {
    float(&dp)[32] = s;  // whose scores are done with
    wait(shared.dout_full(ring.stage), ring.phase);
    begin_products();
    multiply_rows<kValueSteps, kKeys, kQueries>(dp, v, along_rows(shared.douts(ring.stage)));
    multiply_add_rows<kSteps>(dv, p, across_rows<kQueries>(shared.douts(ring.stage)));
    commit();
    wait_products<0>();  // of both: ds has no registers beside a product that reads p
    pin(dv);
    pin(dp);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float2 delta = shared_pair(shared.delta(ring.stage) + column + i * 32);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        ds[2 * i + r] = pack(low_half(p[2 * i + r]) * (dp[4 * i + 2 * r] - delta.x),
                             high_half(p[2 * i + r]) * (dp[4 * i + 2 * r + 1] - delta.y));
      }
    }
  };

  int m = w.first_block;
  for (; m < w.blocks && group_key >= w.before() + (m + 1) * kQueries; ++m, ring.advance()) {
    await_queries(m, ring);                          // none of them sees a key of this group
    wait(shared.dout_full(ring.stage), ring.phase);  // an arrival must not count for the last use
    release(shared.empty(ring.stage));
  }
  if (m < w.blocks) {
    pin(dk);
    pin(dv);
    // The next block's scores are queued ahead of the last product of this one: its exponentials
    // hide behind it.
    await_queries(m, ring);
    begin_products();
    queue_scores(ring.stage);
    wait_products<0>();
    pin(s);
    probabilities(m, ring.stage);
    gradients(ring);
    for (++m; m < w.blocks; ++m) {
      const int previous = ring.stage;
      ring.advance();
      await_queries(m, ring);
      begin_products();
      queue_scores(ring.stage);
      multiply_add_rows<kSteps>(dk, ds, across_rows<kQueries>(shared.queries(previous)));
      commit();
      wait_products<1>();
      pin(s);
      probabilities(m, ring.stage);
      wait_products<0>();
      pin(dk);
      keep(ds);
      release(shared.empty(previous));
      gradients(ring);
    }
    release(shared.kv_empty());  // the next tile's may come
    begin_products();
    multiply_add_rows<kSteps>(dk, ds, across_rows<kQueries>(shared.queries(ring.stage)));
    commit();
    wait_products<0>();
    pin(dk);
    release(shared.empty(ring.stage));
    ring.advance();
  } else {
    release(shared.kv_empty());
  }
  write<W>(a, w, dk, dv, key, lane);
}

template <class W>
__global__ void __launch_bounds__(kThreads, 1)
    keys_kernel(const __grid_constant__ BackwardMaps maps, const __grid_constant__ BackwardArgs a) {
  extern __shared__ std::uint8_t memory[];
  const Shared<W> shared(memory);
  if (threadIdx.x == 0) {
    ptx::barrier_init(shared.kv_full(), 1);
    ptx::barrier_init(shared.kv_empty(), kConsumers / 32);
    for (int s = 0; s < kStages; ++s) {
      ptx::barrier_init(shared.q_full(s), 1);
      ptx::barrier_init(shared.dout_full(s), 1);
      ptx::barrier_init(shared.empty(s), kConsumers / 32);
    }
    publish_barriers();
  }
  __syncthreads();
  const int group = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 128, 0);
  if (group == 0) {
    give_registers<24>();
    if (threadIdx.x == 0) fetch<W>(maps, a, shared);
  } else {
    take_registers<240>();
    Ring<kStages> ring;
    for (std::uint32_t phase = 0;; phase ^= 1) {
      const Tile tile = next_tile(shared.tile, shared.kv_full(), phase);
      if (tile.head < 0) break;
      accumulate<W>(a, shared, Work(tile), group - 1, ring);
    }
  }
}

}  // namespace

template <class W>
void launch_key_gradients(const Context& ctx, const BackwardMaps& maps, const BackwardArgs& a) {
  check(cudaFuncSetAttribute(keys_kernel<W>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             Shared<W>::kBytes),
        "attention backward: asking for shared memory");
  const int blocks = std::min(a.queue.count, device_of(ctx).processors());
  keys_kernel<W><<<blocks, kThreads, Shared<W>::kBytes, stream_of(ctx)>>>(maps, a);
  check_launch("attention backward: keys");
}

template void launch_key_gradients<WideHeads>(const Context&, const BackwardMaps&,
                                              const BackwardArgs&);
template void launch_key_gradients<NarrowHeads>(const Context&, const BackwardMaps&,
                                                const BackwardArgs&);

}  // namespace cachalot::cuda::attn
