#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/stream.cuh"

namespace cachalot::cuda {

namespace {

// Few bytes travel as the arguments of a kernel: nothing to keep until the copy engine has read it,
// and the multiprocessors need not wait for that engine in between.
template <int kBytes>
struct Payload {
  alignas(16) std::byte bytes[kBytes];
};
constexpr std::size_t kMostPayload = 30 << 10;  // a launch takes arguments of 32764 bytes

template <int kBytes>
__global__ void __launch_bounds__(256)
    write_payload(const __grid_constant__ Payload<kBytes> payload, std::byte* to, int bytes) {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");  // those that wait by themselves
  const int thread = static_cast<int>(threadIdx.x), whole = bytes / 16;
  for (int i = thread; i < whole; i += 256) {
    reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(payload.bytes)[i];
  }
  for (int i = 16 * whole + thread; i < bytes; i += 256) to[i] = payload.bytes[i];
}

template <int kBytes>
void send_payload(const void* from, std::size_t bytes, void* to, cudaStream_t stream) {
  Payload<kBytes> payload;
  std::memcpy(payload.bytes, from, bytes);
  write_payload<kBytes>
      <<<1, 256, 0, stream>>>(payload, static_cast<std::byte*>(to), static_cast<int>(bytes));
  check_launch("sending a list");
}

// `to` is 16-byte aligned, `bytes` at most kMostPayload.
void send(const void* from, std::size_t bytes, void* to, cudaStream_t stream) {
  if (bytes <= 512) return send_payload<512>(from, bytes, to, stream);
  if (bytes <= 2048) return send_payload<2048>(from, bytes, to, stream);
  if (bytes <= 8192) return send_payload<8192>(from, bytes, to, stream);
  send_payload<kMostPayload>(from, bytes, to, stream);
}

}  // namespace

void check(cudaError_t result, const char* what) {
  if (result == cudaSuccess) return;
  throw Error(Code::kInternal, cat("CUDA: ", what, ": ", cudaGetErrorString(result),
                                   ". CACHALOT_CUDA_SYNC=1 names the kernel that failed"));
}

namespace {

bool asked(const char* variable) {
  const char* text = std::getenv(variable);
  return text != nullptr && std::string(text) == "1";
}

// Where the device's time goes: an event after each launch. The time between two counts as the
// later one's, gaps in which the device had nothing to do included. Printed at the end. The first
// launches, in which memory is allocated, can be left out.
class LaunchTimes {
 public:
  explicit LaunchTimes(long skipped) : skipped_(skipped) {}
  void add(const char* kernel, cudaStream_t stream) {
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
    sums_[kernel].host_milliseconds +=
        std::chrono::duration<double, std::milli>(now - last_).count();
    last_ = std::chrono::steady_clock::now();
    constexpr std::size_t kMost = 1 << 14;
    if (marks_.size() == kMost) settle();
  }
  void print() {
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

 private:
  struct Sum {
    long launches = 0;
    double milliseconds = 0;
    double host_milliseconds = 0;  // from the launch before to this one
  };
  void settle() {
    if (marks_.empty()) return;
    check(cudaEventSynchronize(marks_.back().second), "waiting for an event");
    for (std::size_t i = 1; i < marks_.size(); ++i) {
      float ms = 0;
      if (cudaEventElapsedTime(&ms, marks_[i - 1].second, marks_[i].second) != cudaSuccess)
        continue;
      Sum& sum = sums_[marks_[i].first];
      ++sum.launches;
      sum.milliseconds += ms;
    }
    for (auto& [kernel, event] : marks_) spare_.push_back(event);
    marks_.clear();
  }
  long skipped_;
  std::vector<std::pair<const char*, cudaEvent_t>> marks_;
  std::vector<cudaEvent_t> spare_;
  std::map<std::string, Sum> sums_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

LaunchTimes* launch_times = nullptr;  // with CACHALOT_CUDA_TIMES=1, after as many launches
cudaStream_t timed_stream = nullptr;

}  // namespace

void check_launch(const char* kernel) {
  static const bool wait = asked("CACHALOT_CUDA_SYNC");
  check(cudaGetLastError(), kernel);
  if (wait) check(cudaDeviceSynchronize(), kernel);
  if (launch_times != nullptr) launch_times->add(kernel, timed_stream);
}

int count_devices() noexcept {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

DeviceFacts facts(int index) {
  cudaDeviceProp p{};
  check(cudaGetDeviceProperties(&p, index), "reading the device's properties");
  DeviceFacts f;
  f.name = p.name;
  f.processors = p.multiProcessorCount;
  f.memory = p.totalGlobalMem;
  f.l2_cache = static_cast<std::size_t>(p.l2CacheSize);
  int clock_khz = 0;
  if (cudaDeviceGetAttribute(&clock_khz, cudaDevAttrMemoryClockRate, index) == cudaSuccess) {
    f.memory_clock_bound = 2.0 * 1e3 * clock_khz * p.memoryBusWidth / 8.0;
  }
  return f;
}

std::unique_ptr<Device> open(int index) {
  int count = 0;
  if (const cudaError_t result = cudaGetDeviceCount(&count);
      result != cudaSuccess || count <= index) {
    throw Error(Code::kUnsupported,
                cat("CUDA device ", index, " was asked for; ", count, " were found (",
                    cudaGetErrorString(result),
                    "). Check nvidia-smi and the driver, or leave --device at cpu"));
  }
  int major = 0, minor = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index);
  if (major != 9 || minor != 0) {
    throw Error(Code::kUnsupported, cat("CUDA device ", index, " has compute capability ", major,
                                        ".", minor, "; 9.0 is needed (Hopper: H100, H200, H800)"));
  }
  return std::make_unique<CudaDevice>(index);
}

std::size_t free_memory() {
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "asking for free memory");
  return free;
}

void CudaDevice::use() const {
  thread_local int used = 0;
  if (used == index_) return;
  check(cudaSetDevice(index_), "choosing the device");
  used = index_;
}

CudaDevice::CudaDevice(int index) : index_(index) {
  use();
  check(cudaDeviceGetAttribute(&processors_, cudaDevAttrMultiProcessorCount, index),
        "counting multiprocessors");
  name_ = facts(index).name;
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  if (const char* skipped = std::getenv("CACHALOT_CUDA_TIMES");
      skipped != nullptr && launch_times == nullptr) {
    launch_times = new LaunchTimes(std::strtol(skipped, nullptr, 10));
    timed_stream = stream_;
  }
}

CudaDevice::~CudaDevice() {
  cudaStreamSynchronize(stream_);
  if (launch_times != nullptr && timed_stream == stream_) {
    launch_times->print();
    delete launch_times;
    launch_times = nullptr;
  }
  for (Stage& s : stages_) {
    if (s.done != nullptr) cudaEventDestroy(s.done);
    cudaFreeHost(s.host);
    cudaFree(s.device);
  }
  for (void* p : scratch_) cudaFree(p);
  cudaStreamDestroy(stream_);
}

void* CudaDevice::allocate(std::size_t bytes) {
  use();
  void* p = nullptr;
  const cudaError_t result = cudaMalloc(&p, bytes);
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    std::size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    throw Error(Code::kUnsupported,
                cat("the GPU has ", free >> 20, " of ", total >> 20, " MiB free, but ", bytes >> 20,
                    " MiB more are needed: take fewer sequences at once, a smaller cache or a "
                    "smaller model"));
  }
  check(result, "allocating");
  return p;
}

void CudaDevice::release(void* p) noexcept {
  cudaFree(p);  // waits for the device
}

void CudaDevice::zero(void* p, std::size_t bytes) {
  if (bytes > 0) check(cudaMemsetAsync(p, 0, bytes, stream()), "zeroing");
}

void CudaDevice::copy(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream()), "copying");
}

