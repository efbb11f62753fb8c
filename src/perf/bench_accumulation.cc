#include "perf/bench_accumulation.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "numeric/small_float.h"
#include "tensor/fp8.h"

namespace cachalot::perf {

namespace {

Fp8Mat random_codes(const Context& ctx, RandomInputs inputs, int rows, int k, const Rng& rng) {
  Mat<float> x(rows, k);
  ctx.for_each(rows, 8, [&](std::int64_t i) {
    for (int j = 0; j < k; ++j) {
      const auto at = static_cast<std::uint64_t>(i * k + j);
      x.at(static_cast<int>(i), j) =
          static_cast<float>(inputs == RandomInputs::kNormal ? rng.normal(at) : rng.uniform(at));
    }
  });
  Fp8Mat codes;
  codes.resize(rows, k, ScaleTile::kTensor);
  const QuantizeFp8 job{.x = x.cview(), .kind = numeric::ScaleKind::kPlain, .out = codes.out()};
  quantize_fp8(ctx, {&job, 1});
  return codes;
}

// Codes' products and their sums are whole multiples of 2^-18 below 2^34: exact in double. The
// scales come last, as the product applies them.
Mat<double> exact_product(const Context& ctx, const Fp8View& a, const Fp8View& b) {
  Mat<double> wide(b.cols, b.rows), c(a.rows, b.rows);
  ctx.for_each(b.cols, 64, [&](std::int64_t k) {
    for (int j = 0; j < b.rows; ++j) {
      wide.row(k)[j] = static_cast<double>(numeric::decode_e4m3(b.row(j)[k]));
    }
  });
  const double scale = static_cast<double>(a.scales[0] * b.scales[0]);
  ctx.for_each(a.rows, 4, [&](std::int64_t i) {
    double* sums = c.row(i);
    for (int k = 0; k < a.cols; ++k) {
      const auto x = static_cast<double>(numeric::decode_e4m3(a.row(i)[k]));
      const double* y = wide.row(k);
      for (int j = 0; j < b.rows; ++j) sums[j] += x * y[j];
    }
    for (int j = 0; j < b.rows; ++j) sums[j] *= scale;
  });
  return c;
}

void compare(const Mat<float>& got, const Mat<double>& exact, AccumulationCase& result) {
  double squares = 0;
  for (const double x : exact.span()) squares += x * x;
  const auto count = static_cast<double>(exact.size());
  const double typical = std::sqrt(squares / count);
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const double error = std::fabs(static_cast<double>(got.data()[i]) - exact.data()[i]);
    result.max_error = std::max(result.max_error, error / typical);
    result.mean_error += error / typical / count;
    if (exact.data()[i] == 0) continue;
    const double of_result = error / std::fabs(exact.data()[i]);
    result.max_of_result = std::max(result.max_of_result, of_result);
    result.mean_of_result += of_result / count;
  }
}

}  // namespace

std::string_view name(RandomInputs inputs) noexcept {
  return inputs == RandomInputs::kNormal ? "normal" : "uniform";
}

std::vector<AccumulationCase> bench_accumulation(
    const Context& ctx, const AccumulationOptions& options,
    const std::function<void(const std::string&)>& progress) {
  std::vector<Accumulation> sums;
  for (const int interval : options.intervals) sums.push_back({Accumulator::kHopper, interval});
  sums.push_back({Accumulator::kFloat, 128});
  std::vector<AccumulationCase> cases;
  for (const RandomInputs inputs : {RandomInputs::kNormal, RandomInputs::kUniform}) {
    for (const int k : options.k) {
      progress(cat(name(inputs), " inputs, K = ", k));
      const auto stream = static_cast<std::uint64_t>(inputs) << 32 | static_cast<std::uint64_t>(k);
      const Fp8Mat a = random_codes(ctx, inputs, options.size, k, Rng(options.seed, 2 * stream));
      const Fp8Mat b =
          random_codes(ctx, inputs, options.size, k, Rng(options.seed, 2 * stream + 1));
      const Mat<double> exact = exact_product(ctx, a.view(), b.view());
      for (const Accumulation sum : sums) {
        Mat<float> got(options.size, options.size);
        const Fp8Gemm product{a.view(), b.view(), got.view(), false, true, false};
        gemm_fp8_hopper(ctx, sum, {&product, 1});
        AccumulationCase result{inputs, k, sum};
        compare(got, exact, result);
        cases.push_back(result);
      }
    }
  }
  return cases;
}

}  // namespace cachalot::perf
