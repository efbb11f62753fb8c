// What every launch needs: the stream, checks of calls, and memory for descriptors and scratch.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "kernels/context.h"
#include "tensor/device.h"

namespace cachalot::cuda {

void check(cudaError_t result, const char* what);  // throws kInternal with the runtime's words
// After a launch: its own error, if any. Waits for it with CACHALOT_CUDA_SYNC=1, to find a fault;
// with CACHALOT_CUDA_TIMES=1 the device's time by kernel is printed when the device is closed.
void check_launch(const char* kernel);

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int index);
  ~CudaDevice() override;
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  void* allocate(std::size_t bytes) override;
  void release(void* p) noexcept override;
  void zero(void* p, std::size_t bytes) override;
  void copy(void* to, const void* from, std::size_t bytes) override;
  void upload(void* to, const void* from, std::size_t bytes) override;
  void download(void* to, const void* from, std::size_t bytes) override;
  void wait() override;
  bool done() override;
  void* queue() override { return stream(); }
  std::string name() const override { return name_; }
  double bf16_flops() const noexcept override;
  bool can_record() const noexcept override { return true; }
  void begin_recording() override;
  std::unique_ptr<Recording> end_recording() override;
  std::uint64_t allocations() const noexcept override { return allocations_; }

  cudaStream_t stream() const {
    use();
    return stream_;
  }
  int processors() const noexcept { return processors_; }
  // Device memory whose contents last until the next call with this slot. Slots keep users apart
  // that need scratch at the same time: see Scratch.
  void* scratch(int slot, std::size_t bytes);
  // A copy of `bytes` on the device, valid for launches queued until 64 more of these were asked
  // for: what a kernel reads of a host's list. Never waits in the usual case.
  const void* stage(const void* from, std::size_t bytes);
  // The same for as long as the device: equal bytes have one copy. What is staged while launches
  // are recorded is kept.
  const void* keep(const void* from, std::size_t bytes);
  std::uint64_t scratch_moves() const noexcept { return scratch_moves_; }
  // Where the allocation begins that p lies in; p itself where none is known.
  const std::byte* allocation_of(const void* p) const;

 private:
  static constexpr int kScratchSlots = 8, kStages = 64;
  struct Stage {
    void* host = nullptr;  // pinned
    void* device = nullptr;
    std::size_t capacity = 0;
    cudaEvent_t done = nullptr;  // the upload has read `host`
  };
  // Makes this the calling thread's device: CUDA keeps one for each thread, 0 at first.
  void use() const;
  void forbid_recording(const char* what) const;

  int index_;
  std::string name_;
  int processors_ = 0;
  cudaStream_t stream_ = nullptr;
  void* scratch_[kScratchSlots] = {};
  std::size_t scratch_bytes_[kScratchSlots] = {};
  Stage stages_[kStages];
  int next_stage_ = 0;
  bool recording_ = false;
  std::uint64_t allocations_ = 0, scratch_moves_ = 0;
  std::map<std::string, void*, std::less<>> kept_;
  std::vector<void*> kept_slabs_;
  std::byte* kept_next_ = nullptr;
  std::size_t kept_left_ = 0;
  mutable std::mutex memory_mutex_;
  std::map<std::uintptr_t, std::size_t> memory_;  // allocations and their bytes
};

// Users of scratch that may be active at the same time.
enum Scratch : int {
  kScratchA,
  kScratchB,
  kScratchC,
  kScratchSums,
  kScratchLibrary,
  kScratchAttention,
  kScratchRouted
};

inline CudaDevice& device_of(const Context& ctx) { return static_cast<CudaDevice&>(*ctx.device); }
inline cudaStream_t stream_of(const Context& ctx) { return device_of(ctx).stream(); }

// The list as kernels read it.
template <class T>
const T* stage(const Context& ctx, std::span<const T> list) {
  return static_cast<const T*>(device_of(ctx).stage(list.data(), list.size_bytes()));
}

constexpr int ceil_div(std::int64_t a, std::int64_t b) { return static_cast<int>((a + b - 1) / b); }

}  // namespace cachalot::cuda
