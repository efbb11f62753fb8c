// Descriptors of matrices for the copy engine (TMA), made on the host.
//
// Errors: kInternal where the driver refuses; callers see to its conditions (can_map).
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "kernels/cuda/stream.cuh"

namespace cachalot::cuda {

// A row-major matrix on the device as the copy engine reads boxes of it.
struct MappedMatrix {
  const void* data = nullptr;  // a multiple of 16
  std::int64_t rows = 0;       // >= 1
  std::int64_t cols = 0;       // >= 1
  std::int64_t stride = 0;     // bytes, a multiple of 16
};
inline bool can_map(const void* data, std::int64_t stride_bytes) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && stride_bytes % 16 == 0;
}

// The driver's function, found through the runtime so that nothing links with the driver.
inline auto* tensor_map_encoder() {
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static const Encode encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                           cudaEnableDefault, &result),
          "finding cuTensorMapEncodeTiled");
    if (result != cudaDriverEntryPointSuccess || found == nullptr) {
      throw Error(Code::kUnsupported,
                  "the CUDA driver has no cuTensorMapEncodeTiled; install one of CUDA 12 or later");
    }
    return reinterpret_cast<Encode>(found);
  }();
  return encode;
}

// Boxes of box_rows (<= 256) by box_cols. With the 128-byte swizzle box_cols are 128 bytes or less,
// and 16-byte piece p of row r of a box lies at piece p ^ (r % 8).
inline CUtensorMap map_matrix(
    const MappedMatrix& m, CUtensorMapDataType type, int box_rows, int box_cols,
    CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_128B,
    CUtensorMapL2promotion promotion = CU_TENSOR_MAP_L2_PROMOTION_L2_256B) {
  CUtensorMap map;
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(m.cols), static_cast<cuuint64_t>(m.rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(m.stride)};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(box_cols), static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[] = {1, 1};
  const CUresult result = tensor_map_encoder()(
      &map, type, 2, const_cast<void*>(m.data), sizes, strides, box, steps,
      CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, promotion, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw Error(Code::kInternal, cat("CUDA: no tensor map (error ", static_cast<int>(result),
                                     ") of [", m.rows, ", ", m.cols, "], rows ", m.stride,
                                     " bytes apart, boxes [", box_rows, ", ", box_cols, "]"));
  }
  return map;
}

// Boxes of 128 bytes by box_rows (a multiple of 16) with the 128-byte swizzle, in which rows
// 16 i + 4 q + 2 h + e of the matrix lie at rows 16 i + 8 h + 2 q + e of the box (e, h < 2; q < 4):
// rows of B in this order give each thread of a warpgroup's product 4 columns of C side by side
// instead of twice 2. The rows of `m` up to the next multiple of 16 have to be readable. Boxes
// begin at (byte of the row, 0, 0, 0, row / 16).
inline CUtensorMap map_interleaved_codes(const MappedMatrix& m, int box_rows) {
  CUtensorMap map;
  const auto stride = static_cast<cuuint64_t>(m.stride);
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(m.cols), 2, 4, 2,
                              static_cast<cuuint64_t>((m.rows + 15) / 16)};
  const cuuint64_t strides[] = {stride, 4 * stride, 2 * stride, 16 * stride};
  const cuuint32_t box[] = {128, 2, 4, 2, static_cast<cuuint32_t>(box_rows / 16)};
  const cuuint32_t steps[] = {1, 1, 1, 1, 1};
  const CUresult result = tensor_map_encoder()(
      &map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 5, const_cast<void*>(m.data), sizes, strides, box, steps,
      CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw Error(Code::kInternal,
                cat("CUDA: no tensor map (error ", static_cast<int>(result), ") of [", m.rows, ", ",
                    m.cols, "] interleaved, rows ", m.stride, " bytes apart"));
  }
  return map;
}

}  // namespace cachalot::cuda
