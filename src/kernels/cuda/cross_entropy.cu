// Softmax cross entropy, each logit read from memory once: a row lies in the shared memory of a
// cluster of blocks between its maximum, its sum and its gradient.
#include <cooperative_groups.h>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/row_ops.cuh"

namespace cachalot::cuda {

namespace {

constexpr int kThreads = 512;
constexpr int kSlice = 16384;   // elements of a block: 64 KiB, three blocks share a processor
constexpr int kMostBlocks = 8;  // of a cluster, wherever it is placed
constexpr int kMostSlice = 56 * 1024;  // a block alone on its processor; 224 KiB

struct Args {
  MatView<float> logits;
  const std::int32_t* targets;
  double* loss;
  std::int32_t* argmax;
  bool backward;
  float grad_scale;
  MatView<Bf16> gradient;
  int slice;  // elements per block of the cluster
};

// What is known of some of a row's elements.
struct Partial {
  float top;
  int at;      // the first place of top; INT_MAX where there is none
  double sum;  // of exp(x - top)
};
// The lanes' parts as one, in every lane; a fixed order.
__device__ Partial warp_merge(const Partial& mine) {
  constexpr unsigned kAll = 0xFFFFFFFFU;
  Partial all = mine;
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    all.top = fmaxf(all.top, __shfl_xor_sync(kAll, all.top, offset));
  }
  all.at = static_cast<int>(
      __reduce_min_sync(kAll, static_cast<unsigned>(mine.top == all.top ? mine.at : INT_MAX)));
  const float share = mine.top == -INFINITY ? 0.0F : expf(mine.top - all.top);
  all.sum = warp_sum(mine.sum * static_cast<double>(share));
  return all;
}

__device__ float block_max(float x, float* room) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFU, x, offset));
  }
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
  __syncthreads();
  x = threadIdx.x % 32 < kThreads / 32 ? room[threadIdx.x % 32] : room[0];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFU, x, offset));
  }
  return x;
}

template <int V>
__device__ void copy_async(float* to, const float* from) {
  const auto shared = static_cast<unsigned>(__cvta_generic_to_shared(to));
  if constexpr (V == 4) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(from) : "memory");
  } else {
    static_assert(V == 1);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared), "l"(from) : "memory");
  }
}

// exp(x) for x <= 0 in two instructions: to 2^-22 + 2^-23 |x| of itself, which where x is large is
// next to nothing of the sum.
__device__ float exp_below(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504F));
  return y;
}

// Clusters take rows in turn. Threads read back only what they put into shared memory themselves,
// each with a maximum of its own: so one sum over the row is the only thing they wait for, and as
// soon as an element's gradient is written the next row's comes in its place.
template <int V>
__global__ void __launch_bounds__(kThreads, 3) cross_entropy_kernel(const Args a) {
  namespace cg = cooperative_groups;
  constexpr int kWarps = kThreads / 32;
  extern __shared__ float4 slice_memory[];
  auto* x = reinterpret_cast<float*>(slice_memory);
  __shared__ Partial warps[kWarps];
  __shared__ Partial mine[2];  // of this row and the next: others may still read this one's
  const cg::cluster_group cluster = cg::this_cluster();
  const int blocks = static_cast<int>(cluster.num_blocks());
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const int begin = static_cast<int>(cluster.block_rank()) * a.slice;
  const int packs = max(0, min(a.slice, a.logits.cols - begin)) / V;
  const int first_row = static_cast<int>(blockIdx.x) / blocks;
  const int rows_apart = static_cast<int>(gridDim.x) / blocks;

  for (int p = thread; p < packs; p += kThreads) {
    copy_async<V>(x + V * p, a.logits.row(first_row) + begin + V * p);
  }
  int turn = 0;
  for (int row = first_row; row < a.logits.rows; row += rows_apart, turn ^= 1) {
    float* logits = a.logits.row(row) + begin;
    const int target = a.targets[row];
    // Read before anybody writes a gradient over it: that is after the cluster's barrier.
    const float target_logit = target >= 0 ? a.logits.row(row)[target] : 0.0F;
    const int next = row + rows_apart;
    const float* next_logits = next < a.logits.rows ? a.logits.row(next) + begin : nullptr;

    asm volatile("cp.async.wait_all;" ::: "memory");
    Partial own{-INFINITY, INT_MAX, 0};
    int top_pack = -1;
    for (int p = thread; p < packs; p += kThreads) {
      const auto v = load<V>(x + V * p);
      float most = v.v[0];
#pragma unroll
      for (int i = 1; i < V; ++i) most = fmaxf(most, v.v[i]);
      if (most > own.top) own.top = most, top_pack = p;
    }
    if (top_pack >= 0) {
      const auto v = load<V>(x + V * top_pack);
#pragma unroll
      for (int i = V - 1; i >= 0; --i) {
        if (v.v[i] == own.top) own.at = begin + V * top_pack + i;
      }
    }
    const float base = own.top == -INFINITY ? 0.0F : own.top;  // nothing but -inf counts 0
    float sum = 0;
    for (int p = thread; p < packs; p += kThreads) {
      auto v = load<V>(x + V * p);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        v.v[i] = exp_below(v.v[i] - base);
        sum += v.v[i];
      }
      if (a.backward) {
        store<V>(x + V * p, v);
      } else if (next_logits != nullptr) {
        copy_async<V>(x + V * p, next_logits + V * p);
      }
    }
    own.sum = static_cast<double>(sum);
    const Partial warp = warp_merge(own);
    if (lane == 0) warps[thread / 32] = warp;
    __syncthreads();
    if (thread < 32) {
      const Partial block =
          warp_merge(lane < kWarps ? warps[lane] : Partial{-INFINITY, INT_MAX, 0});
      if (lane == 0) mine[turn] = block;
    }
    cluster.sync();
    Partial all{-INFINITY, INT_MAX, 0};
    if (lane < blocks) all = *cluster.map_shared_rank(&mine[turn], lane);
    all = warp_merge(all);
    if (begin == 0 && thread == 0) {
      if (a.argmax != nullptr)
        a.argmax[row] = all.at == INT_MAX ? 0 : all.at;  // of NaNs: the first
      a.loss[row] =
          target < 0
              ? 0.0
              : log(all.sum) - (static_cast<double>(target_logit) - static_cast<double>(all.top));
    }
    if (!a.backward) continue;
    // x holds exp(logit - base).
    const float share = own.top == -INFINITY ? 0.0F : expf(own.top - all.top);
    const auto factor = static_cast<float>(static_cast<double>(share) / all.sum);
    const float scaled = a.grad_scale * factor;
    for (int p = thread; p < packs; p += kThreads) {
      auto v = load<V>(x + V * p);
      if (next_logits != nullptr) copy_async<V>(x + V * p, next_logits + V * p);
      const int here = target - (begin + V * p);  // of V: the target, in one pack of the row
      const bool has_target = here >= 0 && here < V;
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const float e = v.v[i];
        v.v[i] = target < 0 ? 0.0F : scaled * e;
        if (has_target && i == here) v.v[i] = a.grad_scale * (e * factor - 1.0F);
      }
      if (a.gradient.rows > 0) {
        store<V>(a.gradient.row(row) + begin + V * p, v);
      } else {
        store<V>(logits + V * p, v);
      }
    }
  }
  cluster.sync();  // nobody leaves while its part is read
}

