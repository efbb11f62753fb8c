// Times of attention on the device: FLOPs are those of a causal triangle without its masked half,
// forward B H T T / 2 (K + V) 2 and backward two and a half times that.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "kernels/attention.h"
#include "kernels/cuda/cuda_case_test.h"
#include "kernels/cuda/stream.cuh"

namespace cachalot::cuda {
namespace {

__global__ void noise_floats(float* x, std::int64_t n, unsigned seed) {
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    unsigned u = static_cast<unsigned>(i) * 2654435761u + seed;
    u ^= u >> 16;
    u *= 0x85EBCA6Bu;
    u ^= u >> 13;
    u *= 0xC2B2AE35u;
    u ^= u >> 16;
    x[i] = (static_cast<float>(u) * 0x1p-32f - 0.5f) * 3.4f;  // variance about 1
  }
}
__global__ void round_all(const float* x, __nv_bfloat16* y, std::int64_t n) {
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    y[i] = __float2bfloat16_rn(x[i]);
  }
}

class CudaAttentionBench : public testing::CudaTest {
 protected:
  Mat<float> noise(int rows, int cols, unsigned seed) {
    Mat<float> m = empty<float>(rows, cols);
    noise_floats<<<1024, 256, 0, stream_of(ctx)>>>(m.data(), static_cast<std::int64_t>(m.size()),
                                                   seed);
    check_launch("noise");
    return m;
  }
  Mat<Bf16> rounded(const Mat<float>& x) {
    Mat<Bf16> m = empty<Bf16>(x.rows(), x.cols());
    round_all<<<1024, 256, 0, stream_of(ctx)>>>(
        x.data(), reinterpret_cast<__nv_bfloat16*>(m.data()), static_cast<std::int64_t>(x.size()));
    check_launch("round");
    return m;
  }
  template <class T>
  Mat<T> empty(int rows, int cols) {
    const MemoryScope scope(device_.get());
    Mat<T> m;
    m.resize(rows, cols);
    return m;
  }
  template <class Fn>
  double median_us(Fn&& fn) {
    constexpr int kRuns = 20;
    cudaEvent_t begin, end;
    cudaEventCreate(&begin);
    cudaEventCreate(&end);
    std::vector<float> ms;
    for (int i = 0; i < kRuns + 3; ++i) {
      cudaEventRecord(begin, stream_of(ctx));
      fn();
      cudaEventRecord(end, stream_of(ctx));
      cudaEventSynchronize(end);
      float t = 0;
      cudaEventElapsedTime(&t, begin, end);
      if (i >= 3) ms.push_back(t);
    }
    std::sort(ms.begin(), ms.end());
    return ms[ms.size() / 2] * 1e3;
  }

  void time(const char* name, const AttentionDims& d, int sequences, int t, bool backward) {
    const int rows = sequences * t;
    const Mat<Bf16> q = rounded(noise(rows, d.heads * (d.nope + d.rope), 1));
    const Mat<Bf16> kv = rounded(noise(rows, d.heads * (d.nope + d.value), 2));
    const Mat<float> k_rope = noise(rows, d.rope, 3);
    std::vector<AttentionSpan> spans;
    for (int i = 0; i < sequences; ++i) spans.push_back({i * t, t, i * t, t});
    Mat<float> out = empty<float>(rows, d.heads * d.value), lse = empty<float>(rows, d.heads);
    const MatView<const float> q_shape{nullptr, rows, q.cols(), q.cols()};
    const MatView<const float> kv_shape{nullptr, rows, kv.cols(), kv.cols()};
    const float scale = 1 / std::sqrt(static_cast<float>(d.nope + d.rope));
    const Attention<float> a{q_shape,    kv_shape,  k_rope.cview(),   spans,
                             d,          scale,     Precision::kBF16, out.view(),
                             lse.view(), q.cview(), kv.cview()};
    const double us = median_us([&] { attention(ctx, a); });
    const double flops = 2.0 * sequences * d.heads * (t / 2.0) * t * (d.nope + d.rope + d.value);
    std::printf("BENCH attention forward %s %d x %d, %d heads: %.0f us, %.0f TFLOPS\n", name,
                sequences, t, d.heads, us, flops / us * 1e-6);
    if (!backward) return;
    const Mat<float> dout = noise(rows, d.heads * d.value, 4);
    Mat<float> dq = empty<float>(rows, q.cols()), dkv = empty<float>(rows, kv.cols()),
               dk_rope = empty<float>(rows, d.rope);
    const AttentionBackward<float> g{
        q_shape,   kv_shape,         k_rope.cview(), spans,       d,
        scale,     Precision::kBF16, out.cview(),    lse.cview(), dout.cview(),
        dq.view(), dkv.view(),       dk_rope.view(), q.cview(),   kv.cview()};
    const double back = median_us([&] { attention_backward(ctx, g); });
    std::printf("BENCH attention backward %s %d x %d, %d heads: %.0f us, %.0f TFLOPS\n", name,
                sequences, t, d.heads, back, 2.5 * flops / back * 1e-6);
    std::fflush(stdout);
  }
};

constexpr bool kBackward = true;

TEST_F(CudaAttentionBench, Wide) {
  time("128+64/128", {16, 128, 64, 128}, 8, 4096, kBackward);
  time("128+64/128", {16, 128, 64, 128}, 32, 1024, kBackward);
  time("128+64/128", {16, 128, 64, 128}, 2, 16384, kBackward);
}
TEST_F(CudaAttentionBench, Narrow) { time("64+32/64", {16, 64, 32, 64}, 8, 4096, kBackward); }

}  // namespace
}  // namespace cachalot::cuda
