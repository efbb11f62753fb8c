// A tensor of any rank and element type that owns its bytes: what is read from and written to
// files.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tensor/dtype.h"
#include "tensor/mat.h"

namespace cachalot {

using Shape = std::vector<std::int64_t>;

std::string to_string(const Shape& shape);  // "[3, 128]"
std::int64_t count(const Shape& shape);     // product; 1 for rank 0; throws kShape past 2^62

class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, Shape shape);  // zeroed

  DType dtype() const noexcept { return dtype_; }
  const Shape& shape() const noexcept { return shape_; }
  std::int64_t size() const noexcept { return size_; }
  std::size_t bytes() const noexcept { return static_cast<std::size_t>(size_) * size_of(dtype_); }
  void* raw() noexcept { return memory_.get(); }
  const void* raw() const noexcept { return memory_.get(); }

  // Typed access; throws kInternal where T is not the element type.
  template <class T>
  T* data() {
    require(DTypeOf<T>::value);
    return static_cast<T*>(memory_.get());
  }
  template <class T>
  const T* data() const {
    require(DTypeOf<T>::value);
    return static_cast<const T*>(memory_.get());
  }
  // The tensor as a matrix: all dimensions but the last are rows (rank 0 and 1: one row).
  template <class T>
  MatView<T> mat() {
    return {data<T>(), rows(), cols(), cols()};
  }
  template <class T>
  MatView<const T> mat() const {
    return {data<T>(), rows(), cols(), cols()};
  }
  MatRef ref() const { return {raw(), dtype_, rows(), cols(), cols()}; }
  int rows() const;
  int cols() const;

 private:
  void require(DType wanted) const;
  DType dtype_ = DType::kF32;
  Shape shape_;
  std::int64_t size_ = 0;
  std::unique_ptr<void, FreeDeleter> memory_;
};

}  // namespace cachalot
