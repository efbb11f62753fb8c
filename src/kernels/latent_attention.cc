#include "kernels/latent_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/shape_check.h"
#include "kernels/table.h"

namespace cachalot {

namespace {

double operand(double x, Precision precision) {
  return precision == Precision::kBF16 ? double{to_float(to_bf16(static_cast<float>(x)))} : x;
}

// Row (query i, head h) of one problem; `rows` [S, L + R] is its cache as numbers.
void attend_row(const LatentAttention& a, const Mat<float>& rows, int i, int h) {
  const int width = a.width();
  const int seen = a.cache.rows - a.q.rows + 1 + i;
  const float* q = a.q.row(i) + static_cast<std::ptrdiff_t>(h) * width;  // [L + R]
  std::vector<double> query(static_cast<std::size_t>(width));
  for (int c = 0; c < width; ++c)
    query[static_cast<std::size_t>(c)] = operand(double{q[c]}, a.precision);
  std::vector<double> score(static_cast<std::size_t>(seen));
  double max = -std::numeric_limits<double>::infinity();
  for (int j = 0; j < seen; ++j) {
    double sum = 0;
    for (int c = 0; c < width; ++c) {
      sum += query[static_cast<std::size_t>(c)] * operand(double{rows.at(j, c)}, a.precision);
    }
    score[static_cast<std::size_t>(j)] = sum * double{a.scale};
    max = std::max(max, score[static_cast<std::size_t>(j)]);
  }
  std::vector<double> sum(static_cast<std::size_t>(a.latent()));
  double total = 0;
  for (int j = 0; j < seen; ++j) {
    const double e = std::exp(score[static_cast<std::size_t>(j)] - max);
    total += e;
    const double p = operand(e, a.precision);
    for (int c = 0; c < a.latent(); ++c) {
      sum[static_cast<std::size_t>(c)] += p * operand(double{rows.at(j, c)}, a.precision);
    }
  }
  float* out = a.out.row(i) + static_cast<std::ptrdiff_t>(h) * a.latent();  // [L]
  for (int c = 0; c < a.latent(); ++c) {
    out[c] = static_cast<float>(sum[static_cast<std::size_t>(c)] / total);
  }
}

}  // namespace

void latent_attention_ref(const Context& ctx, std::span<const LatentAttention> problems) {
  for (const LatentAttention& a : problems) {
    Mat<float> rows(a.cache.rows, a.width());
    load_latent(ctx, a.cache, 0, rows.view());
    ctx.for_each(static_cast<std::int64_t>(a.q.rows) * a.heads, /*grain=*/1, [&](std::int64_t row) {
      attend_row(a, rows, static_cast<int>(row / a.heads), static_cast<int>(row % a.heads));
    });
  }
}

void check_shapes(const LatentAttention& a) {
  constexpr std::string_view kOp = "latent_attention";
  require_shape(a.heads > 0 && a.latent() > 0 && a.rope() >= 0, kOp, ": ", a.heads, " heads of ",
                a.latent(), " latent and ", a.rope(),
                " rope columns; heads and latent columns have to be positive");
  require_shape(a.scale > 0, kOp, ": scale is ", a.scale,
                " but has to be positive: it is 1 / sqrt(nope + rope), times YaRN's factor");
  require_shape(a.q.cols == a.heads * a.width(), kOp, ": a query has ", a.q.cols, " values, but ",
                a.heads, " heads over cache rows of ", a.latent(), " latent + ", a.rope(),
                " rope values need ", a.heads * a.width(),
                ". The cache was made for another model: clear it, or check kv_lora_rank and "
                "qk_rope_head_dim in config.json");
  require_size(kOp, "q", a.q, a.q.rows, a.q.cols);
  require_size(kOp, "out", a.out, a.q.rows, a.heads * a.latent());
  const int blocks = (a.cache.rows + kLatentBlock - 1) / kLatentBlock;
  require_shape(static_cast<int>(a.cache.blocks.size()) >= blocks, kOp, ": ", a.cache.rows,
                " cached rows need ", blocks, " blocks of ", kLatentBlock, ", but there are ",
                a.cache.blocks.size());
  require_shape(a.cache.rows >= a.q.rows, kOp, ": ", a.q.rows, " queries but a cache of ",
                a.cache.rows, " rows; a query attends at least to its own row, so append it first");
}

void latent_attention(const Context& ctx, std::span<const LatentAttention> problems) {
  for (const LatentAttention& a : problems) check_shapes(a);
  ctx.ops().latent_attention(ctx, problems);
}

}  // namespace cachalot
