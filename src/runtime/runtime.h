// Looks at the machine, picks the kernel table, owns the threads, hands out a Context.
//
// Owns:    the thread pool.
// Threads: one Runtime per process is usual; a Context of it serves one caller at a time.
// Errors:  an unknown CACHALOT_CPU level, or one this machine lacks: kUsage / kUnsupported.
#pragma once

#include <memory>
#include <string>

#include "kernels/context.h"

namespace cachalot::runtime {

struct RuntimeOptions {
  int threads = 0;  // 0: $CACHALOT_THREADS, else one per core this process may run on
  std::string cpu;  // level name; empty: $CACHALOT_CPU, else the best this machine has
};

class Runtime {
 public:
  explicit Runtime(const RuntimeOptions& options = {});
  const Context& context() const noexcept { return context_; }
  int threads() const noexcept { return context_.threads(); }
  std::string level() const;

 private:
  std::unique_ptr<ThreadPool> pool_;
  Context context_;
};

}  // namespace cachalot::runtime
