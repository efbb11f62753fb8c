// Products of block-scaled codes beyond the slot of the table: rows counted on the device, and the
// choice of a kernel by hand for tests and benchmarks.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/fp8.h"

namespace cachalot::cuda {

// Problems as of gemm_fp8, of which problem i has only counts[i] rows (on the device; at most its
// m; A not transposed): experts that each have room for as many tokens as there may be, in
// decoding. Rows beyond the count are neither read for the result nor written.
void gemm_fp8_masked(const Context& ctx, std::span<const Fp8Gemm> problems,
                     const std::int32_t* counts);

#ifdef CACHALOT_FP8_PROBE
void fp8_probe(long long out[2]);
#endif
struct Fp8Choice {
  int kernel = -1;      // index below fp8_kernels(), or -1: by the shapes
  int group = 0;        // rows of tiles walked together; 0: by the shapes
  int split_cost = -1;  // what cutting tiles along K costs, in blocks of K; -1: by the shapes
};
struct Fp8KernelFacts {
  const char* name;
  bool column_scales;  // B may have a scale for each column
};
std::span<const Fp8KernelFacts> fp8_kernels() noexcept;
Fp8KernelFacts fp8_kernel_for(const Context& ctx, std::span<const Fp8Gemm> problems);
void gemm_fp8(const Context& ctx, std::span<const Fp8Gemm> problems, const Fp8Choice& choice,
              const std::int32_t* counts = nullptr);

}  // namespace cachalot::cuda
