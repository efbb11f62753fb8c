// Shape checks with one wording: op, operand, what was met, what was needed.
//
// Errors: kShape. Called once per op by its dispatching function; kernels assume checked shapes.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "base/error.h"
#include "tensor/mat.h"

namespace cachalot {

// Throws unless `condition`; the parts of the text are only put together when it fails.
template <class... Parts>
void require_shape(bool condition, const Parts&... parts) {
  if (!condition) throw Error(Code::kShape, cat(parts...));
}

template <class Matrix>
void require_size(std::string_view op, std::string_view operand, const Matrix& m, int rows,
                  int cols) {
  require_shape(m.rows == rows && m.cols == cols, op, ": ", operand, " is [", m.rows, ", ", m.cols,
                "] but has to be [", rows, ", ", cols, "]; make it as large as the other operands");
  require_shape(m.rows <= 1 || m.stride >= m.cols, op, ": rows of ", operand, " lie ", m.stride,
                " elements apart but hold ", m.cols, "; the stride has to be at least that");
}

template <class T>
void require_length(std::string_view op, std::string_view operand, std::span<T> s,
                    std::size_t length) {
  require_shape(s.size() == length, op, ": ", operand, " has ", s.size(), " elements but needs ",
                length, "; make it as long as the other operands ask");
}

// Every value in [low, high): indices that address memory. Not looked at where matrices lie on a
// device: the host cannot read them, and whoever made them there was given checked ones.
template <class T>
void require_range(std::string_view op, std::string_view operand, std::span<T> s, int low,
                   int high) {
  if (MemoryScope::current() != nullptr) return;
  for (std::size_t i = 0; i < s.size(); ++i) {
    require_shape(s[i] >= low && s[i] < high, op, ": ", operand, "[", i, "] is ", s[i],
                  " but has to be at least ", low, " and below ", high,
                  "; check the indices before the op");
  }
}

}  // namespace cachalot
