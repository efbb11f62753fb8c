// Where the device's time goes, by kernel: $CACHALOT_CUDA_TIMES.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/stream.cuh"

namespace cachalot::cuda {

// An event after each launch. The time between two counts as the later one's, gaps in which the
// device had nothing to do included. Printed at the end. The first launches, in which memory is
// allocated, can be left out.
class LaunchTimes {
 public:
  using Marks = std::vector<std::pair<const char*, cudaEvent_t>>;

  // For the stream that comes first, where the variable asks for it; printed when that is closed.
  static void open(cudaStream_t stream);
  static void close(cudaStream_t stream);
  static LaunchTimes* current() noexcept;  // null: nobody asked

  explicit LaunchTimes(long skipped) : skipped_(skipped) {}
  void add(const char* kernel, cudaStream_t stream);
  void print();

  // While launches are recorded: the marks become part of what is replayed.
  void begin_recording(cudaStream_t stream);
  Marks end_recording();
  void replayed(const Marks& marks, cudaStream_t stream);  // waits for it

 private:
  struct Sum {
    long launches = 0;
    double milliseconds = 0;
    double host_milliseconds = 0;  // from the launch before to this one
  };
  void settle();

  long skipped_;
  bool recording_ = false;
  Marks marks_, recorded_;
  std::vector<cudaEvent_t> spare_;
  std::map<std::string, Sum> sums_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace cachalot::cuda
