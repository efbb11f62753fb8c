// The gate: a warp per token, its scores in shared memory. Scores, weights and gradients are
// computed in double, as the reference does: they are few, and so the choice is the same but where
// two scores round to neighbours.
#include <vector>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/row_ops.cuh"

namespace cachalot::cuda {

namespace {

constexpr int kWarps = 8;  // of a block, fewer where experts are many
constexpr unsigned kAll = 0xFFFFFFFFU;

__device__ int lane_id() { return static_cast<int>(threadIdx.x) % 32; }
__device__ int warp_id() { return static_cast<int>(threadIdx.x) / 32; }
__device__ float taken() { return __uint_as_float(0x7FC00000U); }  // NaN: no longer to choose from
// What may be chosen from is a number: a NaN of the network counts as the worst.
__device__ float choosable(float x) { return isnan(x) ? -INFINITY : x; }

// Floats as integers of the same order; -0 is 0.
__device__ int ordered(float x) {
  const int bits = __float_as_int(x + 0.0F);
  return bits >= 0 ? bits : bits ^ 0x7FFFFFFF;
}

// The k largest of values [n] in falling order, the lower index on ties: out(j, index) in every
// lane. Each is marked as taken. Values were written by this warp before a __syncwarp, are no NaN,
// and at most 32 Per.
template <int Per, class Out>
__device__ void warp_top_k_of(float* values, int n, int k, Out&& out) {
  constexpr int kTaken = INT_MIN;  // below -infinity
  const int lane = lane_id();
  int keys[Per];
#pragma unroll
  for (int i = 0; i < Per; ++i) {
    keys[i] = lane + 32 * i < n ? ordered(values[lane + 32 * i]) : kTaken;
  }
  for (int j = 0; j < k; ++j) {
    int most = kTaken;
#pragma unroll
    for (int i = 0; i < Per; ++i) most = max(most, keys[i]);
    const int top = __reduce_max_sync(kAll, most);
    unsigned first = INT_MAX;
#pragma unroll
    for (int i = Per - 1; i >= 0; --i) first = keys[i] == top ? lane + 32 * i : first;
    const auto chosen = static_cast<int>(__reduce_min_sync(kAll, first));
#pragma unroll
    for (int i = 0; i < Per; ++i) keys[i] = lane + 32 * i == chosen ? kTaken : keys[i];
    if (chosen % 32 == lane) values[chosen] = taken();
    out(j, chosen);
  }
  __syncwarp();
}
// The same for any n.
template <class Out>
__device__ void warp_top_k(float* values, int n, int k, Out&& out) {
  if (n <= 64) return warp_top_k_of<2>(values, n, k, out);
  if (n <= 256) return warp_top_k_of<8>(values, n, k, out);
  for (int j = 0; j < k; ++j) {
    int best = INT_MAX;
    float value = 0;
    for (int e = lane_id(); e < n; e += 32) {
      const float v = values[e];
      if (!isnan(v) && (best == INT_MAX || v > value)) best = e, value = v;
    }
    const int key = best == INT_MAX ? INT_MIN : ordered(value);
    const int top = __reduce_max_sync(kAll, key);
    const int chosen = static_cast<int>(
        __reduce_min_sync(kAll, static_cast<unsigned>(key == top ? best : INT_MAX)));
    if (chosen % 32 == lane_id()) values[chosen] = taken();
    out(j, chosen);
    __syncwarp();
  }
}

// Sum of the two largest of a group (noaux_tc), or the largest.
__device__ float group_score(const float* selection, int size, bool two) {
  float first = -INFINITY, second = -INFINITY;
  int at = lane_id() % size;  // lanes keep to different banks
  for (int i = 0; i < size; ++i) {
    const float s = selection[at];
    at = at + 1 < size ? at + 1 : 0;
    second = fmaxf(second, fminf(first, s));
    first = fmaxf(first, s);
  }
  return two && size > 1 ? first + second : first;
}

struct RouteArgs {
  Route<float> a;
  bool limited;  // by groups
  RouteWeightRule rule;
};

__global__ void __launch_bounds__(32 * kWarps) route_kernel(const RouteArgs r) {
  after_those_before();
  extern __shared__ float memory[];
  const Route<float>& a = r.a;
  const RouteConfig& c = a.config;
  const int n = c.experts, lane = lane_id();
  const int token = static_cast<int>(blockIdx.x * (blockDim.x / 32)) + warp_id();
  if (token >= a.logits.rows) return;
  float* selection = memory + warp_id() * (2 * n + c.groups);  // [E]
  float* scores = selection + n;                               // [E]
  float* groups = scores + n;                                  // [G]
  const float* logits = a.logits.row(token);

  double top = 0, factor = 1;
  if (c.scoring == Scoring::kSoftmax) {
    float most = -INFINITY;
    for (int e = lane; e < n; e += 32) most = fmaxf(most, logits[e]);
    for (int offset = 16; offset > 0; offset /= 2) {
      most = fmaxf(most, __shfl_xor_sync(kAll, most, offset));
    }
    top = static_cast<double>(most);
    double sum = 0;
    for (int e = lane; e < n; e += 32) sum += exp(static_cast<double>(logits[e]) - top);
    factor = warp_sum(sum);
  }
  for (int e = lane; e < n; e += 32) {
    const auto x = static_cast<double>(logits[e]);
    const auto s = static_cast<float>(c.scoring == Scoring::kSoftmax ? exp(x - top) / factor
                                                                     : 1.0 / (1.0 + exp(-x)));
    scores[e] = s;
    a.scores.row(token)[e] = s;
    selection[e] = choosable(a.bias.empty() ? s : s + a.bias[static_cast<std::size_t>(e)]);
  }
  __syncwarp();
  if (r.limited) {
    const int size = n / c.groups;
    for (int g = lane; g < c.groups; g += 32) {
      groups[g] =
          choosable(group_score(selection + g * size, size, c.method == TopkMethod::kNoauxTc));
    }
    __syncwarp();
    warp_top_k(groups, c.groups, c.topk_groups, [](int, int) {});
    for (int e = lane; e < n; e += 32) {
      if (!isnan(groups[e / size])) selection[e] = -INFINITY;  // was not taken
    }
    __syncwarp();
  }
  double sum = 0;
  warp_top_k(selection, n, c.topk, [&](int j, int chosen) {
    if (lane == 0) a.index.row(token)[j] = chosen;
    sum += static_cast<double>(scores[chosen]);
  });
  const double share = r.rule.normalise ? r.rule.scale / (sum + kRouteWeightEps) : r.rule.scale;
  for (int j = lane; j < c.topk; j += 32) {
    const int chosen = a.index.row(token)[j];
    a.weight.row(token)[j] = static_cast<float>(static_cast<double>(scores[chosen]) * share);
  }
}

struct RouteBackwardArgs {
  RouteBackward<float> a;
  RouteWeightRule rule;
};

__global__ void __launch_bounds__(32 * kWarps) route_backward_kernel(const RouteBackwardArgs r) {
  extern __shared__ double gradients[];
  const RouteBackward<float>& a = r.a;
  const RouteConfig& c = a.config;
  const int n = c.experts, lane = lane_id();
  const int token = static_cast<int>(blockIdx.x * (blockDim.x / 32)) + warp_id();
  if (token >= a.scores.rows) return;
  double* ds = gradients + warp_id() * n;
  const float* s = a.scores.row(token);
  const std::int32_t* index = a.index.row(token);
  const float* dw = a.dweight.row(token);
  for (int e = lane; e < n; e += 32) {
    ds[e] = a.dscores.empty() ? 0.0 : static_cast<double>(a.dscores.row(token)[e]);
  }
  double sum = 0, dot = 0;
  for (int j = lane; j < c.topk; j += 32) {
    const auto score = static_cast<double>(s[index[j]]);
    sum += score;
    dot += static_cast<double>(dw[j]) * score;
  }
  sum = warp_sum(sum) + kRouteWeightEps;
  dot = warp_sum(dot);
  __syncwarp();
  for (int j = lane; j < c.topk; j += 32) {  // an expert is chosen once
    const auto d = static_cast<double>(dw[j]);
    ds[index[j]] += r.rule.scale * (r.rule.normalise ? (d - dot / sum) / sum : d);
  }
  __syncwarp();
  double mean = 0;
  if (c.scoring == Scoring::kSoftmax) {
    for (int e = lane; e < n; e += 32) mean += ds[e] * static_cast<double>(s[e]);
    mean = warp_sum(mean);
  }
  for (int e = lane; e < n; e += 32) {
    const double d = ds[e], p = static_cast<double>(s[e]);
    a.dlogits.row(token)[e] =
        static_cast<float>(c.scoring == Scoring::kSigmoid ? d * p * (1 - p) : p * (d - mean));
  }
}

constexpr int kBalanceRows = 64;  // of a block

struct Balance {
  MatView<const float> scores;
  int rows, topk;      // rows of a sequence
  int chunks;          // blocks of a sequence
  std::int32_t* load;  // [sequences, E] choices
  double* parts;       // [sequences, chunks, E] sums of s / sum(s)
  double* f;           // [sequences, E]
  double* loss;        // [sequences]
};

// Counts and means of a block's rows: warps take turns, each with sums of its own.
__global__ void __launch_bounds__(32 * kWarps) balance_count_kernel(const Balance b) {
  extern __shared__ double memory_d[];
  const int n = b.scores.cols, warps = static_cast<int>(blockDim.x) / 32;
  const int sequence = static_cast<int>(blockIdx.x) / b.chunks;
  const int chunk = static_cast<int>(blockIdx.x) % b.chunks;
  double* shares = memory_d + warp_id() * n;                                       // [E]
  float* values = reinterpret_cast<float*>(memory_d + warps * n) + warp_id() * n;  // [E]
  for (int e = lane_id(); e < n; e += 32) shares[e] = 0;
  const int end = min((chunk + 1) * kBalanceRows, b.rows);
  for (int t = chunk * kBalanceRows + warp_id(); t < end; t += warps) {
    const float* s = b.scores.row(std::int64_t{sequence} * b.rows + t);
    double sum = 0;
    for (int e = lane_id(); e < n; e += 32) {
      sum += static_cast<double>(s[e]);
      values[e] = choosable(s[e]);
    }
    sum = warp_sum(sum);
    __syncwarp();
    for (int e = lane_id(); e < n; e += 32) shares[e] += static_cast<double>(s[e]) / sum;
    warp_top_k(values, n, b.topk, [&](int, int chosen) {
      if (lane_id() == 0) atomicAdd(&b.load[std::int64_t{sequence} * n + chosen], 1);
    });
  }
  __syncthreads();
  double* part = b.parts + std::int64_t{blockIdx.x} * n;
  for (int e = static_cast<int>(threadIdx.x); e < n; e += static_cast<int>(blockDim.x)) {
    double sum = 0;
    for (int w = 0; w < warps; ++w) sum += memory_d[w * n + e];
    part[e] = sum;
  }
}

// A block per sequence: f and the loss.
__global__ void __launch_bounds__(256) balance_loss_kernel(const Balance b) {
  __shared__ double room[32];
  const int n = b.scores.cols, sequence = static_cast<int>(blockIdx.x);
  const double to_f = static_cast<double>(n) / (static_cast<double>(b.topk) * b.rows);
  double loss = 0;
  for (int e = static_cast<int>(threadIdx.x); e < n; e += static_cast<int>(blockDim.x)) {
    const double* parts = b.parts + std::int64_t{sequence} * b.chunks * n + e;
    double sum = 0;
#pragma unroll 8
    for (int i = 0; i < b.chunks; ++i) sum += parts[std::int64_t{i} * n];
    const std::int64_t at = std::int64_t{sequence} * n + e;
    b.f[at] = to_f * b.load[at];
    loss += b.f[at] * (sum / b.rows);
  }
  loss = block_sum(loss, room);
  if (threadIdx.x == 0) b.loss[sequence] = loss;
}

__global__ void __launch_bounds__(32 * kWarps)
    balance_gradient_kernel(const Balance b, double scale, MatView<float> dscores) {
  const int n = b.scores.cols;
  const int token = static_cast<int>(blockIdx.x) * kWarps + warp_id();
  if (token >= b.scores.rows) return;
  const float* s = b.scores.row(token);
  const double* f = b.f + std::int64_t{token / b.rows} * n;
  double sum = 0, dot = 0;
  for (int e = lane_id(); e < n; e += 32) {
    const auto x = static_cast<double>(s[e]);
    sum += x;
    dot += f[e] * x;
  }
  sum = warp_sum(sum), dot = warp_sum(dot);
  const double mean = dot / sum, each = scale / sum / b.rows;
  for (int e = lane_id(); e < n; e += 32) {
    dscores.row(token)[e] = static_cast<float>((f[e] - mean) * each);
  }
}

// Warps of a block that have room for `bytes` of shared memory each.
int warps_for(std::size_t bytes) {
  constexpr std::size_t kMost = 96 * 1024;
  return static_cast<int>(
      std::clamp<std::size_t>(kMost / std::max<std::size_t>(bytes, 1), 1, kWarps));
}
template <class K>
void allow_shared(K kernel, std::size_t bytes) {
  if (bytes <= 48 * 1024) return;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)),
        "asking for shared memory for the gate's experts");
}

}  // namespace

