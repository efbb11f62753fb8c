// For tests only: matrices and vectors of repeatable random numbers, and small helpers on them.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "base/rng.h"
#include "tensor/mat.h"

namespace cachalot::testing {

// Standard normal values times `scale`; the same for the same seed on every machine with this libm.
template <class T>
std::vector<T> random_vec(std::size_t n, std::uint64_t seed, double scale = 1) {
  const Rng rng(seed);
  std::vector<T> v(n);
  for (std::size_t i = 0; i < n; ++i) v[i] = static_cast<T>(scale * rng.normal(i));
  return v;
}

template <class T>
Mat<T> random_mat(int rows, int cols, std::uint64_t seed, double scale = 1) {
  const Rng rng(seed);
  Mat<T> m(rows, cols);
  for (std::size_t i = 0; i < m.size(); ++i) m.data()[i] = static_cast<T>(scale * rng.normal(i));
  return m;
}

template <class To, class From>
Mat<To> convert(const Mat<From>& from) {
  Mat<To> to(from.rows(), from.cols());
  for (std::size_t i = 0; i < from.size(); ++i) to.data()[i] = static_cast<To>(from.data()[i]);
  return to;
}

template <class To, class From>
std::vector<To> convert(const std::vector<From>& from) {
  return std::vector<To>(from.begin(), from.end());
}

// The same values with every element made positive: what an error bound is computed from.
template <class T>
Mat<T> magnitude(const Mat<T>& m) {
  Mat<T> result = m.clone();
  for (std::size_t i = 0; i < m.size(); ++i) result.data()[i] = std::abs(m.data()[i]);
  return result;
}

template <class T>
double dot(std::span<const T> a, std::span<const T> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  return sum;
}

}  // namespace cachalot::testing
