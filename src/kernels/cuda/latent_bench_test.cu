// What latent attention reaches: microseconds, bytes of the cache per second, products per second.
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "kernels/cuda/cuda_case_test.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/stream.cuh"

namespace cachalot::cuda::testing {
namespace {

__device__ std::uint32_t mixed(std::uint64_t x) {
  x *= 0x9E3779B97F4A7C15u;
  x ^= x >> 29;
  x *= 0xBF58476D1CE4E5B9u;
  return static_cast<std::uint32_t>(x >> 32);
}
// Values of about 1: bf16 from 2^-2 to 2, codes likewise under a scale of 2^-6.
__global__ void fill(std::uint32_t* memory, std::size_t words, bool fp8) {
  for (std::size_t i = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x; i < words;
       i += std::size_t{gridDim.x} * blockDim.x) {
    const std::uint32_t r = mixed(i);
    const auto in_row = static_cast<int>(i % 164);
    std::uint32_t x = (r & 0x80FF80FFu) | 0x3F003F00u;
    if (fp8 && in_row < 128) x = (r & 0x8F8F8F8Fu) | 0x60606060u;
    if (fp8 && in_row >= 128 && in_row < 132) x = 0x3C800000u;
    memory[i] = x;
  }
}
__global__ void delay(long long cycles) {
  const long long begin = clock64();
  while (clock64() - begin < cycles) {
  }
}

class CudaLatentBench : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    const DeviceFacts f = facts(0);
    std::printf("%s\n", f.name.c_str());
    bytes_ = std::size_t{128} * 131072 * 1152;
    pool_ = static_cast<std::byte*>(device_->allocate(bytes_));
    const std::vector<std::byte> list(std::size_t{5} << 19);  // no list is longer: none grows later
    for (int i = 0; i < 64; ++i) device_of(ctx).stage(list.data(), list.size());
    cudaEventCreate(&begin_);
    cudaEventCreate(&end_);
  }
  void TearDown() override {
    if (pool_ != nullptr) device_->release(pool_);
  }

  void bench(int batch, int context, int heads, int queries, LatentFormat format) {
    const LatentLayout layout{format, 512, 64};
    const int per_sequence = (context + 63) / 64;
    if (static_cast<std::size_t>(batch) * per_sequence * layout.block_bytes() > bytes_) return;
    const MemoryScope scope(device_.get());
    Mat<float> q, out;
    q.resize(batch * queries, heads * 576);
    out.resize(batch * queries, heads * 512);
    device_->zero(q.data(), q.size() * sizeof(float));
    std::vector<std::vector<const std::byte*>> blocks(static_cast<std::size_t>(batch));
    std::vector<LatentAttention> problems;
    for (int b = 0; b < batch; ++b) {
      auto& list = blocks[static_cast<std::size_t>(b)];
      for (int i = 0; i < per_sequence; ++i) {  // sequences grow in turn
        list.push_back(pool_ +
                       (std::size_t{static_cast<unsigned>(i)} * batch + b) * layout.block_bytes());
      }
      problems.push_back({q.cview().sub_rows(b * queries, queries),
                          {layout, list, 0, context},
                          heads,
                          0.07f,
                          out.view().sub_rows(b * queries, queries),
                          Precision::kBF16});
    }
    for (int i = 0; i < 3; ++i) cuda::latent_attention(ctx, problems);
    device_->wait();
    const double guess = batch * (context / 1e9) * std::max(1.2e3, heads * queries * 8.0) / 1e3;
    const int calls = guess > 2e-3 ? 4 : 10;  // of a series
    std::vector<double> times;
    double host_us = 0;
    for (int series = 0; series < (calls == 4 ? 2 : 3); ++series) {
      delay<<<1, 1, 0, stream_of(ctx)>>>(2'000'000);
      cudaEventRecord(begin_, stream_of(ctx));
      const auto host_begin = std::chrono::steady_clock::now();
      for (int i = 0; i < calls; ++i) cuda::latent_attention(ctx, problems);
      host_us =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - host_begin).count() *
          1e6 / calls;
      cudaEventRecord(end_, stream_of(ctx));
      device_->wait();
      float ms = 0;
      cudaEventElapsedTime(&ms, begin_, end_);
      times.push_back(ms * 1e3 / calls);
    }
    std::sort(times.begin(), times.end());
    const double us = times[times.size() / 2];
    const double tokens = static_cast<double>(batch) * context;
    std::printf(
        "latent_attention batch %3d context %6d heads %3d queries %d %-4s %9.1f us %7.0f GB/s "
        "%6.1f TFLOPS (host %.0f us)\n",
        batch, context, heads, queries, std::string(name(format)).c_str(), us,
        tokens * layout.row_bytes() / us / 1e3, tokens * heads * queries * 2.0 * 1088 / us / 1e6,
        host_us);
    std::fflush(stdout);
  }
  std::byte* pool_ = nullptr;
  std::size_t bytes_ = 0;
  cudaEvent_t begin_, end_;
};

TEST_F(CudaLatentBench, Decode) {
  for (const LatentFormat format : {LatentFormat::kBF16, LatentFormat::kFp8}) {
    fill<<<2048, 256, 0, stream_of(ctx)>>>(reinterpret_cast<std::uint32_t*>(pool_), bytes_ / 4,
                                           format == LatentFormat::kFp8);
    for (const int heads : {16, 128}) {
      for (const int batch : {1, 16, 128}) {
        for (const int context : {4096, 32768, 131072}) bench(batch, context, heads, 1, format);
      }
    }
    bench(128, 4096, 16, 2, format);
    bench(64, 4100, 128, 2, format);
    bench(1, 4096, 128, 512, format);
  }
}

}  // namespace
}  // namespace cachalot::cuda::testing
