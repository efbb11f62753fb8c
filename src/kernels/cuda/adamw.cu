// AdamW and the running mean of the weights: one pass, each element read once and written once.
//
// In float, in the order of kernels/adamw.h, with the step subtracted in one rounding:
//   p -= lr wd p + lr update. Against the reference's doubles p differs by one step of the last
// place at most where p is not near zero (tests: 2 steps, plus 2^-20 of the update).
#include <cmath>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/row_ops.cuh"

namespace cachalot::cuda {

namespace {

constexpr int kV = 4, kThreads = 256;

struct AdamWFactors {
  float beta1, beta2, take1, take2;  // take = 1 - beta
  float correct_m, correct_v;        // 1 - beta^step
  float eps, lr, decay, grad_scale;  // decay = lr * weight_decay
};

struct AdamWElement {
  float p, m, v;
};
__device__ AdamWElement adamw_step(const AdamWFactors& f, float grad, AdamWElement e) {
  const float g = grad * f.grad_scale;
  e.m = f.beta1 * e.m + f.take1 * g;
  e.v = f.beta2 * e.v + f.take2 * g * g;
  const float update = (e.m / f.correct_m) / (sqrtf(e.v / f.correct_v) + f.eps);
  e.p -= f.decay * e.p + f.lr * update;
  return e;
}

template <int V, class M>
__device__ void adamw_pack(const AdamWFactors& f, const float* grad, float* param, M* m, M* v) {
  const auto g = load<V>(grad);
  auto ps = load<V>(param), ms = load<V>(m), vs = load<V>(v);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const AdamWElement e = adamw_step(f, g.v[i], {ps.v[i], ms.v[i], vs.v[i]});
    ps.v[i] = e.p, ms.v[i] = e.m, vs.v[i] = e.v;
  }
  store<V>(param, ps);
  store<V>(m, ms);
  store<V>(v, vs);
}

// `head` elements alone, then packs, then what is left.
template <class M>
__global__ void __launch_bounds__(kThreads)
    adamw_kernel(const AdamWFactors f, std::int64_t n, int head, const float* grad, float* param,
                 M* m, M* v) {
  const std::int64_t thread = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t packs = (n - head) / kV, at = head + kV * thread;
  if (thread < packs) adamw_pack<kV>(f, grad + at, param + at, m + at, v + at);
  const std::int64_t tail = head + kV * packs;  // of the first threads
  if (thread < head) adamw_pack<1>(f, grad + thread, param + thread, m + thread, v + thread);
  if (thread < n - tail) {
    const std::int64_t i = tail + thread;
    adamw_pack<1>(f, grad + i, param + i, m + i, v + i);
  }
}
template <class M>
__global__ void __launch_bounds__(kThreads)
    adamw_any_kernel(const AdamWFactors f, std::int64_t n, const float* grad, float* param, M* m,
                     M* v) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) adamw_pack<1>(f, grad + i, param + i, m + i, v + i);
}

// Elements before the first address where packs of `p` may begin, or -1 if there is none.
template <class T>
int elements_before_pack(const T* p) {
  constexpr std::size_t kBytes = kV * sizeof(T);
  const auto over = reinterpret_cast<std::uintptr_t>(p) % kBytes;
  return static_cast<int>((kBytes - over) % kBytes / sizeof(T));
}

template <class M>
void adamw_all(const Context& ctx, const AdamW<float, M>& a) {
  const auto n = static_cast<std::int64_t>(a.param.size());
  if (n == 0) return;
  const AdamWConfig& c = a.config;
  const auto step = static_cast<double>(a.step);
  const AdamWFactors f{static_cast<float>(c.beta1),
                       static_cast<float>(c.beta2),
                       static_cast<float>(1 - c.beta1),
                       static_cast<float>(1 - c.beta2),
                       static_cast<float>(1 - std::pow(c.beta1, step)),
                       static_cast<float>(1 - std::pow(c.beta2, step)),
                       static_cast<float>(c.eps),
                       static_cast<float>(c.lr),
                       static_cast<float>(c.lr * c.weight_decay),
                       static_cast<float>(a.grad_scale)};
  const int head = elements_before_pack(a.param.data());
  const bool together = elements_before_pack(a.grad.data()) == head &&
                        elements_before_pack(a.m.data()) == head &&
                        elements_before_pack(a.v.data()) == head && head <= n;
  if (together) {
    adamw_kernel<M><<<ceil_div(n, std::int64_t{kThreads} * kV), kThreads, 0, stream_of(ctx)>>>(
        f, n, head, a.grad.data(), a.param.data(), a.m.data(), a.v.data());
  } else {
    adamw_any_kernel<M><<<ceil_div(n, kThreads), kThreads, 0, stream_of(ctx)>>>(
        f, n, a.grad.data(), a.param.data(), a.m.data(), a.v.data());
  }
  check_launch("adamw");
}

__global__ void __launch_bounds__(kThreads)
    weight_average_kernel(float take, std::int64_t n, int head, const float* param, float* ema) {
  const std::int64_t thread = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t packs = (n - head) / kV, at = head + kV * thread;
  if (thread < packs) {
    const auto p = load<kV>(param + at);
    auto e = load<kV>(ema + at);
#pragma unroll
    for (int i = 0; i < kV; ++i) e.v[i] += take * (p.v[i] - e.v[i]);
    store<kV>(ema + at, e);
  }
  const std::int64_t tail = head + kV * packs;
  if (thread < head) ema[thread] += take * (param[thread] - ema[thread]);
  if (thread < n - tail) ema[tail + thread] += take * (param[tail + thread] - ema[tail + thread]);
}
__global__ void __launch_bounds__(kThreads)
    weight_average_any_kernel(float take, std::int64_t n, const float* param, float* ema) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) ema[i] += take * (param[i] - ema[i]);
}

}  // namespace

void adamw(const Context& ctx, const AdamW<float>& a) { adamw_all(ctx, a); }
void adamw_bf16(const Context& ctx, const AdamW<float, Bf16>& a) { adamw_all(ctx, a); }

void weight_average(const Context& ctx, const WeightAverage& a) {
  const auto n = static_cast<std::int64_t>(a.ema.size());
  if (n == 0) return;
  const auto take = static_cast<float>(1 - a.decay);
  const int head = elements_before_pack(a.ema.data());
  if (elements_before_pack(a.param.data()) == head && head <= n) {
    weight_average_kernel<<<ceil_div(n, std::int64_t{kThreads} * kV), kThreads, 0,
                            stream_of(ctx)>>>(take, n, head, a.param.data(), a.ema.data());
  } else {
    weight_average_any_kernel<<<ceil_div(n, kThreads), kThreads, 0, stream_of(ctx)>>>(
        take, n, a.param.data(), a.ema.data());
  }
  check_launch("weight_average");
}

}  // namespace cachalot::cuda