void CudaDevice::upload(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  use();
  if (bytes <= kMostPayload && reinterpret_cast<std::uintptr_t>(to) % 16 == 0) {
    send(from, bytes, to, stream_);
    return;
  }
  constexpr std::size_t kSmall = std::size_t{1} << 20;
  if (bytes <= kSmall) {  // through pinned memory: nobody waits
    copy(to, stage(from, bytes), bytes);
    return;
  }
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "uploading");
  wait();
}

void CudaDevice::download(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream()), "downloading");
  }
  wait();
}

// 4096 FLOP per clock and multiprocessor at the boost clock: 989 TFLOPS for 132 of them, as the
// H100's data sheet has it (SXM, dense).
double CudaDevice::bf16_flops() const noexcept { return 4096.0 * 1.83e9 * processors_; }

void CudaDevice::wait() { check(cudaStreamSynchronize(stream()), "waiting for the device"); }

void* CudaDevice::scratch(int slot, std::size_t bytes) {
  if (bytes > scratch_bytes_[slot]) {
    wait();  // its last user
    check(cudaFree(scratch_[slot]), "releasing scratch");
    scratch_[slot] = nullptr;
    scratch_bytes_[slot] = 0;
    const std::size_t rounded = (bytes + (std::size_t{1} << 21) - 1) >> 21 << 21;
    scratch_[slot] = allocate(rounded);
    scratch_bytes_[slot] = rounded;
  }
  return scratch_[slot];
}

const void* CudaDevice::stage(const void* from, std::size_t bytes) {
  Stage& s = stages_[next_stage_];
  next_stage_ = (next_stage_ + 1) % kStages;
  if (bytes <= kMostPayload && s.capacity >= bytes) {
    send(from, bytes, s.device, stream_);
    return s.device;
  }
  if (s.done == nullptr) {
    check(cudaEventCreateWithFlags(&s.done, cudaEventDisableTiming), "making an event");
  } else {
    check(cudaEventSynchronize(s.done), "waiting for an upload");
  }
  if (bytes > s.capacity) {
    wait();
    cudaFreeHost(s.host);
    cudaFree(s.device);
    s = {nullptr, nullptr, 0, s.done};
    const std::size_t rounded = std::max(kMostPayload, bytes * 2);
    check(cudaMallocHost(&s.host, rounded), "allocating pinned memory");
    s.device = allocate(rounded);
    s.capacity = rounded;
  }
  std::memcpy(s.host, from, bytes);
  check(cudaMemcpyAsync(s.device, s.host, bytes, cudaMemcpyHostToDevice, stream_), "uploading");
  check(cudaEventRecord(s.done, stream_), "marking an upload");
  return s.device;
}

}  // namespace cachalot::cuda
