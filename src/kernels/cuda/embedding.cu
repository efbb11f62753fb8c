// Rows of the embedding table, and their gradient: added up in the order of the tokens.
#include "kernels/cuda/counting_sort.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/row_ops.cuh"

namespace cachalot::cuda {

namespace {

template <int V, class T>
struct EmbeddingOp {
  MatView<const T> table;
  const std::int32_t* ids;
  MatView<float> out;
  __device__ void operator()(int row, int pack) const {
    store<V>(out.row(row) + V * pack, load<V>(table.row(ids[row]) + V * pack));
  }
};
template <class T>
void embedding_rows(const Context& ctx, MatView<const T> table, const std::int32_t* ids,
                    MatView<float> out) {
  if (in_packs<4>(table) && in_packs<4>(out)) {
    for_packs(ctx, "embedding", out.rows, out.cols / 4, EmbeddingOp<4, T>{table, ids, out});
  } else {
    for_packs(ctx, "embedding", out.rows, out.cols, EmbeddingOp<1, T>{table, ids, out});
  }
}

// Tokens in order of id are runs of equal ids, each to be added up in its order. A long run (a
// frequent id) is a chain that many warps share by columns, many rows on their way at a time; the
// short ones have a block each.
constexpr int kLong = 32, kThreads = 256;

struct Runs {
  const std::int32_t* ids;    // [T]
  const std::int32_t* order;  // [T] tokens in order of id
  std::int32_t* begins;       // [T] of long runs from the front, of short ones from the back
  std::int32_t* counts;       // [2] long ones, short ones
  int tokens;

  __device__ bool has(int at, int id) const { return at < tokens && ids[order[at]] == id; }
};

__global__ void __launch_bounds__(kThreads) find_runs_kernel(const Runs a) {
  const int at = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (at >= a.tokens) return;
  const int id = a.ids[a.order[at]];
  if (at > 0 && a.has(at - 1, id)) return;
  // Runs are independent: their places in the list do not matter.
  if (a.has(at + kLong - 1, id)) {
    a.begins[atomicAdd(&a.counts[0], 1)] = at;
  } else {
    a.begins[a.tokens - 1 - atomicAdd(&a.counts[1], 1)] = at;
  }
}

// The tokens at `at`, one per lane, and how many of them are id's.
struct Members {
  int token, count;
};
__device__ Members members_of(const Runs& a, int at, int id) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int token = at + lane < a.tokens ? a.order[at + lane] : 0;
  const bool same = at + lane < a.tokens && a.ids[token] == id;
  const unsigned others = ~__ballot_sync(0xFFFFFFFFU, same);
  return {token, others == 0 ? 32 : __ffs(static_cast<int>(others)) - 1};
}

__device__ void copy_async(float* to, const float* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(to))),
               "l"(from)
               : "memory");
}

// A warp has 32 columns of a run; 32 rows are on their way while those before them are added up.
// Lanes read back only what they copied themselves.
constexpr int kLongWarps = 4;
__global__ void __launch_bounds__(32 * kLongWarps)
    add_long_runs_kernel(const Runs a, MatView<const float> dout, MatView<float> dtable) {
  __shared__ float rows[kLongWarps][2][32][32];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int chunks = (dout.cols + 31) / 32;
  const std::int64_t work = std::int64_t{a.counts[0]} * chunks;
  for (std::int64_t w = std::int64_t{blockIdx.x} * kLongWarps + warp; w < work;
       w += gridDim.x * kLongWarps) {
    int at = a.begins[w / chunks];
    const int id = a.ids[a.order[at]], column = static_cast<int>(w % chunks) * 32 + lane;
    const bool live = column < dout.cols;
    const auto fetch = [&](int stage, const Members& m) {
      for (int i = 0; i < m.count; ++i) {
        const int token = __shfl_sync(0xFFFFFFFFU, m.token, i);
        if (live) copy_async(&rows[warp][stage][i][lane], dout.row(token) + column);
      }
      asm volatile("cp.async.commit_group;" ::: "memory");
    };
    float sum = live ? dtable.row(id)[column] : 0.0F;
    Members now = members_of(a, at, id);
    fetch(0, now);
    for (int stage = 0; now.count > 0; stage ^= 1) {
      at += 32;
      Members next = members_of(a, at, id);
      if (now.count < 32) next.count = 0;
      fetch(stage ^ 1, next);
      asm volatile("cp.async.wait_group 1;" ::: "memory");
      if (now.count == 32) {
#pragma unroll
        for (int i = 0; i < 32; ++i) sum += rows[warp][stage][i][lane];
      } else {
        for (int i = 0; i < now.count; ++i) sum += rows[warp][stage][i][lane];
      }
      now = next;
    }
    if (live) dtable.row(id)[column] = sum;
  }
}

