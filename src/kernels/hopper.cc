#include "kernels/hopper.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "kernels/shape_check.h"
#include "kernels/table.h"
#include "numeric/hopper.h"

namespace cachalot {

namespace {

using Codes = std::vector<std::uint8_t>;

// Line `i` of an operand along K: a row, or a column where K runs over the rows.
void line(const Fp8View& m, bool k_is_row, int i, Codes& codes, std::vector<float>& scales) {
  const int k = k_is_row ? m.rows : m.cols;
  codes.resize(static_cast<std::size_t>(k));
  scales.resize(static_cast<std::size_t>((k + kScaleTileSize - 1) / kScaleTileSize));
  for (int kk = 0; kk < k; ++kk) {
    codes[static_cast<std::size_t>(kk)] = k_is_row ? m.row(kk)[i] : m.row(i)[kk];
  }
  for (std::size_t b = 0; b < scales.size(); ++b) {
    const int k0 = static_cast<int>(b) * kScaleTileSize;
    scales[b] = k_is_row ? m.scale_at(k0, i) : m.scale_at(i, k0);
  }
}

struct Line {
  Codes codes;
  std::vector<float> scales;
};

float element(const Line& a, const Line& b, int interval) {
  const auto k = static_cast<int>(a.codes.size());
  float sum = 0, held = 0, scale = 0;
  bool promoted = true;  // nothing in the register
  for (int k0 = 0; k0 < k; k0 += numeric::kHopperGroup) {
    if (k0 % kScaleTileSize == 0) {
      const auto block = static_cast<std::size_t>(k0 / kScaleTileSize);
      const float next = a.scales[block] * b.scales[block];
      if (!promoted) held *= scale / next;
      scale = next;
    }
    const auto begin = static_cast<std::size_t>(k0);
    const auto n = static_cast<std::size_t>(std::min(numeric::kHopperGroup, k - k0));
    held = numeric::hopper_step(held, std::span(a.codes).subspan(begin, n),
                                std::span(b.codes).subspan(begin, n));
    promoted = interval != 0 && (k0 + numeric::kHopperGroup) % interval == 0;
    if (promoted) {
      sum = std::fma(held, scale, sum);
      held = 0;
    }
  }
  return promoted ? sum : std::fma(held, scale, sum);
}

void check_interval(int interval) {
  if (interval < 0 || interval % numeric::kHopperGroup != 0) {
    throw Error(Code::kUsage,
                cat("gemm_fp8_hopper: promotion every ", interval,
                    " elements of K; the tensor core takes ", numeric::kHopperGroup,
                    " at a time, so it has to be a multiple of that, or 0 for never."));
  }
}

// Where the register outlives a block, ratios of scales have to be exact.
void check_scales(const char* operand, const Fp8View& m, bool k_is_row, int interval) {
  const bool within_a_block = interval != 0 && kScaleTileSize % interval == 0;
  const int k = k_is_row ? m.rows : m.cols;
  if (within_a_block || m.tile == ScaleTile::kTensor || k <= kScaleTileSize) return;
  for (int i = 0; i < scale_rows(m.tile, m.rows); ++i) {
    for (int j = 0; j < scale_cols(m.tile, m.cols); ++j) {
      const float scale = m.scale_row(i)[j];
      const bool power = (std::bit_cast<std::uint32_t>(scale) & 0x7FFFFFu) == 0;
      require_shape(power || !std::isfinite(scale), "gemm_fp8_hopper: ", operand,
                    " has a scale of ", scale, ", but with promotion ",
                    interval == 0 ? cat("never") : cat("every ", interval),
                    " the register crosses blocks of 128, and scales have to be powers of two; "
                    "quantise with ScaleKind::kPow2, or promote every 128");
    }
  }
}

}  // namespace

void gemm_fp8_hopper_ref(const Context& ctx, int interval, std::span<const Fp8Gemm> problems) {
  for (const Fp8Gemm& g : problems) {
    std::vector<Line> columns(static_cast<std::size_t>(g.n()));
    ctx.for_each(g.n(), 16, [&](std::int64_t j) {
      Line& column = columns[static_cast<std::size_t>(j)];
      line(g.b, !g.trans_b, static_cast<int>(j), column.codes, column.scales);
    });
    ctx.for_each(g.m(), 1, [&](std::int64_t i) {
      Line row;
      line(g.a, g.trans_a, static_cast<int>(i), row.codes, row.scales);
      float* c = g.c.row(i);
      for (int j = 0; j < g.n(); ++j) {
        const float sum = element(row, columns[static_cast<std::size_t>(j)], interval);
        c[j] = g.accumulate ? c[j] + sum : sum;
      }
    });
  }
}

void gemm_fp8_hopper(const Context& ctx, Accumulation how, std::span<const Fp8Gemm> problems) {
  if (how.kind == Accumulator::kFloat) {
    gemm_fp8(ctx, problems);
    return;
  }
  if (ctx.device != nullptr) {
    throw Error(Code::kUnsupported,
                "sums as Hopper's tensor cores make them (numerics.accumulator = \"hopper\") are "
                "emulated on the CPU; the GPU's own are like that: take \"f32\"");
  }
  check_interval(how.interval);
  for (const Fp8Gemm& g : problems) {
    check_shapes(g);
    require_device(ctx, "gemm_fp8_hopper", g.a.transposed || g.b.transposed || g.c_bf16.rows > 0);
    check_scales("a", g.a, g.trans_a, how.interval);
    check_scales("b", g.b, !g.trans_b, how.interval);
  }
  ctx.ops().gemm_fp8_hopper(ctx, how.interval, problems);
}

}  // namespace cachalot
