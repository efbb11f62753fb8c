// For tests only: problems of products with weights in 8 or 4 bits, and the same in panels.
#pragma once

#include <gtest/gtest.h>

#include <limits>
#include <ostream>
#include <span>
#include <vector>

#include "kernels/cpu/fp8_case_test.h"
#include "kernels/cpu/quant_case_test.h"
#include "kernels/quant_linear.h"

namespace cachalot::testing {

using enum QuantActivations;

struct QuantCase {
  QuantCode code;
  int group;
  QuantActivations activations = kBf16;
  int m = 1, n = 16, k = 128;
  bool accumulate = false, half = false;  // half: x in bf16
  int pad = 0;
};

inline std::ostream& operator<<(std::ostream& out, const QuantCase& c) {
  return out << name(c.code) << " group " << c.group
             << (c.activations == kInt8 ? " int8 x " : " bf16 x ") << c.m << "x" << c.n << "x"
             << c.k << (c.accumulate ? " +=" : "") << (c.half ? " half" : "") << " pad " << c.pad;
}

struct QuantData {
  QuantCase c;
  QuantOperand w;
  int x_stride, y_stride;
  std::vector<float> x, start;
  std::vector<Bf16> half;

  explicit QuantData(const QuantCase& given, std::uint64_t seed = 1)
      : c(given),
        w(given.code, given.n, given.k, given.group, seed, given.pad),
        x_stride(given.k + given.pad),
        y_stride(given.n + given.pad) {
    const Rng rng(5, seed);
    std::uint64_t n = 0;
    x.assign(static_cast<std::size_t>(c.m * x_stride), std::numeric_limits<float>::quiet_NaN());
    half.resize(x.size());
    for (int i = 0; i < c.m; ++i) {
      for (int j = 0; j < c.k; ++j) {
        x[static_cast<std::size_t>(i * x_stride + j)] = static_cast<float>(rng.normal(++n));
      }
    }
    for (std::size_t i = 0; i < x.size(); ++i) half[i] = to_bf16(x[i]);
    start.resize(static_cast<std::size_t>(c.m * y_stride));
    for (float& s : start) s = static_cast<float>(rng.normal(++n));
  }
  QuantLinear problem(std::vector<float>& y) const {
    y = start;
    const MatRef operand = c.half ? MatRef(half.data(), DType::kBF16, c.m, c.k, x_stride)
                                  : MatRef(x.data(), DType::kF32, c.m, c.k, x_stride);
    return {operand, w.view, {y.data(), c.m, c.n, y_stride}, c.accumulate};
  }
};

// The same weights in panels; what lies behind them is never to be used.
struct QuantPanels {
  std::vector<std::uint8_t> codes;
  std::vector<Bf16> scales;
  QuantView view;

  QuantPanels(const Context& ctx, const QuantView& from) : view(panels_of(from)) {
    codes.assign(view.code_span(), 0x7F);
    view.codes = codes.data();
    if (view.scales == nullptr) {
      scales.resize(view.scale_span() / sizeof(Bf16));
      view.scales = scales.data();
    }
    const PackQuant job{from, view};
    pack_quant(ctx, std::span<const PackQuant>(&job, 1));
  }
};

inline std::vector<float> run(const Context& ctx, const QuantData& d) {
  std::vector<float> y;
  quant_linear(ctx, d.c.activations, d.problem(y));
  return y;
}

// The bits of the definition, from rows and from panels.
inline void expect_reference_of(const Context& ctx, const QuantData& d) {
  std::vector<float> want;
  const QuantLinear problem = d.problem(want);
  quant_linear_ref(Context{}, d.c.activations, std::span<const QuantLinear>(&problem, 1));
  EXPECT_EQ(-1, first_difference(run(ctx, d), want)) << ctx.ops().name << " " << d.c;

  const QuantPanels panels(ctx, d.w.view);
  std::vector<float> got;
  QuantLinear packed = d.problem(got);
  packed.w = panels.view;
  quant_linear(ctx, d.c.activations, packed);
  EXPECT_EQ(-1, first_difference(got, want)) << ctx.ops().name << " in panels " << d.c;
}
inline void expect_reference(const Context& ctx, const QuantCase& c) {
  expect_reference_of(ctx, QuantData(c));
}

// Every code, group and kind of activations that belong together.
inline std::vector<QuantCase> kinds() {
  std::vector<QuantCase> all{{QuantCode::kE4m3, 128}};
  for (const QuantActivations a : {kBf16, kInt8}) {
    for (const QuantCode code : {QuantCode::kInt8, QuantCode::kInt4}) {
      for (const int group : {32, 64, 128}) all.push_back({code, group, a});
    }
  }
  return all;
}

inline QuantCase sized(QuantCase c, int m, int n, int k, int pad = 0, bool accumulate = false,
                       bool half = false) {
  c.m = m;
  c.n = n;
  c.k = k;
  c.pad = pad;
  c.accumulate = accumulate;
  c.half = half;
  return c;
}

}  // namespace cachalot::testing
