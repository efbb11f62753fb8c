#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/launch_times.cuh"
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
  LaunchTimes::open(stream_);
}

CudaDevice::~CudaDevice() {
  cudaStreamSynchronize(stream_);
  LaunchTimes::close(stream_);
  for (Stage& s : stages_) {
    if (s.done != nullptr) cudaEventDestroy(s.done);
    cudaFreeHost(s.host);
    cudaFree(s.device);
  }
  for (void* p : scratch_) cudaFree(p);
  for (void* p : kept_slabs_) cudaFree(p);
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
  ++allocations_;
  const std::lock_guard lock(memory_mutex_);
  memory_[reinterpret_cast<std::uintptr_t>(p)] = bytes;
  return p;
}

void CudaDevice::release(void* p) noexcept {
  cudaFree(p);  // waits for the device
  const std::lock_guard lock(memory_mutex_);
  memory_.erase(reinterpret_cast<std::uintptr_t>(p));
}

const std::byte* CudaDevice::allocation_of(const void* p) const {
  const std::lock_guard lock(memory_mutex_);
  const auto at = reinterpret_cast<std::uintptr_t>(p);
  auto after = memory_.upper_bound(at);
  if (after == memory_.begin()) return static_cast<const std::byte*>(p);
  const auto& [begin, bytes] = *--after;
  if (at >= begin + bytes) return static_cast<const std::byte*>(p);
  return reinterpret_cast<const std::byte*>(begin);
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
  forbid_recording("uploading");
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

bool CudaDevice::done() {
  const cudaError_t result = cudaStreamQuery(stream());
  if (result == cudaErrorNotReady) return false;
  check(result, "asking whether the device is done");
  return true;
}

void CudaDevice::wait() {
  forbid_recording("waiting");
  check(cudaStreamSynchronize(stream()), "waiting for the device");
}

void* CudaDevice::scratch(int slot, std::size_t bytes) {
  if (bytes > scratch_bytes_[slot]) {
    wait();  // its last user
    ++scratch_moves_;
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
  if (recording_) return keep(from, bytes);
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
