// For tests of kernels bound by memory: operands on both sides in every layout, exact reports of
// what differs, and timing by events.
#pragma once

#include <cstdio>
#include <functional>
#include <string>
#include <type_traits>

#include "kernels/cuda/cuda_case_test.h"
#include "kernels/cuda/ops.h"

namespace cachalot::cuda::testing {

// Median microseconds of `runs` calls after 3 to warm up, on the device's own clock.
double median_microseconds(const Context& ctx, const std::function<void()>& call, int runs = 20);

// Columns before and after a matrix within its rows: {0, 0} and {8, 8} allow vectors, {1, 2} none.
struct Layout {
  int before = 0, after = 0;
};
inline constexpr Layout kLayouts[] = {{0, 0}, {8, 8}, {1, 2}};
inline std::string text(Layout l) {
  return "layout " + std::to_string(l.before) + "+" + std::to_string(l.after);
}

// One operand, on the host for the reference and on the device for the kernel.
template <class T>
struct Twin {
  Mat<T> host, device;
  int before = 0, cols = 0;
  MatView<T> h() { return host.view().sub_cols(before, cols); }
  MatView<T> d() { return device.view().sub_cols(before, cols); }
  std::span<T> hs() { return {h().data, static_cast<std::size_t>(cols)}; }  // of one row
  std::span<T> ds() { return {d().data, static_cast<std::size_t>(cols)}; }
};

class MemoryTest : public CudaTest {
 protected:
  template <class T>
  Twin<T> twin(const Mat<T>& content, Layout l = {}) {
    Twin<T> t;
    t.before = l.before, t.cols = content.cols();
    t.host.resize(content.rows(), l.before + content.cols() + l.after);
    std::memset(static_cast<void*>(t.host.data()), 0xFF, t.host.size() * sizeof(T));
    for (int i = 0; i < content.rows(); ++i) {
      std::copy_n(content.row(i), content.cols(), t.h().row(i));
    }
    t.device = up(t.host);
    return t;
  }
  // Poisoned on both sides.
  template <class T>
  Twin<T> twin(int rows, int cols, Layout l = {}) {
    Mat<T> poison;
    poison.resize(rows, cols);
    std::memset(static_cast<void*>(poison.data()), 0xFF, poison.size() * sizeof(T));
    return twin(poison, l);
  }
  // |got - want| <= absolute + relative |want| inside, the same bits outside.
  template <class T>
  void expect_same(const std::string& what, Twin<T>& t, double relative = 0, double absolute = 0) {
    const Mat<T> got = down(t.device);
    int bad = 0;
    double worst = 0;
    std::string first;
    for (int i = 0; i < got.rows(); ++i) {
      for (int j = 0; j < got.cols(); ++j) {
        const bool inside = j >= t.before && j < t.before + t.cols;
        const double g = number(got.at(i, j)), w = number(t.host.at(i, j));
        const double error = std::abs(g - w);
        bool good = std::memcmp(&got.at(i, j), &t.host.at(i, j), sizeof(T)) == 0;
        if (inside && !good) good = error <= absolute + relative * std::abs(w);
        if (inside && error > worst) worst = error;
        if (!good && bad++ == 0) {
          first = cat("[", i, ", ", j - t.before, "] is ", g, " but has to be ", w);
        }
      }
    }
    EXPECT_EQ(bad, 0) << what << " [" << got.rows() << ", " << t.cols << "]: " << bad
                      << " differ, first " << first << "; largest error " << worst;
  }
  template <class T>
  Mat<T> device_room(int rows, int cols) {
    const MemoryScope scope(device_.get());
    Mat<T> m;
    m.resize(rows, cols);
    return m;
  }
  // Normal numbers, the same ones again and again: as much as a bench needs.
  Mat<float> device_random(int rows, int cols, float scale = 1) {
    Mat<float> m = device_room<float>(rows, cols);
    repeat(m, random_mat(1, 1 << 18, 7, scale));
    return m;
  }
  Mat<Bf16> device_random_bf16(int rows, int cols, float scale = 1) {
    Mat<Bf16> m = device_room<Bf16>(rows, cols);
    repeat(m, to_bf16(random_mat(1, 1 << 18, 7, scale)));
    return m;
  }
  template <class T>
  void repeat(Mat<T>& m, const Mat<T>& tile) {
    const std::size_t first = std::min(tile.size(), m.size());
    device_->upload(m.data(), tile.data(), first * sizeof(T));
    for (std::size_t done = first; done < m.size();) {
      const std::size_t next = std::min(done, m.size() - done);
      device_->copy(m.data() + done, m.data(), next * sizeof(T));
      done += next;
    }
  }
  void bench(const std::string& name, double bytes, const std::function<void()>& call) {
    const double us = median_microseconds(ctx, call);
    std::printf("BENCH %-58s %9.1f us %7.0f GB/s\n", name.c_str(), us, bytes / us * 1e-3);
    std::fflush(stdout);
  }

 private:
  static double number(Bf16 x) { return static_cast<double>(to_float(x)); }
  template <class T>
  static double number(T x) {
    return static_cast<double>(x);
  }
};

}  // namespace cachalot::cuda::testing
