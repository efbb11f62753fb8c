// Timing of one kernel for tests that print what it reaches.
#pragma once

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "kernels/cuda/stream.cuh"

namespace cachalot::cuda::testing {

// Prints the median of 20 runs after 3, and what `bytes` in that time are per second.
template <class F>
void bench(const Context& ctx, const std::string& name, double bytes, F&& run) {
  constexpr int kWarmUps = 3, kRuns = 20;
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin), "making an event");
  check(cudaEventCreate(&end), "making an event");
  std::vector<float> times;
  for (int i = 0; i < kWarmUps + kRuns; ++i) {
    check(cudaEventRecord(begin, stream_of(ctx)), "timing");
    run();
    check(cudaEventRecord(end, stream_of(ctx)), "timing");
    check(cudaEventSynchronize(end), "timing");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end), "timing");
    if (i >= kWarmUps) times.push_back(ms);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::nth_element(times.begin(), times.begin() + kRuns / 2, times.end());
  const double seconds = times[kRuns / 2] * 1e-3;
  std::printf("%-52s %9.1f us %7.0f GB/s\n", name.c_str(), seconds * 1e6, bytes / seconds * 1e-9);
  std::fflush(stdout);
}

}  // namespace cachalot::cuda::testing
