#include "tensor/tensor.h"

#include <limits>

namespace cachalot {

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i != 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

std::int64_t count(const Shape& shape) {
  std::int64_t product = 1;
  for (const std::int64_t n : shape) {
    if (n < 0 || (n != 0 && product > (std::int64_t{1} << 62) / n)) {
      throw Error(Code::kShape, cat("shape ", to_string(shape), " is negative or too large"));
    }
    product *= n;
  }
  return product;
}

Tensor::Tensor(DType dtype, Shape shape)
    : dtype_(dtype), shape_(std::move(shape)), size_(count(shape_)) {
  memory_ = aligned_bytes(bytes());
  std::memset(memory_.get(), 0, bytes());
}

int Tensor::cols() const { return shape_.empty() ? 1 : static_cast<int>(shape_.back()); }

int Tensor::rows() const {
  std::int64_t rows = 1;
  for (std::size_t i = 0; i + 1 < shape_.size(); ++i) rows *= shape_[i];
  if (rows > std::numeric_limits<int>::max()) {
    throw Error(Code::kShape, cat("shape ", to_string(shape_), " has too many rows"));
  }
  return static_cast<int>(rows);
}

void Tensor::require(DType wanted) const {
  if (dtype_ != wanted) {
    throw Error(Code::kInternal,
                cat("a ", cachalot::name(dtype_), " tensor was read as ", cachalot::name(wanted)));
  }
}

}  // namespace cachalot
