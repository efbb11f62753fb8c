// What a matrix holds, for the host to look at, wherever it lies.
#pragma once

#include "tensor/mat.h"

namespace cachalot {

// `device`: whose memory it is; null: the host's. Waits for what is queued there.
template <class T>
Mat<T> host_copy(MatView<const T> from, Device* device) {
  const MemoryScope host(nullptr);
  Mat<T> to;
  to.resize(from.rows, from.cols);
  const std::size_t row_bytes = static_cast<std::size_t>(from.cols) * sizeof(T);
  if (device == nullptr) {
    for (int i = 0; i < from.rows; ++i) std::copy_n(from.row(i), from.cols, to.row(i));
  } else if (from.stride == from.cols) {
    device->download(to.data(), from.data, static_cast<std::size_t>(from.rows) * row_bytes);
  } else {
    for (int i = 0; i < from.rows; ++i) device->download(to.row(i), from.row(i), row_bytes);
  }
  return to;
}

}  // namespace cachalot
