// Token ids and row numbers, for the host and as the ops read and write them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/host_copy.h"
#include "tensor/mat.h"

namespace cachalot::model {

struct RowIndices {
  std::vector<std::int32_t> host;
  Mat<std::int32_t> ops;  // [1, n]

  std::size_t size() const noexcept { return host.size(); }
  std::span<const std::int32_t> span() const noexcept { return ops.span(); }
  void to_ops() {
    ops.resize(1, static_cast<int>(host.size()));
    upload<std::int32_t>(host, ops);
  }
  void from_ops() {
    host.resize(static_cast<std::size_t>(ops.cols()));
    download<std::int32_t>(ops, host);
  }
};

}  // namespace cachalot::model