template <int V>
__global__ void __launch_bounds__(kThreads)
    add_short_runs_kernel(const Runs a, MatView<const float> dout, MatView<float> dtable) {
  const int packs = dout.cols / V;
  for (int r = static_cast<int>(blockIdx.x); r < a.counts[1]; r += static_cast<int>(gridDim.x)) {
    const int at = a.begins[a.tokens - 1 - r], id = a.ids[a.order[at]];
    const Members m = members_of(a, at, id);
    for (int begin = 0; begin < packs; begin += static_cast<int>(blockDim.x)) {
      const int p = begin + static_cast<int>(threadIdx.x);
      const bool live = p < packs;
      auto sum = live ? load<V>(dtable.row(id) + V * p) : Floats<V>{};
      constexpr int kAhead = 4;
      for (int i = 0; i < m.count; i += kAhead) {
        Floats<V> next[kAhead];
#pragma unroll
        for (int u = 0; u < kAhead; ++u) {
          const int token = __shfl_sync(0xFFFFFFFFU, m.token, min(i + u, 31));
          if (live && i + u < m.count) next[u] = load<V>(dout.row(token) + V * p);
        }
#pragma unroll
        for (int u = 0; u < kAhead; ++u) {
          if (i + u >= m.count) break;
#pragma unroll
          for (int v = 0; v < V; ++v) sum.v[v] += next[u].v[v];
        }
      }
      if (live) store<V>(dtable.row(id) + V * p, sum);
    }
  }
}

}  // namespace

void embedding(const Context& ctx, const Embedding& a) {
  if (a.table.dtype == DType::kF32) {
    embedding_rows<float>(ctx, a.table.as<float>(), a.ids.data(), a.out);
  } else {
    embedding_rows<Bf16>(ctx, a.table.as<Bf16>(), a.ids.data(), a.out);
  }
}

void embedding_backward(const Context& ctx, const EmbeddingBackward<float>& a) {
  const int tokens = a.dout.rows;
  if (tokens == 0 || a.dout.cols == 0) return;
  CudaDevice& device = device_of(ctx);
  auto* memory = static_cast<std::int32_t*>(
      device.scratch(kScratchA, (2 * static_cast<std::size_t>(tokens) + 2) * 4));
  const Runs runs{a.ids.data(), memory, memory + tokens, memory + 2 * std::ptrdiff_t{tokens},
                  tokens};
  stable_order(ctx, {a.ids.data(), 1, tokens, tokens}, a.dtable.rows, memory, nullptr);
  device.zero(runs.counts, 2 * sizeof(std::int32_t));
  const cudaStream_t stream = device.stream();
  find_runs_kernel<<<ceil_div(tokens, kThreads), kThreads, 0, stream>>>(runs);
  const int processors = device.processors();
  if (tokens >= kLong) {
    add_long_runs_kernel<<<7 * processors, 32 * kLongWarps, 0, stream>>>(runs, a.dout, a.dtable);
  }
  const bool packs = in_packs<4>(a.dout) && in_packs<4>(a.dtable);
  const auto kernel = packs ? add_short_runs_kernel<4> : add_short_runs_kernel<1>;
  kernel<<<std::min(tokens, 8 * processors), row_threads(a.dout.cols / (packs ? 4 : 1)), 0,
           stream>>>(runs, a.dout, a.dtable);
  check_launch("embedding_backward");
}

}  // namespace cachalot::cuda
