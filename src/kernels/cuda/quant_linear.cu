// y = x W^T with W in 8 or 4 bits on the device: few rows read codes once, at the speed of memory;
// of many the weights become bf16.
#include <vector>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/quant_parts.cuh"

namespace cachalot::cuda {

void quant_linear(const Context& ctx, QuantActivations activations,
                  std::span<const QuantLinear> problems) {
  // Bytes moved per weight: 1 for every 32 rows, from the second time on mostly of the cache,
  // against 1 + 2 + 2 of the way through bf16. Twice 32 rows pay where the cache holds the codes.
  constexpr int kFewRows = 32;
  constexpr double kSmall = 16e6;  // weights
  std::vector<QuantLinear> few, many;
  for (const QuantLinear& a : problems) {
    if (a.w.panels) {
      throw Error(Code::kInternal, "quant_linear: panels on a device, whose kernels read rows");
    }
    if (a.y.empty()) continue;
    // Codes of x have a scale per 128 columns, which no bf16 product applies.
    const bool codes = activations == QuantActivations::kInt8;
    const bool small = static_cast<double>(a.n()) * a.k() <= kSmall;
    const bool is_few = codes || a.m() <= (small ? 2 : 1) * kFewRows || a.k() == 0;
    (is_few ? few : many).push_back(a);
  }
  quant_rows(ctx, activations, few);
  quant_dense(ctx, many);
}

}  // namespace cachalot::cuda
