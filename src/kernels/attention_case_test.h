// For tests only: a batch for attention, and attention written naively in double with a bound on
// what a float computation of the same thing may be off by.
//
// The bound: with u = 2^-24 a score of n products is off by E <= (n + 3) u scale sum|q k|, so a
// probability by a factor 1 + 2 max E + (a few) u; sums follow. bf16 operands are rounded alike on
// both sides, but probabilities (and the gradients of scores) are rounded to 2^-9 after they were
// computed, at another scale, so they may land a whole bf16 step apart.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/attention.h"
#include "testing/random_mat.h"

namespace cachalot::testing {

struct AttentionShape {
  AttentionDims dims;
  std::vector<AttentionSpan> spans;
  int q_rows() const {
    int rows = 0;
    for (const auto& s : spans) rows = std::max(rows, s.q_begin + s.q_rows);
    return rows;
  }
  int kv_rows() const {
    int rows = 0;
    for (const auto& s : spans) rows = std::max(rows, s.kv_begin + s.kv_rows);
    return rows;
  }
};

// (queries, keys) of each sequence, one behind the other.
inline std::vector<AttentionSpan> spans_of(const std::vector<std::pair<int, int>>& sizes) {
  std::vector<AttentionSpan> spans;
  int q = 0, kv = 0;
  for (const auto& [q_rows, kv_rows] : sizes) {
    spans.push_back({q, q_rows, kv, kv_rows});
    q += q_rows;
    kv += kv_rows;
  }
  return spans;
}

template <class T>
struct AttentionBatch {
  AttentionShape shape;
  Precision precision = Precision::kF32;
  T scale = 0;
  Mat<T> q, kv, k_rope, out, lse, dout, dq, dkv, dk_rope;

  AttentionBatch(AttentionShape s, std::uint64_t seed, double size = 1) : shape(std::move(s)) {
    const AttentionDims& d = shape.dims;
    scale = static_cast<T>(1 / std::sqrt(static_cast<double>(d.nope + d.rope)));
    q = random_mat<T>(shape.q_rows(), d.heads * (d.nope + d.rope), seed, size);
    kv = random_mat<T>(shape.kv_rows(), d.heads * (d.nope + d.value), seed + 1, size);
    k_rope = random_mat<T>(shape.kv_rows(), d.rope, seed + 2, size);
    dout = random_mat<T>(shape.q_rows(), d.heads * d.value, seed + 3);
    out = Mat<T>(q.rows(), d.heads * d.value);
    lse = Mat<T>(q.rows(), d.heads);
    dq = Mat<T>(q.rows(), q.cols());
    dkv = Mat<T>(kv.rows(), kv.cols());
    dk_rope = Mat<T>(kv.rows(), d.rope);
  }
  Attention<T> forward() {
    return {q.cview(), kv.cview(), k_rope.cview(), shape.spans, shape.dims,
            scale,     precision,  out.view(),     lse.view()};
  }
  AttentionBackward<T> backward() {
    return {q.cview(), kv.cview(), k_rope.cview(), shape.spans, shape.dims,
            scale,     precision,  out.cview(),    lse.cview(), dout.cview(),
            dq.view(), dkv.view(), dk_rope.view()};
  }
};

// A value and what a float result may be off by.
struct Bounded {
  Mat<double> value, bound;
  Bounded(int rows, int cols) : value(rows, cols), bound(rows, cols) {}
};

class NaiveAttention {
 public:
  Bounded out, lse, dq, dkv, dk_rope;

  // The backward reads the batch's own out and lse, as the kernels do.
  NaiveAttention(const AttentionBatch<float>& b, bool backward)
      : out(b.out.rows(), b.out.cols()),
        lse(b.lse.rows(), b.lse.cols()),
        dq(b.q.rows(), b.q.cols()),
        dkv(b.kv.rows(), b.kv.cols()),
        dk_rope(b.k_rope.rows(), b.k_rope.cols()),
        b_(b),
        step_(b.precision == Precision::kBF16 ? 0x1p-8 : 0) {
    for (const AttentionSpan& s : b.shape.spans) {
      for (int h = 0; h < b.shape.dims.heads; ++h) {
        for (int i = 0; i < s.q_rows; ++i) {
          if (backward) {
            row_backward(s, h, i);
          } else {
            row_forward(s, h, i);
          }
        }
      }
    }
  }

 private:
  static constexpr double kU = 0x1p-24;
  // What flushed denormals may lose, per term.
  static constexpr double kTiny = 0x1p-125;

  double operand(float x) const {
    return b_.precision == Precision::kBF16 ? to_float(to_bf16(x)) : x;
  }
  double q(int row, int h, int c) const {
    const AttentionDims& d = b_.shape.dims;
    return operand(b_.q.at(row, h * (d.nope + d.rope) + c));
  }
  double k(int row, int h, int c) const {
    const AttentionDims& d = b_.shape.dims;
    return operand(c < d.nope ? b_.kv.at(row, h * (d.nope + d.value) + c)
                              : b_.k_rope.at(row, c - d.nope));
  }
  double v(int row, int h, int c) const {
    const AttentionDims& d = b_.shape.dims;
    return operand(b_.kv.at(row, h * (d.nope + d.value) + d.nope + c));
  }