// Rows that no cluster holds are read again instead.
__global__ void __launch_bounds__(kThreads) cross_entropy_long_kernel(const Args a) {
  __shared__ float room[32];
  __shared__ double sums[32];
  __shared__ int first_place;
  const int row = static_cast<int>(blockIdx.x), cols = a.logits.cols;
  const int thread = static_cast<int>(threadIdx.x), target = a.targets[row];
  float* x = a.logits.row(row);
  const float target_logit = target >= 0 ? x[target] : 0.0F;
  if (thread == 0) first_place = INT_MAX;
  float top = -INFINITY;
  for (int j = thread; j < cols; j += kThreads) top = fmaxf(top, x[j]);
  top = block_max(top, room);
  double sum = 0;
  int place = INT_MAX;
  for (int j = thread; j < cols; j += kThreads) {
    if (x[j] == top && place == INT_MAX) place = j;
    sum += static_cast<double>(expf(x[j] - top));
  }
  if (place != INT_MAX) atomicMin(&first_place, place);
  sum = block_sum(sum, sums);
  if (thread == 0) {
    if (a.argmax != nullptr) a.argmax[row] = first_place;
    a.loss[row] = target < 0
                      ? 0.0
                      : log(sum) - (static_cast<double>(target_logit) - static_cast<double>(top));
  }
  if (!a.backward) return;
  const auto factor = static_cast<float>(1.0 / sum);
  for (int j = thread; j < cols; j += kThreads) {
    const float one = j == target ? 1.0F : 0.0F;
    const float d = target < 0 ? 0.0F : a.grad_scale * (expf(x[j] - top) * factor - one);
    if (a.gradient.rows > 0) {
      store<1>(a.gradient.row(row) + j, Floats<1>{{d}});
    } else {
      x[j] = d;
    }
  }
}

}  // namespace

void cross_entropy(const Context& ctx, const CrossEntropy<float>& a) {
  const int rows = a.logits.rows, vocab = a.logits.cols;
  if (rows == 0) return;
  Args args{
      a.logits,   a.targets.data(), a.loss.data(), a.argmax.empty() ? nullptr : a.argmax.data(),
      a.backward, a.grad_scale,     a.gradient,    kSlice};
  if (vocab > kMostBlocks * kMostSlice) {
    cross_entropy_long_kernel<<<rows, kThreads, 0, stream_of(ctx)>>>(args);
    check_launch("cross_entropy");
    return;
  }
  // The fewest blocks, with equal slices in whole packs.
  const int blocks = std::min(ceil_div(vocab, kSlice), kMostBlocks);
  args.slice = ceil_div(ceil_div(vocab, blocks), 4) * 4;
  const bool packs = in_packs<4>(a.logits) && (a.gradient.rows == 0 || in_packs<4>(a.gradient));
  const auto kernel = packs ? cross_entropy_kernel<4> : cross_entropy_kernel<1>;
  const std::size_t bytes = static_cast<std::size_t>(args.slice) * sizeof(float);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)),
        "asking for cross_entropy's shared memory");
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = static_cast<unsigned>(blocks);
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = bytes;
  config.stream = stream_of(ctx);
  config.attrs = &cluster;
  config.numAttrs = 1;
  int clusters = 0;  // at a time
  check(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), "asking for room for clusters");
  config.gridDim.x *= static_cast<unsigned>(std::clamp(clusters, 1, rows));
  check(cudaLaunchKernelEx(&config, kernel, args), "cross_entropy");
  check_launch("cross_entropy");
}

}  // namespace cachalot::cuda
