#include <algorithm>
#include <vector>

#include "kernels/cuda/memory_case_test.h"
#include "kernels/cuda/stream.cuh"

namespace cachalot::cuda::testing {

double median_microseconds(const Context& ctx, const std::function<void()>& call, int runs) {
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin), "making an event");
  check(cudaEventCreate(&end), "making an event");
  std::vector<double> times;
  for (int i = -3; i < runs; ++i) {
    check(cudaEventRecord(begin, stream_of(ctx)), "timing");
    call();
    check(cudaEventRecord(end, stream_of(ctx)), "timing");
    check(cudaEventSynchronize(end), "timing");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end), "timing");
    if (i >= 0) times.push_back(1e3 * static_cast<double>(ms));
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
  return times[static_cast<std::size_t>(runs / 2)];
}

}  // namespace cachalot::cuda::testing
