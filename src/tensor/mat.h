// Matrices: `Mat` owns 64-byte aligned row-major memory, `MatView` is passed by value and never
// stored past a call, `MatRef` is a read-only view whose element type is known at run time.
//
// Threads: plain memory; the caller keeps writers apart.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "tensor/device.h"
#include "tensor/dtype.h"

namespace cachalot {

template <class T>
struct MatView {
  T* data = nullptr;
  int rows = 0;
  int cols = 0;
  std::ptrdiff_t stride = 0;  // elements from one row to the next

  constexpr T* row(std::ptrdiff_t i) const noexcept { return data + i * stride; }
  constexpr T& at(int i, int j) const noexcept { return data[i * stride + j]; }
  MatView sub_rows(int begin, int count) const noexcept {
    return {row(begin), count, cols, stride};
  }
  MatView sub_cols(int begin, int count) const noexcept {
    return {data + begin, rows, count, stride};
  }
  constexpr bool empty() const noexcept { return rows == 0 || cols == 0; }
  operator MatView<const T>() const noexcept requires(!std::is_const_v<T>) {
    return {data, rows, cols, stride};
  }
};

// Read-only, element type at run time: what a product reads (weights as they lie in the file).
struct MatRef {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int rows = 0;
  int cols = 0;
  std::ptrdiff_t stride = 0;  // elements

  MatRef() = default;
  MatRef(const void* d, DType t, int r, int c, std::ptrdiff_t s)
      : data(d), dtype(t), rows(r), cols(c), stride(s) {}
  template <class T>
  MatRef(MatView<T> v)  // NOLINT(google-explicit-constructor): a view is a reference
      : data(v.data),
        dtype(DTypeOf<std::remove_const_t<T>>::value),
        rows(v.rows),
        cols(v.cols),
        stride(v.stride) {}

  template <class T>
  MatView<const T> as() const {
    if (dtype != DTypeOf<T>::value) {
      throw Error(Code::kInternal, cat("a ", cachalot::name(dtype), " matrix was read as ",
                                       cachalot::name(DTypeOf<T>::value)));
    }
    return {static_cast<const T*>(data), rows, cols, stride};
  }
  MatRef sub_rows(int begin, int count) const noexcept {
    const auto offset = begin * stride * static_cast<std::ptrdiff_t>(size_of(dtype));
    return {static_cast<const char*>(data) + offset, dtype, count, cols, stride};
  }
  bool empty() const noexcept { return rows == 0 || cols == 0; }
};

struct FreeDeleter {
  Device* device = nullptr;  // whose memory it is; null: the host's
  void operator()(void* p) const noexcept {
    if (device != nullptr) {
      device->release(p);
    } else {
      std::free(p);
    }
  }
};

// Aligned, uninitialised bytes, of the host or of the device whose MemoryScope this is; throws
// std::bad_alloc. Large ones lie in huge pages where the system has any: the rows of one head or
// expert lie in hundreds of small pages, more than a core keeps addresses of.
std::unique_ptr<void, FreeDeleter> aligned_bytes(std::size_t bytes);

// Zeroed on construction. `resize` reuses memory and leaves the contents unspecified. A matrix lies
// where its first memory came from (tensor/device.h); the elements of one on a device are not to
// be touched by the host.
template <class T>
class Mat {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Mat() = default;
  Mat(int rows, int cols) {
    resize(rows, cols);
    zero();
  }
  Mat(Mat&&) noexcept = default;
  Mat& operator=(Mat&&) noexcept = default;
  Mat(const Mat&) = delete;
  Mat& operator=(const Mat&) = delete;
  Mat clone() const {
    const MemoryScope scope(device());
    Mat copy;
    copy.resize(rows_, cols_);
    if (size() == 0) return copy;
    if (Device* on = device(); on != nullptr) {
      on->copy(copy.data(), data(), size() * sizeof(T));
    } else {
      std::memcpy(copy.data(), data(), size() * sizeof(T));
    }
    return copy;
  }

  void resize(int rows, int cols) {
    const std::size_t want = static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols);
    if (want > capacity_ || !memory_) {
      memory_ = aligned_bytes(want * sizeof(T));
      capacity_ = want;
    }
    rows_ = rows;
    cols_ = cols;
  }
  void zero() {
    if (Device* on = device(); on != nullptr) {
      on->zero(data(), size() * sizeof(T));
    } else {
      std::memset(static_cast<void*>(data()), 0, size() * sizeof(T));
    }
  }
  Device* device() const noexcept { return memory_.get_deleter().device; }

  int rows() const noexcept { return rows_; }
  int cols() const noexcept { return cols_; }
  std::size_t size() const noexcept {
    return static_cast<std::size_t>(rows_) * static_cast<std::size_t>(cols_);
  }
  std::size_t bytes() const noexcept { return capacity_ * sizeof(T); }
  T* data() noexcept { return static_cast<T*>(memory_.get()); }
  const T* data() const noexcept { return static_cast<const T*>(memory_.get()); }
  T* row(std::ptrdiff_t i) noexcept { return data() + i * cols_; }
  const T* row(std::ptrdiff_t i) const noexcept { return data() + i * cols_; }
  T& at(int i, int j) noexcept { return row(i)[j]; }
  const T& at(int i, int j) const noexcept { return row(i)[j]; }
  MatView<T> view() noexcept { return {data(), rows_, cols_, cols_}; }
  MatView<const T> view() const noexcept { return {data(), rows_, cols_, cols_}; }
  MatView<const T> cview() const noexcept { return {data(), rows_, cols_, cols_}; }
  std::span<T> span() noexcept { return {data(), size()}; }
  std::span<const T> span() const noexcept { return {data(), size()}; }

 private:
  std::unique_ptr<void, FreeDeleter> memory_;
  std::size_t capacity_ = 0;
  int rows_ = 0;
  int cols_ = 0;
};

// The host's elements into the beginning of a matrix, wherever that lies; and back.
template <class T>
void upload(std::span<const T> from, Mat<T>& to) {
  if (from.empty()) return;
  if (Device* device = to.device(); device != nullptr) {
    device->upload(to.data(), from.data(), from.size_bytes());
  } else {
    std::memcpy(static_cast<void*>(to.data()), from.data(), from.size_bytes());
  }
}
template <class T>
void download(const Mat<T>& from, std::span<T> to) {
  if (to.empty()) return;
  if (Device* device = from.device(); device != nullptr) {
    device->download(to.data(), from.data(), to.size_bytes());
  } else {
    std::memcpy(static_cast<void*>(to.data()), from.data(), to.size_bytes());
  }
}

}  // namespace cachalot
