#include "kernels/cuda/launch_times.cuh"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace cachalot::cuda {

namespace {

LaunchTimes* launch_times = nullptr;
cudaStream_t timed_stream = nullptr;

bool asked(const char* variable) {
  const char* text = std::getenv(variable);
  return text != nullptr && std::string(text) == "1";
}

}  // namespace

void check_launch(const char* kernel) {
  static const bool wait = asked("CACHALOT_CUDA_SYNC");
  check(cudaGetLastError(), kernel);
  if (wait) check(cudaDeviceSynchronize(), kernel);
  if (launch_times != nullptr) launch_times->add(kernel, timed_stream);
}

void LaunchTimes::open(cudaStream_t stream) {
  const char* skipped = std::getenv("CACHALOT_CUDA_TIMES");
  if (skipped == nullptr || launch_times != nullptr) return;
  launch_times = new LaunchTimes(std::strtol(skipped, nullptr, 10));
  timed_stream = stream;
}

void LaunchTimes::close(cudaStream_t stream) {
  if (launch_times == nullptr || timed_stream != stream) return;
  launch_times->print();
  delete launch_times;
  launch_times = nullptr;
}

LaunchTimes* LaunchTimes::current() noexcept { return launch_times; }

void LaunchTimes::add(const char* kernel, cudaStream_t stream) {
  if (recording_) {
    cudaEvent_t event = nullptr;
    check(cudaEventCreate(&event), "making an event");
    check(cudaEventRecordWithFlags(event, stream, cudaEventRecordExternal), "marking a launch");
    recorded_.emplace_back(kernel, event);
    return;
  }
  if (skipped_-- > 0) return;
  cudaEvent_t event = nullptr;
  if (!spare_.empty()) {
    event = spare_.back();
    spare_.pop_back();
  } else {
    check(cudaEventCreate(&event), "making an event");
  }
  check(cudaEventRecord(event, stream), "marking a launch");
  marks_.emplace_back(kernel, event);
  const auto now = std::chrono::steady_clock::now();
  sums_[kernel].host_milliseconds += std::chrono::duration<double, std::milli>(now - last_).count();
  last_ = std::chrono::steady_clock::now();
  constexpr std::size_t kMost = 1 << 14;
  if (marks_.size() == kMost) settle();
}

void LaunchTimes::begin_recording(cudaStream_t stream) {
  recording_ = true;
  add("beginning of a recording", stream);
}

LaunchTimes::Marks LaunchTimes::end_recording() {
  recording_ = false;
  return std::move(recorded_);
}

void LaunchTimes::replayed(const Marks& marks, cudaStream_t stream) {
  check(cudaStreamSynchronize(stream), "waiting for a recording");
  for (std::size_t i = 1; i < marks.size(); ++i) {
    float ms = 0;
    if (cudaEventElapsedTime(&ms, marks[i - 1].second, marks[i].second) != cudaSuccess) continue;
    Sum& sum = sums_[std::string("recorded ") + marks[i].first];
    ++sum.launches;
    sum.milliseconds += ms;
  }
}

void LaunchTimes::print() {
  settle();
  double all = 0;
  std::vector<std::pair<double, std::string>> order;
  for (const auto& [kernel, sum] : sums_) {
    order.emplace_back(sum.milliseconds, kernel);
    all += sum.milliseconds;
  }
  std::sort(order.rbegin(), order.rend());
  std::fprintf(stderr, "%-40s %10s %10s %7s %10s\n", "device time of", "launches", "ms", "share",
               "host's ms");
  for (const auto& [ms, kernel] : order) {
    std::fprintf(stderr, "%-40s %10ld %10.2f %6.1f%% %10.2f\n", kernel.c_str(),
                 sums_[kernel].launches, ms, 100 * ms / std::max(all, 1e-9),
                 sums_[kernel].host_milliseconds);
  }
}

void LaunchTimes::settle() {
  if (marks_.empty()) return;
  check(cudaEventSynchronize(marks_.back().second), "waiting for an event");
  for (std::size_t i = 1; i < marks_.size(); ++i) {
    float ms = 0;
    if (cudaEventElapsedTime(&ms, marks_[i - 1].second, marks_[i].second) != cudaSuccess) continue;
    Sum& sum = sums_[marks_[i].first];
    ++sum.launches;
    sum.milliseconds += ms;
  }
  for (auto& [kernel, event] : marks_) spare_.push_back(event);
  marks_.clear();
}

}  // namespace cachalot::cuda
