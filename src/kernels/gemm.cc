#include "kernels/gemm.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "kernels/table.h"

namespace cachalot {

namespace {

bool product_dtype(DType type) noexcept { return type == DType::kF32 || type == DType::kBF16; }

// One element as a float, rounded to bf16 where the product asks for it.
float element(const MatRef& m, int row, int col, Precision precision) noexcept {
  const std::ptrdiff_t at = row * m.stride + col;
  if (m.dtype == DType::kBF16) return to_float(static_cast<const Bf16*>(m.data)[at]);
  const float x = static_cast<const float*>(m.data)[at];
  return precision == Precision::kBF16 ? to_float(to_bf16(x)) : x;
}

// Element (kk, j) of B as the product sees it.
float b_element(const Gemm& g, int kk, int j, Precision precision) noexcept {
  if (g.packed != nullptr) return std::bit_cast<float>(g.packed->words.at(kk, j));
  return element(g.b, g.trans_b ? j : kk, g.trans_b ? kk : j, precision);
}

void ref_rows(Precision precision, const Gemm& g, int begin, int end) {
  const int n = g.n();
  const int k = g.k();
  // bf16 walks k in pairs, the odd one of a pair first; a missing one is a zero.
  const int steps = precision == Precision::kBF16 ? (k + 1) / 2 * 2 : k;
  std::vector<float> acc(static_cast<std::size_t>(n));
  for (int i = begin; i < end; ++i) {
    std::fill(acc.begin(), acc.end(), 0.0f);
    for (int step = 0; step < steps; ++step) {
      const int kk = precision == Precision::kBF16 ? step ^ 1 : step;
      const bool pad = kk >= k;
      const float a = pad ? 0.0f : element(g.a, g.trans_a ? kk : i, g.trans_a ? i : kk, precision);
      for (int j = 0; j < n; ++j) {
        const float b = pad ? 0.0f : b_element(g, kk, j, precision);
        acc[static_cast<std::size_t>(j)] += a * b;
      }
    }
    if (g.c_bf16.rows > 0) {
      std::transform(acc.begin(), acc.end(), g.c_bf16.row(i), to_bf16);
      continue;
    }
    float* c = g.c.row(i);
    for (int j = 0; j < n; ++j) {
      const float sum = acc[static_cast<std::size_t>(j)];
      c[j] = g.accumulate ? c[j] + sum : sum;
    }
  }
}

void check_operand(const char* op, const char* what, const MatRef& m) {
  if (!product_dtype(m.dtype)) {
    throw Error(Code::kShape, cat(op, ": ", what, " is ", name(m.dtype),
                                  "; products read F32 or BF16: convert it first"));
  }
  if (m.rows < 0 || m.cols < 0 || (m.rows > 1 && m.stride < m.cols)) {
    throw Error(Code::kShape, cat(op, ": ", what, " is [", m.rows, ", ", m.cols, "] with stride ",
                                  m.stride, "; a stride covers a row"));
  }
  if (!m.empty() && m.data == nullptr) {
    throw Error(Code::kShape, cat(op, ": ", what, " [", m.rows, ", ", m.cols, "] has no memory"));
  }
}

const char* name_of(Precision p) noexcept { return p == Precision::kBF16 ? "bf16" : "f32"; }

// A packed B is the level's own and of this precision.
void check_packed(const Context& ctx, Precision precision, const PackedB& b) {
  const std::string_view level = b.level != nullptr ? b.level : "nobody";
  if (level == ctx.ops().name && b.precision == precision) return;
  throw Error(Code::kInternal,
              cat("gemm: b was packed by ", level, " for ", name_of(b.precision),
                  " products, but this one is ", ctx.ops().name, "'s in ", name_of(precision),
                  "; pack it with the same context and precision"));
}

}  // namespace

void check_shapes(const Gemm& g) {
  check_operand("gemm", "a", g.a);
  if (g.packed == nullptr) check_operand("gemm", "b", g.b);
  const bool in_bf16 = g.c_bf16.rows > 0;
  if (in_bf16 && (g.accumulate || g.c_bf16.rows != g.c.rows || g.c_bf16.cols != g.c.cols ||
                  (g.c.rows > 1 && g.c_bf16.stride < g.c.cols) || g.c_bf16.data == nullptr)) {
    throw Error(Code::kShape,
                cat("gemm: c_bf16 is [", g.c_bf16.rows, ", ", g.c_bf16.cols, "] with stride ",
                    g.c_bf16.stride, g.accumulate ? ", added to," : "", " for c [", g.c.rows, ", ",
                    g.c.cols, "]; it has c's shape, and is written, not added to"));
  }
  if (g.c.rows < 0 || g.c.cols < 0 || (!in_bf16 && g.c.rows > 1 && g.c.stride < g.c.cols) ||
      (!g.c.empty() && !in_bf16 && g.c.data == nullptr)) {
    throw Error(Code::kShape, cat("gemm: c is [", g.c.rows, ", ", g.c.cols, "] with stride ",
                                  g.c.stride, "; it needs memory and a stride that covers a row"));
  }
  const int a_m = g.trans_a ? g.a.cols : g.a.rows;
  const int a_k = g.trans_a ? g.a.rows : g.a.cols;
  if (g.packed != nullptr) {
    if (a_m == g.c.rows && g.packed->n == g.c.cols && a_k == g.packed->k) return;
    throw Error(Code::kShape, cat("gemm: a [", g.a.rows, ", ", g.a.cols, "]", g.trans_a ? "^T" : "",
                                  " times packed b [", g.packed->k, ", ", g.packed->n,
                                  "] does not give c [", g.c.rows, ", ", g.c.cols, "]"));
  }
  const int b_k = g.trans_b ? g.b.cols : g.b.rows;
  const int b_n = g.trans_b ? g.b.rows : g.b.cols;
  if (a_m != g.c.rows || b_n != g.c.cols || a_k != b_k) {
    throw Error(Code::kShape,
                cat("gemm: a [", g.a.rows, ", ", g.a.cols, "]", g.trans_a ? "^T" : "", " times b [",
                    g.b.rows, ", ", g.b.cols, "]", g.trans_b ? "^T" : "", " does not give c [",
                    g.c.rows, ", ", g.c.cols, "]"));
  }
}

void gemm_ref(const Context& ctx, Precision precision, std::span<const Gemm> problems) {
  for (const Gemm& g : problems) {
    ctx.for_range(g.m(), 4, [&](std::int64_t begin, std::int64_t end) {
      ref_rows(precision, g, static_cast<int>(begin), static_cast<int>(end));
    });
  }
}

void gemm_f64(MatView<const double> a, MatView<const double> b, MatView<double> c, bool trans_a,
              bool trans_b) {
  const int k = trans_a ? a.rows : a.cols;
  for (int i = 0; i < c.rows; ++i) {
    for (int j = 0; j < c.cols; ++j) {
      double sum = 0;
      for (int kk = 0; kk < k; ++kk) {
        sum += (trans_a ? a.at(kk, i) : a.at(i, kk)) * (trans_b ? b.at(j, kk) : b.at(kk, j));
      }
      c.at(i, j) = sum;
    }
  }
}

void check_shapes(const PackB& job) {
  check_operand("pack_b", "b", job.b);
  if (job.out == nullptr) {
    throw Error(Code::kShape, cat("pack_b: b [", job.b.rows, ", ", job.b.cols,
                                  "] has nowhere to go; give it a PackedB"));
  }
}

void pack_b_ref(const Context& ctx, Precision precision, std::span<const PackB> jobs) {
  for (const PackB& job : jobs) {
    Mat<std::uint32_t>& to = job.out->words;
    to.resize(job.k(), job.n());
    ctx.for_each(job.k(), 16, [&](std::int64_t kk) {
      const auto k = static_cast<int>(kk);
      for (int j = 0; j < job.n(); ++j) {
        to.at(k, j) = std::bit_cast<std::uint32_t>(
            element(job.b, job.trans_b ? j : k, job.trans_b ? k : j, precision));
      }
    });
  }
}

bool packs_bf16_in_pairs(const Context& ctx) noexcept { return ctx.ops().packs_bf16_in_pairs(); }

void pack_b(const Context& ctx, Precision precision, std::span<const PackB> jobs) {
  for (const PackB& job : jobs) {
    check_shapes(job);
    job.out->level = ctx.ops().name;
    job.out->precision = precision;
    job.out->k = job.k();
    job.out->n = job.n();
  }
  ctx.ops().pack_b(ctx, precision, jobs);
}

void gemm(const Context& ctx, Precision precision, std::span<const Gemm> problems) {
  for (const Gemm& g : problems) {
    check_shapes(g);
    if (g.packed != nullptr) check_packed(ctx, precision, *g.packed);
  }
  ctx.ops().gemm(ctx, precision, problems);
}

}  // namespace cachalot
