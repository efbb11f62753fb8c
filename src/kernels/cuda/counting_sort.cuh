// Stable order of integer keys, by counting: what routing and the embedding's gradient sort by.
//
// Paper: Satish et al., "Designing efficient sorting algorithms for manycore GPUs" (2009).
#pragma once

#include "kernels/cuda/stream.cuh"
#include "tensor/mat.h"

namespace cachalot::cuda {

// keys [T, k] on the device, in [0, buckets); numbered by row, then column. order[r] is the number
// of the r-th key in rising order, equal keys in order of their numbers; rank[order[r]] = r, or
// null. Uses kScratchSums.
void stable_order(const Context& ctx, MatView<const std::int32_t> keys, int buckets,
                  std::int32_t* order, std::int32_t* rank);

}  // namespace cachalot::cuda
