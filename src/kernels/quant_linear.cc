#include "kernels/quant_linear.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/shape_check.h"
#include "kernels/table.h"
#include "numeric/group_quant.h"

namespace cachalot {

namespace {

constexpr std::string_view kOp = "quant_linear";
constexpr int kTile = 128;  // of int8 activations

float element(const MatRef& m, int row, int col) noexcept {
  const std::ptrdiff_t at = row * m.stride + col;
  return m.dtype == DType::kBF16 ? to_float(static_cast<const Bf16*>(m.data)[at])
                                 : static_cast<const float*>(m.data)[at];
}

// One row of x as the products read it: bf16 values, or codes with a scale per tile.
struct Row {
  std::vector<float> values;
  std::vector<float> scales;

  Row(const QuantLinear& a, QuantActivations activations, int i) {
    const int k = a.k();
    values.resize(static_cast<std::size_t>(k));
    for (int j = 0; j < k; ++j) values[static_cast<std::size_t>(j)] = element(a.x, i, j);
    if (activations == QuantActivations::kBf16) {
      for (float& v : values) v = to_float(to_bf16(v));
      return;
    }
    for (int j = 0; j < k; j += kTile) {
      const auto n = static_cast<std::size_t>(std::min(kTile, k - j));
      const std::span<float> tile{values.data() + j, n};
      std::int8_t codes[kTile];
      scales.push_back(numeric::quantize_int8_tile(tile, codes));
      std::copy_n(codes, n, tile.begin());
    }
  }
};

// Codes of one output, as floats.
void decode_row(const QuantView& w, int row, std::vector<float>& out) {
  out.resize(static_cast<std::size_t>(w.cols));
  for (int j = 0; j < w.cols; ++j) {
    out[static_cast<std::size_t>(j)] = numeric::decode_code(w.code, w.row(row), j);
  }
}

float dot(const QuantView& w, int row, const std::vector<float>& codes, const Row& x) {
  float sum = 0;
  for (int k0 = 0; k0 < w.cols; k0 += w.group) {
    const int end = std::min(w.cols, k0 + w.group);
    float part = 0;
    for (int pair = k0; pair < end; pair += 2) {
      for (const int k : {pair + 1, pair}) {
        if (k >= end) continue;  // a padded zero changes no sum: none is -0
        const auto at = static_cast<std::size_t>(k);
        part += x.values[at] * codes[at];  // exact, in integers the whole sum
      }
    }
    const float scale = w.scale_at(row, k0);
    sum = std::fma(
        part, x.scales.empty() ? scale : x.scales[static_cast<std::size_t>(k0 / kTile)] * scale,
        sum);
  }
  return sum;
}

}  // namespace

void quant_linear_ref(const Context& ctx, QuantActivations activations,
                      std::span<const QuantLinear> problems) {
  for (const QuantLinear& a : problems) {
    std::vector<Row> rows;
    for (int i = 0; i < a.m(); ++i) rows.emplace_back(a, activations, i);
    ctx.for_range(a.n(), 16, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> codes;
      for (std::int64_t j = begin; j < end; ++j) {
        decode_row(a.w, static_cast<int>(j), codes);
        for (int i = 0; i < a.m(); ++i) {
          float& y = a.y.row(i)[j];
          const float sum = dot(a.w, static_cast<int>(j), codes, rows[static_cast<std::size_t>(i)]);
          y = a.accumulate ? y + sum : sum;
        }
      }
    });
  }
}

void check_shapes(QuantActivations activations, const QuantLinear& a) {
  require_shape(a.x.dtype == DType::kF32 || a.x.dtype == DType::kBF16, kOp, ": x is ",
                name(a.x.dtype), " but has to be F32 or BF16; convert it first");
  require_shape(a.w.rows == a.n() && a.w.cols == a.x.cols && a.x.rows == a.m(), kOp, ": x [",
                a.x.rows, ", ", a.x.cols, "] times w [", a.w.rows, ", ", a.w.cols,
                "]^T does not give y [", a.y.rows, ", ", a.y.cols, "]");
  require_shape(a.x.rows <= 1 || a.x.stride >= a.x.cols, kOp, ": rows of x lie ", a.x.stride,
                " elements apart but hold ", a.x.cols, "; the stride has to be at least that");
  require_shape(a.x.empty() || a.x.data != nullptr, kOp, ": x [", a.x.rows, ", ", a.x.cols,
                "] has no memory");
  require_size(kOp, "y", a.y, a.m(), a.n());
  require_shape(a.y.empty() || a.y.data != nullptr, kOp, ": y [", a.y.rows, ", ", a.y.cols,
                "] has no memory");
  const bool groups = a.w.group == 32 || a.w.group == 64 || a.w.group == 128;
  require_shape(groups && (a.w.code != QuantCode::kE4m3 || a.w.group == 128), kOp,
                ": w has groups of ", a.w.group,
                " columns but 32, 64 or 128 are needed, of E4M3 128; quantise it again");
  require_shape(activations == QuantActivations::kBf16 || a.w.code != QuantCode::kE4m3, kOp,
                ": int8 activations need int8 or int4 weights, but w is E4M3; quantise x to E4M3 "
                "and use gemm_fp8");
  if (a.w.empty()) return;
  require_shape(a.w.codes != nullptr && a.w.scales != nullptr, kOp, ": w [", a.w.rows, ", ",
                a.w.cols, "] has no memory for its ", a.w.codes == nullptr ? "codes" : "scales");
  require_shape(a.w.rows <= 1 || a.w.stride >= a.w.row_bytes(), kOp, ": rows of w lie ", a.w.stride,
                " bytes apart but hold ", a.w.row_bytes(), "; the stride has to be at least that");
  require_shape(a.w.scale_rows() <= 1 || a.w.scale_stride >= a.w.groups(), kOp,
                ": rows of the scales of w lie ", a.w.scale_stride, " apart but hold ",
                a.w.groups(), "; the stride has to be at least that");
}

bool quant_linear_is_fast(const Context& ctx) noexcept {
  return ctx.ops().quant_linear != quant_linear_ref;
}

void quant_linear(const Context& ctx, QuantActivations activations,
                  std::span<const QuantLinear> problems) {
  for (const QuantLinear& a : problems) check_shapes(activations, a);
  ctx.ops().quant_linear(ctx, activations, problems);
}

}  // namespace cachalot
