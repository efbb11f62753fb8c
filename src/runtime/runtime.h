// Looks at the machine, picks the kernel table, owns the threads, puts them on cores, hands out a
// Context.
//
// Owns:    the thread pool.
// Threads: one Runtime per process is usual; a Context of it serves one caller at a time. Workers
//          are pinned (runtime/pinning.h), the caller is not, since whatever threads it starts
//          would be held to its core: a thread that only computes says pin_caller.
//          With a device the context's table is the device's, its pool serves what the host does.
// Errors:  an unknown CACHALOT_CPU level, or one this machine lacks: kUsage / kUnsupported.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/context.h"
#include "runtime/pinning.h"
#include "runtime/topology.h"
#include "tensor/device.h"

namespace cachalot::runtime {

inline constexpr int kMaxThreads = 1024;  // wherever a number of threads is asked for

struct RuntimeOptions {
  int threads = 0;       // 0: $CACHALOT_THREADS, else one per core this process may run on
  std::string cpu;       // level name; empty: $CACHALOT_CPU, else the best this machine has
  std::string pin = {};  // auto, on or off; empty: $CACHALOT_PIN, else auto
  // Whether what is computed may lie on the device that $CACHALOT_DEVICE names (cpu, or cuda,
  // cuda:1, ...); where it names one and may not, that is an error.
  bool on_device = false;
  int device =
      0;  // the GPU where it names none by number: of ranks on one machine each has its own
};

// What this build could compute on beside the CPU: the name of the first GPU, or why there is none.
struct DeviceFound {
  std::string name;  // empty: none that can be used
  std::string why;   // then
};
DeviceFound find_device();

class Runtime {
 public:
  explicit Runtime(const RuntimeOptions& options = {});
  const Context& context() const noexcept { return context_; }
  int threads() const noexcept { return context_.threads(); }
  std::string level() const;

  const Topology& topology() const noexcept { return topology_; }
  // Where each thread computes, the caller first; only hints unless pinned.
  const std::vector<ThreadPlace>& places() const noexcept { return places_; }
  bool pinned() const noexcept { return pinned_.pin; }
  const std::string& pin_reason() const noexcept { return pinned_.why; }
  // Where weights lie; products then prefer what is near a thread. Threads have the homes of
  // `places`, those that are pinned.
  void set_homes(MemoryHomes homes);
  // Holds the calling thread to the core that is left for it, if workers are pinned.
  void pin_caller() const;

 private:
  Topology topology_;
  std::vector<ThreadPlace> places_;
  PinDecision pinned_;
  std::unique_ptr<const MemoryHomes> homes_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<Device> device_;
  Context context_;
};

}  // namespace cachalot::runtime
