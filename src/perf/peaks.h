// What this machine can do at most: multiply-adds from registers, reading memory. The ceilings
// beside every measured product.
//
// Threads: runs on those of the Context.
#pragma once

#include "kernels/context.h"

namespace cachalot::perf {

// Float multiply-adds of the widest vectors this machine has, operands in registers.
double fma_gflops(const Context& ctx);
// The same for vdpbf16ps; 0 where the machine lacks it.
double bf16_gflops(const Context& ctx);
// Reads memory that no cache holds. Owns 512 MiB while it lives.
class ReadProbe {
 public:
  ReadProbe();
  ~ReadProbe();
  ReadProbe(const ReadProbe&) = delete;
  ReadProbe& operator=(const ReadProbe&) = delete;
  double gbps(const Context& ctx) const;

 private:
  float* data_;
};

}  // namespace cachalot::perf
