#include "kernels/fp8.h"

#include <cstring>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/shape_check.h"
#include "kernels/table.h"
#include "numeric/small_float.h"

namespace cachalot {

namespace {

std::string_view name(ScaleTile tile) noexcept {
  switch (tile) {
    case ScaleTile::kRow:
      return "1 x 128";
    case ScaleTile::kColumn:
      return "128 x 1";
    case ScaleTile::kBlock:
      return "128 x 128";
    case ScaleTile::kTensor:
      return "the whole matrix";
  }
  return "1 x 128";
}

// Quantises rows [row, row + x.rows), which begin and end where tiles do.
void quantize_rows(MatView<const float> x, numeric::ScaleKind kind, const Fp8Out& out, int row) {
  const bool one_row = out.tile == ScaleTile::kRow;
  const bool one_column = out.tile == ScaleTile::kColumn;
  const bool whole = out.tile == ScaleTile::kTensor;
  const int block_rows = whole ? x.rows : one_row ? 1 : kScaleTileSize;
  const int block_cols = whole ? x.cols : one_column ? 1 : kScaleTileSize;
  const MatView<float> scales{out.scale_row(whole ? 0 : row / block_rows),
                              numeric::blocks_of(x.rows, block_rows), scale_cols(out.tile, x.cols),
                              out.scale_stride};
  numeric::quantize_blocks(x, kind, {out.row(row), x.rows, x.cols, out.stride}, scales, block_rows,
                           block_cols);
}

// `rows(begin, count, float* to)` gives the values; runs of rows that hold whole tiles.
template <class Rows>
void quantize_any(const Context& ctx, int rows, int cols, numeric::ScaleKind kind,
                  const Fp8Out& out, const Rows& rows_of) {
  if (rows == 0 || cols == 0) return;
  const int run = out.tile == ScaleTile::kTensor ? rows : kScaleTileSize;
  ctx.for_each((rows + run - 1) / run, /*grain=*/1, [&](std::int64_t i) {
    const int begin = static_cast<int>(i) * run;
    Mat<float> x(std::min(run, rows - begin), cols);
    rows_of(begin, x.view());
    quantize_rows(x.cview(), kind, out, begin);
  });
}

float value(const Fp8View& x, int i, int j) {
  return numeric::decode_e4m3(x.row(i)[j]) * x.scale_at(i, j);
}

void copy_rows(const MatRef& x, int begin, MatView<float> to) {
  for (int i = 0; i < to.rows; ++i) {
    for (int j = 0; j < to.cols; ++j) {
      const std::ptrdiff_t at = (begin + i) * x.stride + j;
      to.at(i, j) = x.dtype == DType::kBF16 ? to_float(static_cast<const Bf16*>(x.data)[at])
                                            : static_cast<const float*>(x.data)[at];
    }
  }
}

// Rows [begin, end) of C.
void product_rows(const Fp8Gemm& g, int begin, int end) {
  const int n = g.n();
  const int k = g.k();
  std::vector<float> part(static_cast<std::size_t>(n));
  std::vector<float> sum(static_cast<std::size_t>(n));
  for (int i = begin; i < end; ++i) {
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (int k0 = 0; k0 < k; k0 += kScaleTileSize) {
      std::fill(part.begin(), part.end(), 0.0f);
      const int steps = (std::min(kScaleTileSize, k - k0) + 1) / 2 * 2;
      for (int step = 0; step < steps; ++step) {
        const int kk = k0 + (step ^ 1);  // the odd one of a pair first
        if (kk >= k) continue;           // a padded zero changes no sum: none is -0
        const float a = numeric::decode_e4m3(g.trans_a ? g.a.row(kk)[i] : g.a.row(i)[kk]);
        for (int j = 0; j < n; ++j) {
          const float b = numeric::decode_e4m3(g.trans_b ? g.b.row(j)[kk] : g.b.row(kk)[j]);
          part[static_cast<std::size_t>(j)] += a * b;  // 8 bits: the product is exact
        }
      }
      const float scale_a = g.trans_a ? g.a.scale_at(k0, i) : g.a.scale_at(i, k0);
      for (int j = 0; j < n; ++j) {
        const float scale_b = g.trans_b ? g.b.scale_at(j, k0) : g.b.scale_at(k0, j);
        float& s = sum[static_cast<std::size_t>(j)];
        s = std::fma(part[static_cast<std::size_t>(j)], scale_a * scale_b, s);
      }
    }
    float* c = g.c.row(i);
    for (int j = 0; j < n; ++j) {
      const float s = sum[static_cast<std::size_t>(j)];
      c[j] = g.accumulate ? c[j] + s : s;
    }
  }
}

// Along the summed dimension one scale has to cover 128 elements, or all.
void require_tile(std::string_view operand, const Fp8View& m, bool k_is_row) {
  const ScaleTile bad = k_is_row ? ScaleTile::kRow : ScaleTile::kColumn;
  require_shape(m.tile != bad, "gemm_fp8: ", operand, " [", m.rows, ", ", m.cols, "]",
                k_is_row ? " is summed over its rows" : " is summed along its rows",
                " but has tiles of ", name(m.tile), "; quantise it in tiles of ",
                name(k_is_row ? ScaleTile::kColumn : ScaleTile::kRow), " or 128 x 128");
}

}  // namespace

void quantize_fp8_ref(const Context& ctx, std::span<const QuantizeFp8> jobs) {
  for (const QuantizeFp8& a : jobs) {
    const auto rows_of = [&](int begin, MatView<float> to) { copy_rows(a.x, begin, to); };
    quantize_any(ctx, a.x.rows, a.x.cols, a.kind, a.out, rows_of);
    if (!a.also.empty()) quantize_any(ctx, a.x.rows, a.x.cols, a.kind, a.also, rows_of);
  }
}

void requantize_fp8_ref(const Context& ctx, std::span<const RequantizeFp8> jobs) {
  for (const RequantizeFp8& a : jobs) {
    quantize_any(ctx, a.x.rows, a.x.cols, a.kind, a.out, [&](int begin, MatView<float> to) {
      for (int i = 0; i < to.rows; ++i) {
        for (int j = 0; j < to.cols; ++j) to.at(i, j) = value(a.x, begin + i, j);
      }
    });
  }
}

void dequantize_fp8_ref(const Context& ctx, const DequantizeFp8& a) {
  ctx.for_each(a.x.rows, /*grain=*/1, [&](std::int64_t row) {
    const int i = static_cast<int>(row);
    for (int j = 0; j < a.x.cols; ++j) {
      const float x = value(a.x, i, j);
      if (!a.out.empty()) a.out.at(i, j) = x;
      if (!a.half.empty()) a.half.at(i, j) = to_bf16(x);
    }
  });
}

void gather_codes_ref(const Context& ctx, const GatherCodes& a) {
  const auto scale_bytes =
      static_cast<std::size_t>(scale_cols(a.out.tile, a.out.cols)) * sizeof(float);
  ctx.for_each(a.out.rows, /*grain=*/64, [&](std::int64_t i) {
    const auto row = a.rows[static_cast<std::size_t>(i)];
    std::memcpy(a.out.row(i), a.x.row(row), static_cast<std::size_t>(a.out.cols));
    std::memcpy(a.out.scale_row(i), a.x.scale_row(row), scale_bytes);
  });
}
void gather_codes(const Context& ctx, const GatherCodes& a) {
  require_shape(a.x.tile == ScaleTile::kRow && a.out.tile == ScaleTile::kRow,
                "gather_codes: tiles have to lie along rows");
  require_size("gather_codes", "out", a.out, static_cast<int>(a.rows.size()), a.x.cols);
  require_range("gather_codes", "rows", a.rows, 0, a.x.rows);
  ctx.ops().gather_codes(ctx, a);
}

void gemm_fp8_ref(const Context& ctx, std::span<const Fp8Gemm> problems) {
  for (const Fp8Gemm& g : problems) {
    ctx.for_range(g.m(), 4, [&](std::int64_t begin, std::int64_t end) {
      product_rows(g, static_cast<int>(begin), static_cast<int>(end));
    });
  }
}

void require_fp8(std::string_view op, std::string_view operand, const Fp8View& m, int rows,
                 int cols, bool may_be_transposed) {
  if (m.transposed) {
    require_shape(may_be_transposed && m.tile != ScaleTile::kRow, op, ": ", operand, " [", m.rows,
                  ", ", m.cols, "] in tiles of ", name(m.tile),
                  " has transposed codes; give it rows of codes");
    require_shape(m.rows == rows && m.cols == cols && (m.cols <= 1 || m.stride >= m.rows), op, ": ",
                  operand, " is [", m.rows, ", ", m.cols, "] with columns ", m.stride,
                  " apart but has to be [", rows, ", ", cols, "]");
  } else {
    require_size(op, operand, m, rows, cols);
  }
  if (m.empty()) return;
  require_shape(m.codes != nullptr && m.scales != nullptr, op, ": ", operand, " [", m.rows, ", ",
                m.cols, "] has no memory for its ", m.codes == nullptr ? "codes" : "scales",
                "; give it some");
  const int tiles = scale_rows(m.tile, m.rows);
  const int width = scale_cols(m.tile, m.cols);
  require_shape(tiles <= 1 || m.scale_stride >= width, op, ": scales of ", operand, " are [", tiles,
                ", ", width, "] but their rows lie ", m.scale_stride,
                " apart; the stride has to cover a row");
}

void require_device(const Context& ctx, std::string_view op, bool asks_for_it) {
  require_shape(!asks_for_it || ctx.device != nullptr, op,
                ": transposed codes and bf16 beside codes are for devices, but operands lie with "
                "the host; give it rows of codes, and floats");
}

void check_shapes(const QuantizeFp8& a) {
  constexpr std::string_view kOp = "quantize_fp8";
  require_shape(a.x.dtype == DType::kF32 || a.x.dtype == DType::kBF16, kOp, ": x is ",
                cachalot::name(a.x.dtype), " but has to be F32 or BF16; convert it first");
  require_shape(a.x.rows <= 1 || a.x.stride >= a.x.cols, kOp, ": rows of x lie ", a.x.stride,
                " elements apart but hold ", a.x.cols, "; the stride has to be at least that");
  require_shape(a.x.empty() || a.x.data != nullptr, kOp, ": x [", a.x.rows, ", ", a.x.cols,
                "] has no memory");
  require_fp8(kOp, "out", a.out, a.x.rows, a.x.cols, true);
  if (!a.also.empty()) require_fp8(kOp, "also", a.also, a.x.rows, a.x.cols, true);
}

void check_shapes(const RequantizeFp8& a) {
  constexpr std::string_view kOp = "requantize_fp8";
  require_fp8(kOp, "x", a.x, a.x.rows, a.x.cols);
  require_fp8(kOp, "out", a.out, a.x.rows, a.x.cols, true);
}

void check_shapes(const DequantizeFp8& a) {
  constexpr std::string_view kOp = "dequantize_fp8";
  require_fp8(kOp, "x", a.x, a.x.rows, a.x.cols);
  if (!a.out.empty() || a.half.empty()) require_size(kOp, "out", a.out, a.x.rows, a.x.cols);
  if (!a.half.empty()) require_size(kOp, "half", a.half, a.x.rows, a.x.cols);
}

void check_shapes(const Fp8Gemm& g) {
  constexpr std::string_view kOp = "gemm_fp8";
  require_fp8(kOp, "a", g.a, g.a.rows, g.a.cols, true);
  require_fp8(kOp, "b", g.b, g.b.rows, g.b.cols, true);
  const int a_m = g.trans_a ? g.a.cols : g.a.rows;
  const int a_k = g.trans_a ? g.a.rows : g.a.cols;
  const int b_k = g.trans_b ? g.b.cols : g.b.rows;
  const int b_n = g.trans_b ? g.b.rows : g.b.cols;
  require_shape(a_m == g.c.rows && b_n == g.c.cols && a_k == b_k, kOp, ": a [", g.a.rows, ", ",
                g.a.cols, "]", g.trans_a ? "^T" : "", " times b [", g.b.rows, ", ", g.b.cols, "]",
                g.trans_b ? "^T" : "", " does not give c [", g.c.rows, ", ", g.c.cols, "]");
  const bool half = g.c_bf16.rows > 0;
  require_shape(
      !half || (!g.accumulate && g.c_bf16.rows == g.c.rows && g.c_bf16.cols == g.c.cols &&
                g.c_bf16.data != nullptr && (g.c.rows == 1 || g.c_bf16.stride >= g.c.cols)),
      kOp, ": c_bf16 is [", g.c_bf16.rows, ", ", g.c_bf16.cols, "] with stride ", g.c_bf16.stride,
      g.accumulate ? ", added to," : "", " for c [", g.c.rows, ", ", g.c.cols,
      "]; it has to be as large, and written once");
  require_shape(
      half || g.c.empty() || (g.c.data != nullptr && (g.c.rows == 1 || g.c.stride >= g.c.cols)),
      kOp, ": c is [", g.c.rows, ", ", g.c.cols, "] with stride ", g.c.stride,
      "; it needs memory and a stride that covers a row");
  require_tile("a", g.a, g.trans_a);
  require_tile("b", g.b, !g.trans_b);
}

void quantize_fp8(const Context& ctx, std::span<const QuantizeFp8> jobs) {
  for (const QuantizeFp8& a : jobs) {
    check_shapes(a);
    require_device(ctx, "quantize_fp8", a.out.transposed || a.also.transposed);
  }
  ctx.ops().quantize_fp8(ctx, jobs);
}

void requantize_fp8(const Context& ctx, std::span<const RequantizeFp8> jobs) {
  for (const RequantizeFp8& a : jobs) {
    check_shapes(a);
    require_device(ctx, "requantize_fp8", a.out.transposed);
  }
  ctx.ops().requantize_fp8(ctx, jobs);
}

void dequantize_fp8(const Context& ctx, const DequantizeFp8& a) {
  check_shapes(a);
  ctx.ops().dequantize_fp8(ctx, a);
}

void gemm_fp8(const Context& ctx, std::span<const Fp8Gemm> problems) {
  for (const Fp8Gemm& g : problems) {
    check_shapes(g);
    require_device(ctx, "gemm_fp8", g.a.transposed || g.b.transposed || g.c_bf16.rows > 0);
  }
  ctx.ops().gemm_fp8(ctx, problems);
}

}  // namespace cachalot
