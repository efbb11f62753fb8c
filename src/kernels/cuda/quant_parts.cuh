// The parts of products with quantised weights on the device.
#pragma once

#include <span>

#include "kernels/cuda/gemm_parts.cuh"
#include "kernels/quant_linear.h"

namespace cachalot::cuda {

// quant_rows.cu: codes stream through registers once for every 32 rows of x.
void quant_rows(const Context& ctx, QuantActivations activations,
                std::span<const QuantLinear> problems);

// quant_dense.cu: weights rounded to bf16 in scratch (exact where the scale is a power of two, and
// to 2^-9 of each weight elsewhere), then bf16 products.
void quant_dense(const Context& ctx, std::span<const QuantLinear> problems);

}  // namespace cachalot::cuda