void route(const Context& ctx, const Route<float>& a) {
  const RouteConfig& c = a.config;
  if (a.logits.rows == 0) return;
  const bool limited = c.method != TopkMethod::kGreedy && c.topk_groups < c.groups;
  RouteArgs args{a, limited, route_weight_rule(c)};
  if (!limited) args.a.config.groups = 0;  // and no room for them
  const std::size_t each =
      static_cast<std::size_t>(2 * c.experts + args.a.config.groups) * sizeof(float);
  const int warps = warps_for(each);
  const std::size_t bytes = static_cast<std::size_t>(warps) * each;
  allow_shared(route_kernel, bytes);
  launch_early(ctx, "route", route_kernel,
               dim3(static_cast<unsigned>(ceil_div(a.logits.rows, warps))),
               dim3(static_cast<unsigned>(32 * warps)), bytes, args);
}

void route_backward(const Context& ctx, const RouteBackward<float>& a) {
  if (a.scores.rows == 0) return;
  const std::size_t each = static_cast<std::size_t>(a.config.experts) * sizeof(double);
  const int warps = warps_for(each);
  const std::size_t bytes = static_cast<std::size_t>(warps) * each;
  allow_shared(route_backward_kernel, bytes);
  route_backward_kernel<<<ceil_div(a.scores.rows, warps), 32 * warps, bytes, stream_of(ctx)>>>(
      {a, route_weight_rule(a.config)});
  check_launch("route_backward");
}

