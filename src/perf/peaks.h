// What this machine can do at most: multiply-adds from registers, reading memory. The ceilings
// beside every measured product.
//
// Threads: runs on those of the Context.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "kernels/context.h"
#include "tensor/mat.h"

namespace cachalot::perf {

// Float multiply-adds of the widest vectors this machine has, operands in registers.
double fma_gflops(const Context& ctx);
// The same for vdpbf16ps; 0 where the machine lacks it.
double bf16_gflops(const Context& ctx);
// Integer operations of vpdpbusd (bytes); 0 where the machine lacks it.
double int8_gops(const Context& ctx);
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

// Passes over memory as an op makes them: reads `reads` arrays, writes `writes` arrays, of `bytes`
// each; in place the written ones are the first of those read. GB/s of what is read and written;
// that a plain store fetches its line first is not counted, here or for the ops.
class StreamProbe {
 public:
  StreamProbe(int reads, int writes, bool in_place, std::size_t bytes);
  double gbps(const Context& ctx) const;

 private:
  int reads_, writes_;
  bool in_place_;
  std::size_t floats_;  // of one array
  std::unique_ptr<float, FreeDeleter> data_;
  std::vector<float*> arrays_;
};

}  // namespace cachalot::perf
