// dQ: a block of threads owns 128 queries of a head, two warpgroups 64 each, and goes over the keys
// they see by 64.
#include "kernels/cuda/attention_backward.cuh"
#include "kernels/cuda/attention_hopper.cuh"
#include "kernels/cuda/attention_wgmma.cuh"

namespace cachalot::cuda::attn {

namespace {

constexpr int kKeys = kGradKeys, kQueries = kGradQueryTile, kStages = 3;
constexpr int kThreads = 384, kConsumers = 256;
constexpr int kTailBarrier = 1;

template <class W>
struct Shared {
  static constexpr int kQ = W::kKeyPanels * kQueries * kRowBytes;
  static constexpr int kDout = W::kValuePanels * kQueries * kRowBytes;
  static constexpr int kK = W::kKeyPanels * kKeys * kRowBytes;
  static constexpr int kV = W::kValuePanels * kKeys * kRowBytes;
  static constexpr int kBytes =
      kQ + kDout + kStages * (kK + kV) + 1024 + 32 + 8 * (2 + 3 * kStages);

  std::uint32_t q, dout, k, v, tile, barriers;
  __device__ explicit Shared(const void* memory) {
    q = (ptx::shared_address(memory) + 1023) & ~1023u;
    dout = q + kQ;
    k = dout + kDout;
    v = k + kStages * kK;
    tile = v + kStages * kV;
    barriers = tile + 32;
  }
  __device__ std::uint32_t keys(int s) const { return k + s * kK; }
  __device__ std::uint32_t values(int s) const { return v + s * kV; }
  __device__ std::uint32_t q_full() const { return barriers; }
  __device__ std::uint32_t q_empty() const { return barriers + 8; }
  __device__ std::uint32_t k_full(int s) const { return barriers + 8 * (2 + s); }
  __device__ std::uint32_t v_full(int s) const { return barriers + 8 * (2 + kStages + s); }
  __device__ std::uint32_t empty(int s) const { return barriers + 8 * (2 + 2 * kStages + s); }
};

struct Work : Tile {
  int first_query, blocks;  // blocks of keys
  std::int64_t padded;      // row in lse2, delta and dout of the first query
  __device__ explicit Work(const Tile& t)
      : Tile(t),
        first_query(t.block * kQueries),
        blocks(t.work),
        padded(padded_begin + first_query) {}
};

template <class W>
__device__ void fetch(const BackwardMaps& maps, const BackwardArgs& a, const Shared<W>& shared) {
  Ring<kStages> ring;
  take_tiles(a.queue, shared.tile, shared.q_full(), shared.q_empty(), [&](const Tile& tile) {
    const Work w(tile);
    ptx::barrier_arrive_expect(shared.q_full(), Shared<W>::kQ + Shared<W>::kDout);
    for (int p = 0; p < W::kKeyPanels; ++p) {
      load_panel<kQueries>(maps.q, shared.q_full(), shared.q + p * kQueries * kRowBytes,
                           w.head * W::kKey + p * 64, w.span.q_begin + w.first_query);
    }
    for (int p = 0; p < W::kValuePanels; ++p) {
      load_panel<kQueries>(maps.dout, shared.q_full(), shared.dout + p * kQueries * kRowBytes,
                           w.head * W::kValue + p * 64, static_cast<int>(w.padded));
    }
    const int col = w.head * (W::kNope + W::kValue);
    for (int j = 0; j < w.blocks; ++j, ring.advance()) {
      const int s = ring.stage, row = w.span.kv_begin + j * kKeys;
      wait(shared.empty(s), ring.phase ^ 1);
      ptx::barrier_arrive_expect(shared.k_full(s), Shared<W>::kK);
      for (int p = 0; p < W::kNope / 64; ++p) {
        load_panel<kKeys>(maps.kv, shared.k_full(s), shared.keys(s) + p * kKeys * kRowBytes,
                          col + p * 64, row);
      }
      load_panel<kKeys>(maps.k_rope, shared.k_full(s),
                        shared.keys(s) + W::kNope / 64 * kKeys * kRowBytes, 0, row);
      ptx::barrier_arrive_expect(shared.v_full(s), Shared<W>::kV);
      for (int p = 0; p < W::kValuePanels; ++p) {
        load_panel<kKeys>(maps.kv, shared.v_full(s), shared.values(s) + p * kKeys * kRowBytes,
                          col + W::kNope + p * 64, row);
      }
    }
  });
}

template <class W>
__device__ void accumulate(const BackwardArgs& a, const Shared<W>& shared, const Work& w, int group,
                           Ring<kStages>& ring) {
  constexpr int kKeySteps = W::kKey / 16, kValueSteps = W::kValue / 16, kSteps = kKeys / 16;
  const int thread = threadIdx.x % 128, lane = thread % 32;
  const int group_query = w.first_query + group * 64;
  const int in_tile = group * 64 + thread / 32 * 16 + lane / 4;
  const int query = w.first_query + in_tile;  // and 8 further down

  float dq[W::kKey / 2], s[32], dp[32], lse2[2] = {}, delta[2] = {};
  std::uint32_t ds[4 * kSteps];
#pragma unroll
  for (int i = 0; i < W::kKey / 2; ++i) dq[i] = 0;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (query + 8 * r >= w.span.q_rows) continue;
    const float* stats = a.stats + stats_index(a.padded_rows, w.head, w.padded + in_tile + 8 * r);
    lse2[r] = stats[0];
    delta[r] = stats[kPaddedRows];
  }

  const Operand q = along_rows(shared.q + group * 64 * kRowBytes);
  const Operand dout = along_rows(shared.dout + group * 64 * kRowBytes);
  const int first_position = w.before() + group_query;

