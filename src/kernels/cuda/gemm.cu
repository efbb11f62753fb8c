// Plain products on the device: which kernel a problem goes to.
//
//   few rows, weights [N, K]   gemm_rows: reads the weights once, one launch for the list
//                              (of float precision gemm_rows_float)
//   small, or unusual          gemm_tiles: one launch for the list
//   large, several             gemm_groups: one launch for the list, operands converted before
//   large otherwise            gemm_library, likewise
#include <vector>

#include "kernels/cuda/gemm_parts.cuh"
#include "kernels/cuda/ops.h"

namespace cachalot::cuda {

namespace {

// Multiply-adds below which a call of the library costs more than it gains; a long sum over few
// tiles is the exception, since the library splits it.
bool is_small(Precision precision, const Gemm& g) {
  const double work = static_cast<double>(g.m()) * g.n() * g.k();
  if (g.k() > 4096 && std::int64_t{g.m()} * g.n() < 64 * 64 * 32) return work < 1e6;
  return work < (precision == Precision::kBF16 ? 1.3e8 : 1e7);
}

// Multiply-adds above which a product is worth a call of the library, whose kernels are faster.
bool is_large(const Gemm& g) { return static_cast<double>(g.m()) * g.n() * g.k() >= 4e9; }

}  // namespace

void gemm(const Context& ctx, Precision precision, std::span<const Gemm> problems) {
  std::vector<Gemm> rows, float_rows, small, large;
  for (const Gemm& g : problems) {
    if (g.packed != nullptr) {
      throw Error(Code::kInternal, "gemm: a packed b on a device, whose kernels pack nothing");
    }
    if (g.c.empty()) continue;
    const bool exact = g.a.dtype == DType::kBF16 && g.b.dtype == DType::kBF16;
    // The library's own are better where it is more than a few, and one matrix alone.
    const bool alone = problems.size() == 1 && g.m() > 16;
    if (g.k() > 0 && few_rows(precision, g) && !alone) {
      rows.push_back(g);
    } else if (precision == Precision::kF32 && few_float_rows(g)) {
      float_rows.push_back(g);
    } else if (is_small(precision, g) ||
               (precision == Precision::kF32 && g.c_bf16.rows > 0 && !exact)) {
      small.push_back(g);
    } else {
      large.push_back(g);
    }
  }
  gemm_rows(ctx, precision, rows);
  gemm_rows_float(ctx, float_rows);
  if (!large.empty()) {
    // Products of bf16 numbers are exact in float: those of float precision that have only such
    // operands need no others.
    std::vector<Gemm> of_floats;
    if (precision == Precision::kF32) {
      std::vector<Gemm> of_bf16;
      for (const Gemm& g : large) {
        const bool exact = g.a.dtype == DType::kBF16 && g.b.dtype == DType::kBF16;
        (exact ? of_bf16 : of_floats).push_back(g);
      }
      convert_operands(ctx, DType::kF32, of_floats);
      of_bf16.insert(of_bf16.end(), of_floats.begin(), of_floats.end());
      large = std::move(of_bf16);
    } else {
      convert_operands(ctx, DType::kBF16, large);
    }
    std::vector<Gemm> alone, together;
    for (const Gemm& g : large) {
      (large.size() > 1 && fits_groups(g) && !is_large(g) ? together : alone).push_back(g);
    }
    gemm_groups(ctx, together);
    gemm_library(ctx, alone, small);
  }
  gemm_tiles(ctx, precision, small);
}

}  // namespace cachalot::cuda
