// A place other than the host's memory where matrices lie and kernels run: an accelerator.
//
// Work is queued: a call may return before it is done, and each begins after those before it.
// Nothing queued may be reading or writing memory that is released; `release` waits where it must.
// Threads: one caller at a time.
// Errors:  kUnsupported where memory does not suffice (met, needed, what to do); kInternal for a
//          fault of the device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace cachalot {

// Launches that were recorded, to be made again: see Device::begin_recording.
class Recording {
 public:
  virtual ~Recording() = default;
  // Queues all of them. False, and nothing is queued, where memory that kernels work in has moved.
  virtual bool replay() = 0;
};

class Device {
 public:
  virtual ~Device() = default;

  virtual void* allocate(std::size_t bytes) = 0;  // 256-byte aligned, contents unspecified
  virtual void release(void* p) noexcept = 0;
  virtual void zero(void* p, std::size_t bytes) = 0;
  virtual void copy(void* to, const void* from, std::size_t bytes) = 0;    // both on the device
  virtual void upload(void* to, const void* from, std::size_t bytes) = 0;  // `from` is read at once
  virtual void download(void* to, const void* from, std::size_t bytes) = 0;  // waits for it
  virtual void wait() = 0;
  // Whether all that was queued is done; waits for it where a device cannot tell.
  virtual bool done() {
    wait();
    return true;
  }
  // Where work is queued, as libraries of the device's maker take it: CUDA's stream, with its
  // device made the calling thread's. Null: such libraries know nothing of this device.
  virtual void* queue() { return nullptr; }

  // Launches between the two calls are not made but recorded, with their arguments: the same memory
  // is read and written whenever they are replayed, and what they read of the host's lists is as it
  // was. No uploads, downloads or waits in between, and no scratch that grows: the same launches
  // were made once before.
  virtual bool can_record() const noexcept { return false; }
  virtual void begin_recording() {}
  virtual std::unique_ptr<Recording> end_recording() { return nullptr; }
  // So far, scratch included: whether memory may have moved since.
  virtual std::uint64_t allocations() const noexcept { return 0; }

  virtual std::string name() const = 0;            // "NVIDIA H200"
  virtual double bf16_flops() const noexcept = 0;  // per second, of its matrix units, as sold
};

// While it lives, matrices of this thread get their memory from `device`; null: from the host.
class MemoryScope {
 public:
  explicit MemoryScope(Device* device) noexcept;
  ~MemoryScope();
  MemoryScope(const MemoryScope&) = delete;
  MemoryScope& operator=(const MemoryScope&) = delete;
  static Device* current() noexcept;

 private:
  Device* before_;
};

}  // namespace cachalot
