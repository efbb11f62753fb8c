// For tests of CUDA kernels: a GPU or a skipped test, matrices on both sides, comparisons.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "base/rng.h"
#include "kernels/cuda/cuda.h"
#include "tensor/mat.h"

namespace cachalot::cuda::testing {

// Skips without a GPU: CI has none. `ctx` runs on it, `host` is the reference.
class CudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (count_devices() == 0) GTEST_SKIP() << "no CUDA device on this machine";
    device_ = open(0);
    ctx.table = &table();
    ctx.device = device_.get();
    host.table = &kReferenceTable;
  }

  template <class T>
  Mat<T> up(const Mat<T>& m) {
    const MemoryScope scope(device_.get());
    Mat<T> out;
    out.resize(m.rows(), m.cols());
    device_->upload(out.data(), m.data(), m.size() * sizeof(T));
    return out;
  }
  // Filled with bytes that no result has, so that what a kernel leaves out shows (floats: NaN).
  template <class T>
  Mat<T> room(int rows, int cols) {
    Mat<T> poison;
    poison.resize(rows, cols);
    std::memset(static_cast<void*>(poison.data()), 0xFF, poison.size() * sizeof(T));
    return up(poison);
  }
  template <class T>
  Mat<T> down(const Mat<T>& m) {
    Mat<T> out;
    out.resize(m.rows(), m.cols());
    device_->download(out.data(), m.data(), m.size() * sizeof(T));
    return out;
  }

  Context ctx, host;
  std::unique_ptr<Device> device_;
};

inline Mat<float> random_mat(int rows, int cols, std::uint64_t seed, float scale = 1) {
  Mat<float> m(rows, cols);
  const Rng rng(seed, 0);
  for (std::size_t i = 0; i < m.size(); ++i) {
    m.data()[i] = scale * static_cast<float>(rng.normal(i));
  }
  return m;
}
inline Mat<Bf16> to_bf16(const Mat<float>& m) {
  Mat<Bf16> out(m.rows(), m.cols());
  for (std::size_t i = 0; i < m.size(); ++i) out.data()[i] = cachalot::to_bf16(m.data()[i]);
  return out;
}

// ||got - want|| / ||want||; NaN anywhere gives NaN, which no bound passes.
template <class A, class B>
double relative_error(const A* got, const B* want, std::size_t n) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(got[i]) - static_cast<double>(want[i]);
    difference += d * d;
    size += static_cast<double>(want[i]) * static_cast<double>(want[i]);
  }
  return std::sqrt(difference) / std::max(std::sqrt(size), 1e-30);
}
template <class A, class B>
double relative_error(const Mat<A>& got, const Mat<B>& want) {
  EXPECT_EQ(got.rows(), want.rows());
  EXPECT_EQ(got.cols(), want.cols());
  return relative_error(got.data(), want.data(), want.size());
}

}  // namespace cachalot::cuda::testing