  struct Score {
    double value, error;
  };
  Score score(const AttentionSpan& s, int h, int i, int j) const {
    const int width = b_.shape.dims.nope + b_.shape.dims.rope;
    double sum = 0, size = 0;
    for (int c = 0; c < width; ++c) {
      const double product = q(s.q_begin + i, h, c) * k(s.kv_begin + j, h, c);
      sum += product;
      size += std::abs(product);
    }
    const double scale = b_.scale;
    return {scale * sum, (width + 6) * kU * scale * size + kTiny};
  }

  void row_forward(const AttentionSpan& s, int h, int i) {
    const AttentionDims& d = b_.shape.dims;
    const int seen = s.kv_rows - s.q_rows + i + 1;
    std::vector<Score> scores;
    double max = -std::numeric_limits<double>::infinity(), error = 0;
    for (int j = 0; j < seen; ++j) {
      scores.push_back(score(s, h, i, j));
      max = std::max(max, scores.back().value);
      error = std::max(error, scores.back().error);
    }
    double total = 0;
    for (const Score& t : scores) total += std::exp(t.value - max);
    // Rescaling by the running maximum adds a factor per block of keys.
    const int blocks = seen / 64 + 1;
    const double relative = 2 * error + (seen + 16) * kU + 3.0 * blocks * kU;
    for (int c = 0; c < d.value; ++c) {
      double sum = 0, size = 0;
      for (int j = 0; j < seen; ++j) {
        const double p = std::exp(scores[static_cast<std::size_t>(j)].value - max) / total;
        sum += p * v(s.kv_begin + j, h, c);
        size += p * std::abs(v(s.kv_begin + j, h, c));
      }
      out.value.at(s.q_begin + i, h * d.value + c) = sum;
      out.bound.at(s.q_begin + i, h * d.value + c) = (2 * relative + step_) * size + seen * kTiny;
    }
    const double want = max + std::log(total);
    lse.value.at(s.q_begin + i, h) = want;
    lse.bound.at(s.q_begin + i, h) =
        error + relative + 4 * kU * (std::abs(want) + std::abs(max) + 1);
  }

  void row_backward(const AttentionSpan& s, int h, int i) {
    const AttentionDims& d = b_.shape.dims;
    const int row = s.q_begin + i, width = d.nope + d.rope;
    const int seen = s.kv_rows - s.q_rows + i + 1, n = s.kv_rows + 4;
    const double logsum = b_.lse.at(row, h), scale = b_.scale;
    double delta = 0, delta_size = 0;
    for (int c = 0; c < d.value; ++c) {
      const double x = double{b_.dout.at(row, h * d.value + c)} * b_.out.at(row, h * d.value + c);
      delta += x;
      delta_size += std::abs(x);
    }
    for (int j = 0; j < seen; ++j) {
      const int key = s.kv_begin + j;
      const Score t = score(s, h, i, j);
      const double p = std::exp(t.value - logsum);
      // The exponent is formed in base 2 from rounded terms: errors as large as they are.
      const double p_relative =
          t.error + 4 * kU * (std::abs(t.value) + std::abs(logsum)) + 8 * kU + step_;
      double dp = 0, dp_size = 0;
      for (int c = 0; c < d.value; ++c) {
        const double x = operand(b_.dout.at(row, h * d.value + c)) * v(key, h, c);
        dp += x;
        dp_size += std::abs(x);
      }
      const double ds = p * (dp - delta);
      const double ds_error = p * (d.value + 4) * kU * (dp_size + delta_size) +
                              std::abs(ds) * (p_relative + 4 * kU) + kTiny;
      for (int c = 0; c < d.value; ++c) {
        const double g = operand(b_.dout.at(row, h * d.value + c));
        const int at = h * (d.nope + d.value) + d.nope + c;
        dkv.value.at(key, at) += p * g;
        dkv.bound.at(key, at) += std::abs(p * g) * (p_relative + n * kU) + kTiny;
      }
      for (int c = 0; c < width; ++c) {
        add(dq, row, h * width + c, scale * ds * k(key, h, c),
            scale * std::abs(k(key, h, c)) * (ds_error + std::abs(ds) * n * kU) + kTiny);
        const double value = scale * ds * q(row, h, c);
        const double bound =
            scale * std::abs(q(row, h, c)) * (ds_error + std::abs(ds) * n * kU) + kTiny;
        if (c < d.nope) {
          add(dkv, key, h * (d.nope + d.value) + c, value, bound);
        } else {
          add(dk_rope, key, c - d.nope, value, bound + (d.heads + 2) * kU * std::abs(value));
        }
      }
    }
  }
  static void add(Bounded& b, int row, int col, double value, double bound) {
    b.value.at(row, col) += value;
    b.bound.at(row, col) += bound;
  }

  const AttentionBatch<float>& b_;
  const double step_;
};

// Every element within its bound (and the reference's own rounding to float).
inline void expect_within(const char* what, const Mat<float>& got, const Bounded& want) {
  ASSERT_EQ(got.size(), want.value.size()) << what;
  int wrong = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double value = want.value.data()[i];
    const double bound = want.bound.data()[i] + 0x1p-23 * std::abs(value);
    if (std::abs(got.data()[i] - value) <= bound || ++wrong > 3) continue;  // NaN is wrong, too
    ADD_FAILURE() << what << " element " << i / static_cast<std::size_t>(got.cols()) << ", "
                  << i % static_cast<std::size_t>(got.cols()) << " is " << got.data()[i]
                  << " but has to be " << value << " +- " << bound;
  }
  EXPECT_EQ(wrong, 0) << what;
}

}  // namespace cachalot::testing
