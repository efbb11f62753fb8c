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
    const QuantView::Place place = w.place_of(row, j);
    out[static_cast<std::size_t>(j)] = numeric::decode_code(w.code, place.at, place.index);
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

// What a view gives out as constant is the packer's to fill.
std::uint8_t* writable(const std::uint8_t* p) { return const_cast<std::uint8_t*>(p); }

// 16 rows; what W lacks there is zero, and no scale is used of it.
void pack_block(const QuantView& from, const QuantView& to, int block) {
  constexpr int kRows = QuantView::kPanelRows;
  const int first = block * kRows;
  const std::uint8_t zero = from.code == QuantCode::kE4m3   ? 0x00
                            : from.code == QuantCode::kInt8 ? 0x80
                                                            : 0x88;
  std::fill_n(writable(to.row(first)), to.stride, zero);
  if (from.code != QuantCode::kE4m3) {
    auto* scales = const_cast<Bf16*>(static_cast<const Bf16*>(to.scales)) + block * to.scale_stride;
    std::fill_n(scales, to.scale_stride, Bf16{});
    for (int r = 0; r < std::min(kRows, from.rows - first); ++r) {
      const Bf16* row = static_cast<const Bf16*>(from.scales) + (first + r) * from.scale_stride;
      for (int g = 0; g < from.groups(); ++g) scales[g * kRows + r] = row[g];
    }
  }
  for (int r = 0; r < std::min(kRows, from.rows - first); ++r) {
    for (int j = 0; j < from.cols; ++j) {
      const QuantView::Place place = to.place_of(first + r, j);
      const std::uint8_t* src = from.row(first + r);
      if (from.code != QuantCode::kInt4) {
        writable(place.at)[place.index] = src[j];
        continue;
      }
      const int value = src[j / 2] >> (j % 2 * 4) & 15;
      std::uint8_t& byte = writable(place.at)[place.index / 2];
      const int shift = place.index % 2 * 4;
      byte = static_cast<std::uint8_t>((byte & ~(15 << shift)) | value << shift);
    }
  }
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
  if (a.w.panels) {
    const std::ptrdiff_t bytes = a.w.panel_tiles() * a.w.panel_bytes();
    require_shape(a.w.rows <= QuantView::kPanelRows || a.w.stride >= bytes, kOp,
                  ": panels of w lie ", a.w.stride, " bytes apart but hold ", bytes,
                  "; the stride has to be at least that");
    return;
  }
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
  bool panels = false;
  for (const QuantLinear& a : problems) {
    check_shapes(activations, a);
    panels |= a.w.panels;
  }
  const bool reads = !panels || quant_panels_are_fast(ctx);
  (reads ? ctx.ops().quant_linear : quant_linear_ref)(ctx, activations, problems);
}

QuantView panels_of(const QuantView& from) {
  constexpr int kCols = QuantView::kPanelCols;
  QuantView to = from;
  to.panels = true;
  to.codes = nullptr;
  to.stride = from.panel_tiles() * from.panel_bytes();
  if (from.code != QuantCode::kE4m3) {
    to.scales = nullptr;
    to.scale_stride =
        std::ptrdiff_t{from.panel_tiles()} * (kCols / from.group) * QuantView::kPanelRows;
  }
  return to;
}

void pack_quant_ref(const Context& ctx, std::span<const PackQuant> jobs) {
  constexpr int kRows = QuantView::kPanelRows;
  for (const PackQuant& job : jobs) {
    const QuantView &from = job.from, &to = job.to;
    const int blocks = (from.rows + kRows - 1) / kRows;
    ctx.for_range(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t b = begin; b < end; ++b) pack_block(from, to, static_cast<int>(b));
    });
  }
}

void pack_quant(const Context& ctx, std::span<const PackQuant> jobs) {
  for (const PackQuant& job : jobs) {
    require_shape(!job.from.panels && job.to.panels && job.from.rows == job.to.rows &&
                      job.from.cols == job.to.cols && job.from.first_row == 0,
                  "pack_quant", ": weights [", job.from.rows, ", ", job.from.cols, "] into [",
                  job.to.rows, ", ", job.to.cols,
                  "]; rows are packed into panels of the same shape, from the first row on");
    require_shape(job.from.empty() || (job.to.codes != nullptr && job.to.scales != nullptr),
                  "pack_quant", ": the panels have no memory for their ",
                  job.to.codes == nullptr ? "codes" : "scales");
  }
  ctx.ops().pack_quant(ctx, jobs);
}

bool quant_panels_are_fast(const Context& ctx) noexcept {
  return ctx.ops().pack_quant != pack_quant_ref;
}

}  // namespace cachalot
