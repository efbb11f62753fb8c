#include "kernels/elementwise.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/shape_check.h"
#include "kernels/table.h"

namespace cachalot {

static double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

template <class T>
void swiglu_ref(const Context& ctx, const Swiglu<T>& a) {
  ctx.for_each(a.out.rows, /*grain=*/1, [&](std::int64_t t) {
    const T* gate = a.gate.row(t);
    const T* up = a.up.row(t);
    T* out = a.out.row(t);
    for (int j = 0; j < a.out.cols; ++j) {
      const double g = double{gate[j]};
      out[j] = static_cast<T>(g * sigmoid(g) * double{up[j]});
    }
  });
}

// silu'(g) = s (1 + g (1 - s)) with s = sigmoid(g).
template <class T>
void swiglu_backward_ref(const Context& ctx, const SwigluBackward<T>& a) {
  ctx.for_each(a.dout.rows, /*grain=*/1, [&](std::int64_t t) {
    const T* gate = a.gate.row(t);
    const T* up = a.up.row(t);
    const T* dout = a.dout.row(t);
    T* dgate = a.dgate.row(t);
    T* dup = a.dup.row(t);
    const double weight = a.weight.empty() ? 1.0 : double{a.weight[static_cast<std::size_t>(t)]};
    double dweight = 0;
    for (int j = 0; j < a.dout.cols; ++j) {
      const double g = double{gate[j]}, u = double{up[j]}, d = double{dout[j]};
      const double s = sigmoid(g);
      const double hidden = g * s * u;
      dweight += d * hidden;
      dgate[j] = static_cast<T>(weight * d * u * s * (1 + g * (1 - s)));
      dup[j] = static_cast<T>(weight * d * g * s);
      if (a.hidden.rows > 0) a.hidden.row(t)[j] = static_cast<T>(weight * hidden);
    }
    if (!a.dweight.empty()) a.dweight[static_cast<std::size_t>(t)] = static_cast<T>(dweight);
  });
}

void embedding_ref(const Context& ctx, const Embedding& a) {
  ctx.for_each(a.out.rows, /*grain=*/16, [&](std::int64_t t) {
    const auto id = a.ids[static_cast<std::size_t>(t)];
    float* out = a.out.row(t);
    if (a.table.dtype == DType::kF32) {
      std::copy_n(a.table.as<float>().row(id), a.out.cols, out);
    } else {
      const Bf16* row = a.table.as<Bf16>().row(id);
      for (int j = 0; j < a.out.cols; ++j) out[j] = to_float(row[j]);
    }
  });
}

template <class T>
void embedding_backward_ref(const Context& ctx, const EmbeddingBackward<T>& a) {
  // Columns are split, not tokens: an id may come twice, and its sum has the order of t.
  ctx.for_range(a.dout.cols, /*grain=*/64, [&](std::int64_t begin, std::int64_t end) {
    for (int t = 0; t < a.dout.rows; ++t) {
      const T* dout = a.dout.row(t);
      T* row = a.dtable.row(a.ids[static_cast<std::size_t>(t)]);
      for (std::int64_t j = begin; j < end; ++j) row[j] += dout[j];
    }
  });
}

template <class T>
double sum_squares_ref(const Context& ctx, std::span<const T> x) {
  constexpr std::size_t kBlock = 4096;
  std::vector<double> sums((x.size() + kBlock - 1) / kBlock);
  ctx.for_each(static_cast<std::int64_t>(sums.size()), /*grain=*/4, [&](std::int64_t b) {
    const auto begin = static_cast<std::size_t>(b) * kBlock;
    double sum = 0;
    for (std::size_t i = begin; i < std::min(begin + kBlock, x.size()); ++i) {
      sum += double{x[i]} * double{x[i]};
    }
    sums[static_cast<std::size_t>(b)] = sum;
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

template void swiglu_ref(const Context&, const Swiglu<float>&);
template void swiglu_ref(const Context&, const Swiglu<double>&);
template void swiglu_backward_ref(const Context&, const SwigluBackward<float>&);
template void swiglu_backward_ref(const Context&, const SwigluBackward<double>&);
template void embedding_backward_ref(const Context&, const EmbeddingBackward<float>&);
template void embedding_backward_ref(const Context&, const EmbeddingBackward<double>&);
template double sum_squares_ref(const Context&, std::span<const float>);
template double sum_squares_ref(const Context&, std::span<const double>);

void copy_rows_ref(const Context& ctx, MatView<const float> x, MatView<float> out) {
  ctx.for_each(x.rows, /*grain=*/64,
               [&](std::int64_t i) { std::copy_n(x.row(i), x.cols, out.row(i)); });
}
void zero_rows_ref(const Context& ctx, MatView<float> out) {
  ctx.for_each(out.rows, /*grain=*/64,
               [&](std::int64_t i) { std::fill_n(out.row(i), out.cols, 0.0F); });
}
void scale_rows_ref(const Context& ctx, const ScaleRows& a) {
  ctx.for_each(a.x.rows, /*grain=*/64, [&](std::int64_t i) {
    const float weight = a.weight[static_cast<std::size_t>(i)];
    for (int j = 0; j < a.x.cols; ++j) a.x.row(i)[j] *= weight;
  });
}
void scale_rows(const Context& ctx, const ScaleRows& a) {
  require_length("scale_rows", "weight", a.weight, static_cast<std::size_t>(a.x.rows));
  ctx.ops().scale_rows(ctx, a);
}

void copy_heads_ref(const Context& ctx, const CopyHeads& a) {
  ctx.for_each(a.x.rows, /*grain=*/16, [&](std::int64_t i) {
    for (int h = 0; h < a.heads; ++h) {
      std::copy_n(a.x.row(i) + h * a.x_stride + a.x_offset, a.cols,
                  a.out.row(i) + h * a.out_stride + a.out_offset);
    }
  });
}
void copy_heads(const Context& ctx, const CopyHeads& a) {
  require_size("copy_heads", "x", a.x, a.x.rows, a.heads * a.x_stride);
  require_size("copy_heads", "out", a.out, a.x.rows, a.heads * a.out_stride);
  require_shape(a.x_offset + a.cols <= a.x_stride && a.out_offset + a.cols <= a.out_stride,
                "copy_heads: columns of a head lie outside it");
  ctx.ops().copy_heads(ctx, a);
}

void rotate_heads_ref(const Context& ctx, const RotateHeads& a) {
  const CopyHeads& c = a.copy;
  ctx.ops().copy_heads(ctx, c);
  ctx.ops().rope(ctx, {c.out, c.heads, c.out_stride, c.out_offset, a.cos, a.sin, false});
}

void rotate_heads(const Context& ctx, const RotateHeads& a) {
  constexpr std::string_view kOp = "rotate_heads";
  const CopyHeads& c = a.copy;
  require_size(kOp, "x", c.x, c.x.rows, c.heads * c.x_stride);
  require_size(kOp, "out", c.out, c.x.rows, c.heads * c.out_stride);
  require_size(kOp, "cos", a.cos, c.x.rows, c.cols / 2);
  require_size(kOp, "sin", a.sin, c.x.rows, c.cols / 2);
  require_shape(c.x_offset + c.cols <= c.x_stride && c.out_offset + c.cols <= c.out_stride, kOp,
                ": columns of a head lie outside it");
  ctx.ops().rotate_heads(ctx, a);
}

void copy_rows(const Context& ctx, MatView<const float> x, MatView<float> out) {
  require_size("copy_rows", "out", out, x.rows, x.cols);
  ctx.ops().copy_rows(ctx, x, out);
}
void zero_rows(const Context& ctx, MatView<float> out) { ctx.ops().zero_rows(ctx, out); }

void check_shapes(const Swiglu<float>& a) {
  require_size("swiglu", "up", a.up, a.gate.rows, a.gate.cols);
  require_size("swiglu", "out", a.out, a.gate.rows, a.gate.cols);
}

void check_shapes(const SwigluBackward<float>& a) {
  constexpr std::string_view kOp = "swiglu_backward";
  require_size(kOp, "up", a.up, a.gate.rows, a.gate.cols);
  require_size(kOp, "dout", a.dout, a.gate.rows, a.gate.cols);
  require_size(kOp, "dgate", a.dgate, a.gate.rows, a.gate.cols);
  require_size(kOp, "dup", a.dup, a.gate.rows, a.gate.cols);
  const auto rows = static_cast<std::size_t>(a.gate.rows);
  require_shape(a.weight.empty() || a.weight.size() == rows, kOp, ": ", a.weight.size(),
                " weights for ", rows, " rows; give one for each, or none");
  require_shape(a.dweight.empty() || a.dweight.size() == rows, kOp, ": room for ", a.dweight.size(),
                " gradients of weights of ", rows, " rows; give one for each");
  if (a.hidden.rows > 0) require_size(kOp, "hidden", a.hidden, a.gate.rows, a.gate.cols);
}

void check_shapes(const Embedding& a) {
  require_shape(a.table.dtype == DType::kF32 || a.table.dtype == DType::kBF16,
                "embedding: the table is ", name(a.table.dtype),
                " but has to be F32 or BF16; convert it first");
  require_size("embedding", "out", a.out, static_cast<int>(a.ids.size()), a.table.cols);
  require_range("embedding", "ids", a.ids, 0, a.table.rows);
}

void check_shapes(const EmbeddingBackward<float>& a) {
  constexpr std::string_view kOp = "embedding_backward";
  require_size(kOp, "dout", a.dout, static_cast<int>(a.ids.size()), a.dtable.cols);
  require_range(kOp, "ids", a.ids, 0, a.dtable.rows);
}

void swiglu(const Context& ctx, const Swiglu<float>& a) {
  check_shapes(a);
  ctx.ops().swiglu(ctx, a);
}

void swiglu_backward(const Context& ctx, const SwigluBackward<float>& a) {
  check_shapes(a);
  ctx.ops().swiglu_backward(ctx, a);
}

void embedding(const Context& ctx, const Embedding& a) {
  check_shapes(a);
  ctx.ops().embedding(ctx, a);
}

void embedding_backward(const Context& ctx, const EmbeddingBackward<float>& a) {
  check_shapes(a);
  ctx.ops().embedding_backward(ctx, a);
}

double sum_squares(const Context& ctx, std::span<const float> x) {
  return ctx.ops().sum_squares(ctx, x);
}

}  // namespace cachalot
