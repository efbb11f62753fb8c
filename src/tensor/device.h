// A place other than the host's memory where matrices lie and kernels run: an accelerator.
//
// Work is queued: a call may return before it is done, and each begins after those before it.
// Nothing queued may be reading or writing memory that is released; `release` waits where it must.
// Threads: one caller at a time.
// Errors:  kUnsupported where memory does not suffice (met, needed, what to do); kInternal for a
//          fault of the device.
#pragma once

#include <cstddef>
#include <string>

namespace cachalot {

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
