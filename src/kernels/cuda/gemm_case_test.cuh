// For tests and timings of products on the device: operands on both sides, comparisons that say
// where, random numbers made on the device, times by events.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/cuda_case_test.h"
#include "kernels/cuda/stream.cuh"
#include "kernels/gemm.h"

namespace cachalot::cuda::testing {

// A matrix of either type as a view into a wider one, at `left` columns, on both sides.
struct BothSides {
  Mat<float> f, f_up;
  Mat<Bf16> h, h_up;
  MatRef host, device;
};

inline MatRef columns(const MatRef& m, int left, int cols) {
  const auto offset = static_cast<std::size_t>(left) * size_of(m.dtype);
  return {static_cast<const char*>(m.data) + offset, m.dtype, m.rows, cols, m.stride};
}

// Empty where all agree to `bound` of the root mean square of what is wanted; else the worst and
// the first place.
inline std::string disagreement(const MatView<const float>& got, const MatView<const float>& want,
                                double bound) {
  double squares = 0;
  for (int i = 0; i < want.rows; ++i) {
    for (int j = 0; j < want.cols; ++j) {
      const double w = static_cast<double>(want.at(i, j));
      squares += std::isfinite(w) ? w * w : 0.0;
    }
  }
  const double size = std::max(1, want.rows) * static_cast<double>(std::max(1, want.cols));
  const double allowed = bound * std::max(std::sqrt(squares / size), 1e-20);
  double worst = 0;
  int bad = 0, first_i = -1, first_j = -1;
  for (int i = 0; i < want.rows; ++i) {
    for (int j = 0; j < want.cols; ++j) {
      const float w = want.at(i, j), g = got.at(i, j);
      if (std::isnan(w) && std::isnan(g)) continue;
      const double d = std::abs(static_cast<double>(g) - static_cast<double>(w));
      worst = std::max(worst, d);
      // An element may be larger than the mean: its own rounding counts then.
      if (!(d <= std::max(allowed, bound * std::abs(static_cast<double>(w))))) {
        if (bad++ == 0) first_i = i, first_j = j;
      }
    }
  }
  if (bad == 0) return "";
  char text[256];
  std::snprintf(text, sizeof(text),
                "%d of %.0f wrong, worst by %.3g (rms %.3g, bound %.1g); first at (%d, %d): got "
                "%.8g, want %.8g",
                bad, size, worst, std::sqrt(squares / size), bound, first_i, first_j,
                static_cast<double>(got.at(first_i, first_j)),
                static_cast<double>(want.at(first_i, first_j)));
  return text;
}

inline Mat<float> floats_of(const Mat<Bf16>& m) {
  Mat<float> out(m.rows(), m.cols());
  for (std::size_t i = 0; i < m.size(); ++i) out.data()[i] = to_float(m.data()[i]);
  return out;
}

template <int = 0>  // one definition however many files include this
__global__ void fill_kernel(float* f, __nv_bfloat16* h, std::uint8_t* c, std::int64_t n,
                            std::uint32_t seed) {
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < n;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    // Sum of four bytes: near enough to normal, and as costly to multiply.
    std::uint32_t x = static_cast<std::uint32_t>(i) * 0x9E3779B9u + seed;
    x = (x ^ x >> 16) * 0x85EBCA6Bu;
    x = (x ^ x >> 13) * 0xC2B2AE35u;
    x ^= x >> 16;
    const float v =
        (static_cast<float>((x & 255) + (x >> 8 & 255) + (x >> 16 & 255) + (x >> 24)) - 510.0f) /
        148.0f;
    if (f != nullptr) f[i] = v;
    if (h != nullptr) h[i] = __float2bfloat16_rn(v);
    if (c != nullptr) c[i] = static_cast<std::uint8_t>((x & 0x7F) == 0x7F ? 0 : x);
  }
}

class TimedTest : public CudaTest {
 protected:
  // Device memory with random contents: floats, bf16 or codes.
  template <class T>
  Mat<T> random_up(int rows, int cols, std::uint32_t seed = 1) {
    const MemoryScope scope(device_.get());
    Mat<T> m;
    m.resize(rows, cols);
    float* f = sizeof(T) == 4 ? reinterpret_cast<float*>(m.data()) : nullptr;
    auto* h = sizeof(T) == 2 ? reinterpret_cast<__nv_bfloat16*>(m.data()) : nullptr;
    auto* c = sizeof(T) == 1 ? reinterpret_cast<std::uint8_t*>(m.data()) : nullptr;
    fill_kernel<><<<1024, 256, 0, cuda::stream_of(ctx)>>>(
        f, h, c, static_cast<std::int64_t>(m.size()), seed);
    check_launch("fill_kernel");
    return m;
  }
  // Seconds, the median of some runs.
  double time(const std::function<void()>& run, int runs = 20) {
    const cudaStream_t stream = cuda::stream_of(ctx);
    // The buffers of staged lists grow while each is used for the first time.
    for (int i = 0; i < 3; ++i) run();
    const auto start = std::chrono::steady_clock::now();
    check(cudaStreamSynchronize(stream), "wait");
    for (int i = 0;
         i < 70 && std::chrono::steady_clock::now() - start < std::chrono::milliseconds(40); ++i) {
      run();
    }
    check(cudaStreamSynchronize(stream), "wait");
    std::vector<cudaEvent_t> marks(static_cast<std::size_t>(runs) + 1);
    for (cudaEvent_t& e : marks) check(cudaEventCreate(&e), "event");
    check(cudaEventRecord(marks[0], stream), "record");
    double host_seconds = 0;
    for (std::size_t i = 1; i < marks.size(); ++i) {
      const auto begin = std::chrono::steady_clock::now();
      run();
      host_seconds +=
          std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      check(cudaEventRecord(marks[i], stream), "record");
    }
    check(cudaStreamSynchronize(stream), "wait");
    host_seconds_ = host_seconds / runs;
    std::vector<float> ms;
    for (std::size_t i = 1; i < marks.size(); ++i) {
      float t = 0;
      check(cudaEventElapsedTime(&t, marks[i - 1], marks[i]), "elapsed");
      ms.push_back(t);
    }
    for (cudaEvent_t e : marks) cudaEventDestroy(e);
    std::sort(ms.begin(), ms.end());
    return static_cast<double>(ms[ms.size() / 2]) * 1e-3;
  }
  void report(const std::string& name, double seconds, double flops, double bytes) {
    std::printf("BENCH %-58s %10.1f us %8.1f TFLOPS %8.1f GB/s, host %7.1f us\n", name.c_str(),
                seconds * 1e6, flops / seconds * 1e-12, bytes / seconds * 1e-9,
                host_seconds_ * 1e6);
    std::fflush(stdout);
  }

 private:
  double host_seconds_ = 0;  // of a call, without waiting
};

}  // namespace cachalot::cuda::testing
