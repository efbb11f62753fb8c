// Softmax cross entropy, each logit read from memory once: a row lies in the shared memory of a
// cluster of blocks between its maximum, its sum and its gradient.
#include <cooperative_groups.h>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/row_ops.cuh"

namespace cachalot::cuda {

namespace {

constexpr int kThreads = 512;
constexpr int kSlice = 16384;        // elements of a block: 64 KiB, three blocks share a processor
constexpr int kMostBlocks = 8;       // of a cluster, wherever it is placed
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

// What a block knows of its slice.
struct Partial {
  float top;
  int at;  // the first place of top
  double sum;  // of exp(x - top)
};

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

// A cluster per row. Threads read back only what they put into shared memory themselves, so the
// barriers are those of the sums.
template <int V>
__global__ void __launch_bounds__(kThreads, 3) cross_entropy_kernel(const Args a) {
  namespace cg = cooperative_groups;
  extern __shared__ float4 slice_memory[];
  auto* x = reinterpret_cast<float*>(slice_memory);
  __shared__ float room[32];
  __shared__ double sums[32];
  __shared__ int first_place;
  __shared__ Partial mine, parts[kMostBlocks];
  const cg::cluster_group cluster = cg::this_cluster();
  const int blocks = static_cast<int>(cluster.num_blocks());
  const int row = static_cast<int>(blockIdx.x) / blocks;
  const int thread = static_cast<int>(threadIdx.x);
  const int begin = static_cast<int>(cluster.block_rank()) * a.slice;
  const int count = max(0, min(a.slice, a.logits.cols - begin));  // count % V == 0
  const int packs = count / V;
  float* logits = a.logits.row(row) + begin;
  const int target = a.targets[row];
  // Read before anybody writes a gradient over it: that is after the cluster's barrier.
  const float target_logit = target >= 0 ? a.logits.row(row)[target] : 0.0F;

  for (int p = thread; p < packs; p += kThreads) copy_async<V>(x + V * p, logits + V * p);
  if (thread == 0) first_place = INT_MAX;
  asm volatile("cp.async.wait_all;" ::: "memory");
  float top = -INFINITY;
  for (int p = thread; p < packs; p += kThreads) {
    const auto v = load<V>(x + V * p);
#pragma unroll
    for (int i = 0; i < V; ++i) top = fmaxf(top, v.v[i]);
  }
  top = block_max(top, room);
  const float base = top == -INFINITY ? 0.0F : top;  // a slice of nothing but -inf counts 0
  double sum = 0;
  int place = INT_MAX;
  for (int p = thread; p < packs; p += kThreads) {
    auto v = load<V>(x + V * p);
    float part = 0;
#pragma unroll
    for (int i = V - 1; i >= 0; --i) {
      if (v.v[i] == top && place > V * p) place = V * p + i;
      v.v[i] = expf(v.v[i] - base);
      part += v.v[i];
    }
    sum += static_cast<double>(part);
    store<V>(x + V * p, v);
  }
  if (place != INT_MAX) atomicMin(&first_place, begin + place);
  sum = block_sum(sum, sums);
  if (thread == 0) mine = {top, first_place, sum};  // after block_sum's barrier: all have voted
  cluster.sync();
  if (thread < blocks) parts[thread] = *cluster.map_shared_rank(&mine, thread);
  __syncthreads();
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");  // has read the others'

  // Every block combines the cluster's parts in the same order.
  Partial all = parts[0];
  for (int b = 1; b < blocks; ++b) {
    if (parts[b].top > all.top) all.top = parts[b].top, all.at = parts[b].at;
  }
  all.sum = 0;
  for (int b = 0; b < blocks; ++b) {
    all.sum += parts[b].sum * static_cast<double>(expf(parts[b].top - all.top));
  }
  if (begin == 0 && thread == 0) {
    if (a.argmax != nullptr) a.argmax[row] = all.at;
    a.loss[row] = target < 0 ? 0.0
                             : log(all.sum) - (static_cast<double>(target_logit) -
                                               static_cast<double>(all.top));
  }
  // x holds exp(logit - top of the slice).
  const float factor =
      target < 0 ? 0.0F
                 : static_cast<float>(static_cast<double>(expf(top - all.top)) / all.sum);
  for (int p = thread; p < packs && a.backward; p += kThreads) {
    auto v = load<V>(x + V * p);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float one = begin + V * p + i == target ? 1.0F : 0.0F;
      v.v[i] = target < 0 ? 0.0F : a.grad_scale * (v.v[i] * factor - one);
    }
    if (a.gradient.rows > 0) {
      store<V>(a.gradient.row(row) + begin + V * p, v);
    } else {
      store<V>(logits + V * p, v);
    }
  }
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");  // before `mine` goes away
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
    a.loss[row] =
        target < 0 ? 0.0
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
  Args args{a.logits,
            a.targets.data(),
            a.loss.data(),
            a.argmax.empty() ? nullptr : a.argmax.data(),
            a.backward,
            a.grad_scale,
            a.gradient,
            kSlice};
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
  config.gridDim = dim3(static_cast<unsigned>(rows) * static_cast<unsigned>(blocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = bytes;
  config.stream = stream_of(ctx);
  config.attrs = &cluster;
  config.numAttrs = 1;
  check(cudaLaunchKernelEx(&config, kernel, args), "cross_entropy");
  check_launch("cross_entropy");
}

}  // namespace cachalot::cuda