double balance_loss(const Context& ctx, const BalanceLoss<float>& a) {
  const int rows = a.scores.rows / a.sequences, experts = a.scores.cols;
  if (rows == 0) return 0;
  CudaDevice& device = device_of(ctx);
  const auto n = static_cast<std::size_t>(experts);
  const auto sequences = static_cast<std::size_t>(a.sequences);
  const int chunks = ceil_div(rows, kBalanceRows);
  const std::size_t parts = sequences * static_cast<std::size_t>(chunks) * n;
  auto* memory = static_cast<double*>(device.scratch(
      kScratchSums,
      (parts + sequences * n + sequences) * sizeof(double) + sequences * n * sizeof(std::int32_t)));
  Balance b{a.scores, rows, a.topk, chunks, nullptr, memory, memory + parts, nullptr};
  b.loss = b.f + sequences * n;
  b.load = reinterpret_cast<std::int32_t*>(b.loss + sequences);
  device.zero(b.load, sequences * n * sizeof(std::int32_t));
  const std::size_t each = n * (sizeof(double) + sizeof(float));
  const int warps = warps_for(each);
  const std::size_t bytes = static_cast<std::size_t>(warps) * each;
  allow_shared(balance_count_kernel, bytes);
  balance_count_kernel<<<a.sequences * chunks, 32 * warps, bytes, device.stream()>>>(b);
  check_launch("balance_loss");
  balance_loss_kernel<<<a.sequences, 256, 0, device.stream()>>>(b);
  check_launch("balance_loss");
  if (!a.dscores.empty()) {
    balance_gradient_kernel<<<ceil_div(a.scores.rows, kWarps), 32 * kWarps, 0, device.stream()>>>(
        b, static_cast<double>(a.grad_scale) / a.sequences, a.dscores);
    check_launch("balance_loss's gradient");
  }
  std::vector<double> loss(sequences);
  device.download(loss.data(), b.loss, sequences * sizeof(double));
  double sum = 0;
  for (const double l : loss) sum += l;
  return sum / a.sequences;
}

}  // namespace cachalot::cuda