  const auto await_keys = [&](int j, const Ring<kStages>& ring) {
    wait(shared.k_full(ring.stage), ring.phase);
    if ((j + 1) * kKeys > w.span.kv_rows) {
      zero_rows_behind<W::kKeyPanels, kKeys>(shared.keys(ring.stage), w.span.kv_rows - j * kKeys,
                                             threadIdx.x - 128, kConsumers, kTailBarrier);
    }
  };
  const auto release = [&](std::uint32_t barrier) {
    if (lane == 0) ptx::barrier_arrive(barrier);
  };
  const auto queue_scores = [&](const Ring<kStages>& ring) {
    multiply_rows<kKeySteps, kQueries, kKeys>(s, q, along_rows(shared.keys(ring.stage)));
    commit();
    wait(shared.v_full(ring.stage), ring.phase);
    multiply_rows<kValueSteps, kQueries, kKeys>(dp, dout, along_rows(shared.values(ring.stage)));
    commit();
  };
  const auto probabilities = [&](int j) {  // in place
#pragma unroll
    for (int i = 0; i < 32; ++i) s[i] = exp2_fast(fmaf(s[i], a.scale_log2, -lse2[i / 2 % 2]));
    if (j * kKeys + kKeys - 1 > first_position) {
      const int ahead = j * kKeys - w.before() - query;
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int key = i / 4 * 8 + lane % 4 * 2 + i % 2;
        if (ahead + key > i / 2 % 2 * 8) s[i] = 0;
      }
    }
  };
  const auto gradients = [&] {  // s to those of scores
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      // Values behind the sequence's end may be infinite: zero probability is zero gradient.
      s[i] = s[i] == 0 ? 0.0f : s[i] * (dp[i] - delta[i / 2 % 2]);
    }
  };
  const auto round = [&] {
#pragma unroll
    for (int i = 0; i < 16; ++i) ds[i] = pack(s[2 * i], s[2 * i + 1]);
  };

  // Scores of the next keys and what dout says of them are queued ahead of the product of these:
  // exponentials hide behind it.
  const int own = min(w.blocks, (first_position + 127) / kKeys);  // of which a query here sees one
  await_keys(0, ring);
  begin_products();
  queue_scores(ring);
  wait_products<0>();
  pin(s);
  pin(dp);
  probabilities(0);
  gradients();
  round();
  int j = 1;
  for (; j < own; ++j) {
    const int previous = ring.stage;
    ring.advance();
    await_keys(j, ring);
    begin_products();
    queue_scores(ring);
    multiply_add_rows<kSteps>(dq, ds, across_rows<kKeys>(shared.keys(previous)));
    commit();
    wait_products<2>();
    pin(s);
    probabilities(j);
    wait_products<1>();
    pin(dp);
    gradients();
    wait_products<0>();
    pin(dq);
    keep(ds);
    release(shared.empty(previous));
    round();
  }
  release(shared.q_empty());  // the next tile's may come
  begin_products();
  multiply_add_rows<kSteps>(dq, ds, across_rows<kKeys>(shared.keys(ring.stage)));
  commit();
  wait_products<0>();
  pin(dq);
  release(shared.empty(ring.stage));
  for (ring.advance(); j < w.blocks; ++j, ring.advance()) {
    await_keys(j, ring);
    wait(shared.v_full(ring.stage), ring.phase);  // an arrival must not count for the last use
    release(shared.empty(ring.stage));
  }

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (query + 8 * r >= w.span.q_rows) continue;
    float* row = a.dq + (w.span.q_begin + query + 8 * r) * a.dq_stride +
                 w.head * (a.dims.nope + a.dims.rope);
#pragma unroll
    for (int i = 0; i < W::kKey / 8; ++i) {
      const float x = dq[4 * i + 2 * r] * a.scale, y = dq[4 * i + 2 * r + 1] * a.scale;
      const int col = 8 * i + lane % 4 * 2;
      if (i < W::kNope / 8) {
        store_pair(row, col, a.dims.nope, a.dq_pairs, x, y);
      } else {
        store_pair(row + a.dims.nope, col - W::kNope, a.dims.rope, a.dq_pairs, x, y);
      }
    }
  }
}

template <class W>
__global__ void __launch_bounds__(kThreads, 1)
    queries_kernel(const __grid_constant__ BackwardMaps maps,
                   const __grid_constant__ BackwardArgs a) {
  extern __shared__ std::uint8_t memory[];
  const Shared<W> shared(memory);
  if (threadIdx.x == 0) {
    ptx::barrier_init(shared.q_full(), 1);
    ptx::barrier_init(shared.q_empty(), kConsumers / 32);
    for (int s = 0; s < kStages; ++s) {
      ptx::barrier_init(shared.k_full(s), 1);
      ptx::barrier_init(shared.v_full(s), 1);
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
      const Tile tile = next_tile(shared.tile, shared.q_full(), phase);
      if (tile.head < 0) break;
      accumulate<W>(a, shared, Work(tile), group - 1, ring);
    }
  }
}

}  // namespace

template <class W>
void launch_query_gradients(const Context& ctx, const BackwardMaps& maps, const BackwardArgs& a) {
  check(cudaFuncSetAttribute(queries_kernel<W>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             Shared<W>::kBytes),
        "attention backward: asking for shared memory");
  const int blocks = std::min(a.queue.count, device_of(ctx).processors());
  queries_kernel<W><<<blocks, kThreads, Shared<W>::kBytes, stream_of(ctx)>>>(maps, a);
  check_launch("attention backward: queries");
}

template void launch_query_gradients<WideHeads>(const Context&, const BackwardMaps&,
                                                const BackwardArgs&);
template void launch_query_gradients<NarrowHeads>(const Context&, const BackwardMaps&,
                                                  const BackwardArgs&);

}  // namespace cachalot::cuda::attn
