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

double cache_value(const MatRef& cache, int row, int col) {
  const std::ptrdiff_t at = row * cache.stride + col;
  return cache.dtype == DType::kBF16 ? double{to_float(static_cast<const Bf16*>(cache.data)[at])}
                                     : double{static_cast<const float*>(cache.data)[at]};
}

// Row (query i, head h) of one problem.
void attend_row(const LatentAttention& a, int i, int h) {
  const int width = a.latent + a.rope;
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
      sum += query[static_cast<std::size_t>(c)] * operand(cache_value(a.cache, j, c), a.precision);
    }
    score[static_cast<std::size_t>(j)] = sum * double{a.scale};
    max = std::max(max, score[static_cast<std::size_t>(j)]);
  }
  std::vector<double> sum(static_cast<std::size_t>(a.latent));
  double total = 0;
  for (int j = 0; j < seen; ++j) {
    const double e = std::exp(score[static_cast<std::size_t>(j)] - max);
    total += e;
    const double p = operand(e, a.precision);
    for (int c = 0; c < a.latent; ++c) {
      sum[static_cast<std::size_t>(c)] += p * operand(cache_value(a.cache, j, c), a.precision);
    }
  }
  float* out = a.out.row(i) + static_cast<std::ptrdiff_t>(h) * a.latent;  // [L]
  for (int c = 0; c < a.latent; ++c) {
    out[c] = static_cast<float>(sum[static_cast<std::size_t>(c)] / total);
  }
}

}  // namespace

void latent_attention_ref(const Context& ctx, std::span<const LatentAttention> problems) {
  for (const LatentAttention& a : problems) {
    ctx.for_each(static_cast<std::int64_t>(a.q.rows) * a.heads, /*grain=*/1, [&](std::int64_t row) {
      attend_row(a, static_cast<int>(row / a.heads), static_cast<int>(row % a.heads));
    });
  }
}

void check_shapes(const LatentAttention& a) {
  constexpr std::string_view kOp = "latent_attention";
  require_shape(a.heads > 0 && a.latent > 0 && a.rope >= 0, kOp, ": ", a.heads, " heads of ",
                a.latent, " latent and ", a.rope,
                " rope columns; heads and latent columns have to be positive");
  require_shape(a.scale > 0, kOp, ": scale is ", a.scale,
                " but has to be positive: it is 1 / sqrt(nope + rope), times YaRN's factor");
  require_size(kOp, "q", a.q, a.q.rows, a.heads * (a.latent + a.rope));
  require_size(kOp, "out", a.out, a.q.rows, a.heads * a.latent);
  require_shape(a.cache.dtype == DType::kF32 || a.cache.dtype == DType::kBF16, kOp,
                ": the cache holds ", name(a.cache.dtype), " but has to hold F32 or BF16");
  require_shape(a.cache.cols == a.latent + a.rope, kOp, ": a cache row has ", a.cache.cols,
                " values, but the query needs ", a.latent, " latent + ", a.rope,
                " rope = ", a.latent + a.rope,
                ". The cache was made for another model: clear it, or check kv_lora_rank and "
                "qk_rope_head_dim in config.json");
  require_shape(a.cache.rows <= 1 || a.cache.stride >= a.cache.cols, kOp, ": cache rows lie ",
                a.cache.stride, " elements apart but hold ", a.cache.cols,
                "; the stride has to be at least that");
  require_shape(a.cache.rows >= a.q.rows, kOp, ": ", a.q.rows, " queries but a cache of ",
                a.cache.rows, " rows; a query attends at least to its own row, so append it first");
}

void latent_attention(const Context& ctx, std::span<const LatentAttention> problems) {
  for (const LatentAttention& a : problems) check_shapes(a);
  ctx.ops().latent_attention(ctx, problems);
}

}  // namespace cachalot
