#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/shape_check.h"
#include "kernels/table.h"

namespace cachalot {

namespace {

// What enters a product: the value itself, or rounded to bf16.
double operand(double x, Precision precision) {
  return precision == Precision::kBF16 ? double{to_float(to_bf16(static_cast<float>(x)))} : x;
}

double number(double x) { return x; }
double number(Bf16 x) { return double{to_float(x)}; }

double dot(const double* x, const double* y, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

void axpy(double factor, const double* x, double* y, int n) {
  for (int i = 0; i < n; ++i) y[i] += factor * x[i];
}

// One head's rows of a span as doubles, already rounded as they enter the products.
class Rows {
 public:
  Rows(int rows, int width)
      : width_(width), values_(static_cast<std::size_t>(rows) * static_cast<std::size_t>(width)) {}
  double* row(int i) {
    return values_.data() + static_cast<std::size_t>(i) * static_cast<std::size_t>(width_);
  }
  const double* row(int i) const {
    return values_.data() + static_cast<std::size_t>(i) * static_cast<std::size_t>(width_);
  }
  // Columns [to, to + cols) from columns [from, ..) of rows [begin, ..) of m.
  template <class T>
  void take(MatView<const T> m, int begin, int rows, int from, int cols, int to,
            Precision precision) {
    for (int i = 0; i < rows; ++i) {
      const T* source = m.row(begin + i) + from;
      for (int j = 0; j < cols; ++j) row(i)[to + j] = operand(number(source[j]), precision);
    }
  }

 private:
  int width_;
  std::vector<double> values_;
};

// The operands of one (span, head): q and k as [rows, N + R], v as [rows, V].
struct HeadRows {
  Rows q, k, v;
  template <class Op>
  HeadRows(const Op& a, const AttentionSpan& s, int head)
      : q(s.q_rows, a.dims.nope + a.dims.rope),
        k(s.kv_rows, a.dims.nope + a.dims.rope),
        v(s.kv_rows, a.dims.value) {
    const AttentionDims& d = a.dims;
    const int kv_width = d.nope + d.value;
    const auto take = [&](Rows& to, const auto& from, const MatView<const Bf16>& half, int begin,
                          int rows, int col, int cols) {
      if (half.rows > 0) {
        to.take(half, begin, rows, col, cols, 0, a.precision);
      } else {
        to.take(from, begin, rows, col, cols, 0, a.precision);
      }
    };
    take(q, a.q, a.q_bf16, s.q_begin, s.q_rows, head * (d.nope + d.rope), d.nope + d.rope);
    take(k, a.kv, a.kv_bf16, s.kv_begin, s.kv_rows, head * kv_width, d.nope);
    k.take(a.k_rope, s.kv_begin, s.kv_rows, 0, d.rope, d.nope, a.precision);
    take(v, a.kv, a.kv_bf16, s.kv_begin, s.kv_rows, head * kv_width + d.nope, d.value);
  }
};

template <class Op, class Fn>
void for_each_head(const Context& ctx, const Op& a, Fn&& fn) {
  const std::int64_t heads = a.dims.heads;
  ctx.for_each(
      static_cast<std::int64_t>(a.spans.size()) * heads, /*grain=*/1, [&](std::int64_t task) {
        fn(a.spans[static_cast<std::size_t>(task / heads)], static_cast<int>(task % heads));
      });
}

}  // namespace

// Each row: its scores, their softmax, the weighted sum of values. Probabilities are exp(s - max):
// rounded where they meet the values, not in the sum that normalises them.
template <class T>
void attention_ref(const Context& ctx, const Attention<T>& a) {
  const int width = a.dims.nope + a.dims.rope, value = a.dims.value;
  for_each_head(ctx, a, [&](const AttentionSpan& s, int head) {
    const HeadRows rows(a, s, head);
    std::vector<double> p(static_cast<std::size_t>(s.kv_rows));
    std::vector<double> sum(static_cast<std::size_t>(value));
    for (int i = 0; i < s.q_rows; ++i) {
      const int seen = s.kv_rows - s.q_rows + i + 1;
      double max = -std::numeric_limits<double>::infinity();
      for (int j = 0; j < seen; ++j) {
        p[static_cast<std::size_t>(j)] = double{a.scale} * dot(rows.q.row(i), rows.k.row(j), width);
        max = std::max(max, p[static_cast<std::size_t>(j)]);
      }
      std::fill(sum.begin(), sum.end(), 0.0);
      double total = 0;
      for (int j = 0; j < seen; ++j) {
        const double e = std::exp(p[static_cast<std::size_t>(j)] - max);
        total += e;
        axpy(operand(e, a.precision), rows.v.row(j), sum.data(), value);
      }
      T* out = a.out.row(s.q_begin + i) + head * value;  // [V]
      for (int c = 0; c < value; ++c)
        out[c] = static_cast<T>(sum[static_cast<std::size_t>(c)] / total);
      if (a.lse.cols != 0) a.lse.at(s.q_begin + i, head) = static_cast<T>(max + std::log(total));
    }
  });
}

// With P = exp(scale S - lse), D = rowsum(dout * out) and dS = P * (dout V^T - D):
//   dV = P^T dout,  dQ = scale dS K,  dK = scale dS^T Q; the rope part of dK is summed over heads.
template <class T>
void attention_backward_ref(const Context& ctx, const AttentionBackward<T>& a) {
  const AttentionDims& d = a.dims;
  const int width = d.nope + d.rope, value = d.value;
  Mat<double> dk_rope(a.k_rope.rows, d.heads * d.rope);  // per head, summed below in head order
  for_each_head(ctx, a, [&](const AttentionSpan& s, int head) {
    const HeadRows rows(a, s, head);
    Rows dout(s.q_rows, value);
    dout.take(a.dout, s.q_begin, s.q_rows, head * value, value, 0, a.precision);
    Rows dk(s.kv_rows, width), dv(s.kv_rows, value);
    std::vector<double> dq(static_cast<std::size_t>(width));
    for (int i = 0; i < s.q_rows; ++i) {
      const T* out = a.out.row(s.q_begin + i) + head * value;
      const T* grad = a.dout.row(s.q_begin + i) + head * value;
      double delta = 0;
      for (int c = 0; c < value; ++c) delta += double{grad[c]} * double{out[c]};
      const double lse = double{a.lse.at(s.q_begin + i, head)};
      std::fill(dq.begin(), dq.end(), 0.0);
      for (int j = 0; j < s.kv_rows - s.q_rows + i + 1; ++j) {
        const double score = double{a.scale} * dot(rows.q.row(i), rows.k.row(j), width);
        const double p = std::exp(score - lse);
        const double dp = dot(dout.row(i), rows.v.row(j), value);
        const double ds = operand(p * (dp - delta), a.precision);
        axpy(operand(p, a.precision), dout.row(i), dv.row(j), value);
        axpy(ds, rows.k.row(j), dq.data(), width);
        axpy(ds, rows.q.row(i), dk.row(j), width);
      }
      T* dq_out = a.dq.row(s.q_begin + i) + head * width;
      for (int c = 0; c < width; ++c) {
        dq_out[c] = static_cast<T>(double{a.scale} * dq[static_cast<std::size_t>(c)]);
      }
    }
    for (int j = 0; j < s.kv_rows; ++j) {
      T* dkv = a.dkv.row(s.kv_begin + j) + head * (d.nope + value);  // [N + V]
      for (int c = 0; c < d.nope; ++c) dkv[c] = static_cast<T>(double{a.scale} * dk.row(j)[c]);
      for (int c = 0; c < value; ++c) dkv[d.nope + c] = static_cast<T>(dv.row(j)[c]);
      double* rope = dk_rope.row(s.kv_begin + j) + head * d.rope;
      for (int c = 0; c < d.rope; ++c) rope[c] = double{a.scale} * dk.row(j)[d.nope + c];
    }
  });
  for (const AttentionSpan& s : a.spans) {
    ctx.for_each(s.kv_rows, /*grain=*/16, [&](std::int64_t j) {
      for (int c = 0; c < d.rope; ++c) {
        double sum = 0;
        for (int h = 0; h < d.heads; ++h) sum += dk_rope.row(s.kv_begin + j)[h * d.rope + c];
        a.dk_rope.row(s.kv_begin + j)[c] = static_cast<T>(sum);
      }
    });
  }
}

template void attention_ref(const Context&, const Attention<float>&);
template void attention_ref(const Context&, const Attention<double>&);
template void attention_backward_ref(const Context&, const AttentionBackward<float>&);
template void attention_backward_ref(const Context&, const AttentionBackward<double>&);

namespace {

// Every span inside the rows there are, and none over another: tasks write without asking.
void check_spans(std::string_view op, std::span<const AttentionSpan> spans, int q_rows,
                 int kv_rows) {
  thread_local std::vector<std::pair<int, int>> q_ranges, kv_ranges;  // a step allocates nothing
  q_ranges.clear();
  kv_ranges.clear();
  for (std::size_t i = 0; i < spans.size(); ++i) {
    const AttentionSpan& s = spans[i];
    require_shape(
        s.q_begin >= 0 && s.q_rows >= 0 && s.q_begin <= q_rows && s.q_rows <= q_rows - s.q_begin,
        op, ": span ", i, " has ", s.q_rows, " queries from row ", s.q_begin, ", but q has ",
        q_rows, " rows; spans have to lie inside the batch");
    require_shape(s.kv_begin >= 0 && s.kv_rows >= s.q_rows && s.kv_begin <= kv_rows &&
                      s.kv_rows <= kv_rows - s.kv_begin,
                  op, ": span ", i, " has ", s.kv_rows, " keys from row ", s.kv_begin, " for ",
                  s.q_rows, " queries, but kv has ", kv_rows,
                  " rows; a span needs at least as many keys as queries, inside the batch");
    if (s.q_rows > 0) q_ranges.emplace_back(s.q_begin, s.q_begin + s.q_rows);
    if (s.kv_rows > 0) kv_ranges.emplace_back(s.kv_begin, s.kv_begin + s.kv_rows);
  }
  for (auto* ranges : {&q_ranges, &kv_ranges}) {
    std::sort(ranges->begin(), ranges->end());
    for (std::size_t i = 1; i < ranges->size(); ++i) {
      require_shape((*ranges)[i - 1].second <= (*ranges)[i].first, op, ": two spans share row ",
                    (*ranges)[i].first, "; every row belongs to one sequence");
    }
  }
}

template <class Op>
void check_inputs(std::string_view op, const Op& a) {
  const AttentionDims& d = a.dims;
  require_shape(d.heads > 0 && d.nope >= 0 && d.rope >= 0 && d.nope + d.rope > 0 && d.value > 0, op,
                ": ", d.heads, " heads of ", d.nope, " nope, ", d.rope, " rope and ", d.value,
                " value columns; heads, key and value columns have to be positive");
  require_shape(a.scale > 0, op, ": scale is ", a.scale,
                " but has to be positive: it is 1 / sqrt(nope + rope), times YaRN's factor");
  if (a.q_bf16.rows > 0) require_size(op, "q_bf16", a.q_bf16, a.q.rows, a.q.cols);
  if (a.kv_bf16.rows > 0) require_size(op, "kv_bf16", a.kv_bf16, a.kv.rows, a.kv.cols);
  require_size(op, "q", a.q, a.q.rows, d.heads * (d.nope + d.rope));
  require_size(op, "kv", a.kv, a.kv.rows, d.heads * (d.nope + d.value));
  require_size(op, "k_rope", a.k_rope, a.kv.rows, d.rope);
  require_size(op, "out", a.out, a.q.rows, d.heads * d.value);
  check_spans(op, a.spans, a.q.rows, a.kv.rows);
}

}  // namespace

void check_shapes(const Attention<float>& a) {
  constexpr std::string_view kOp = "attention";
  check_inputs(kOp, a);
  if (a.lse.cols != 0) require_size(kOp, "lse", a.lse, a.q.rows, a.dims.heads);
}

void check_shapes(const AttentionBackward<float>& a) {
  constexpr std::string_view kOp = "attention_backward";
  check_inputs(kOp, a);
  require_size(kOp, "lse", a.lse, a.q.rows, a.dims.heads);
  require_size(kOp, "dout", a.dout, a.q.rows, a.out.cols);
  require_size(kOp, "dq", a.dq, a.q.rows, a.q.cols);
  require_size(kOp, "dkv", a.dkv, a.kv.rows, a.kv.cols);
  require_size(kOp, "dk_rope", a.dk_rope, a.kv.rows, a.dims.rope);
}

void attention(const Context& ctx, const Attention<float>& a) {
  check_shapes(a);
  ctx.ops().attention(ctx, a);
}

void attention_backward(const Context& ctx, const AttentionBackward<float>& a) {
  check_shapes(a);
  ctx.ops().attention_backward(ctx, a);
}

}  // namespace cachalot
