// An activation between forward and backward, in as few bytes as the numerics say.
//
// Owns:    its memory, reused from step to step.
// Threads: one caller; conversions use the context's threads.
#pragma once

#include <cstddef>
#include <utility>

#include "kernels/context.h"
#include "nn/numerics.h"
#include "tensor/e5m6.h"
#include "tensor/fp8.h"
#include "tensor/mat.h"

namespace cachalot::nn {

class Saved {
 public:
  // Keeps x [R, C]; `scale` is for kFp8.
  void store(const Context& ctx, Keep keep, MatView<const float> x,
             numeric::ScaleKind scale = numeric::ScaleKind::kPow2);
  // Keeps x and makes it what `load` will give.
  void store_rounded(const Context& ctx, Keep keep, MatView<float> x);
  // What was kept: itself where it is float, otherwise written to `scratch`.
  MatView<const float> load(const Context& ctx, Mat<float>& scratch) const;
  // The same, into `to` in any case.
  void load_into(const Context& ctx, Mat<float>& to) const;
  std::size_t bytes() const noexcept;

  // Room for what is rounded to bf16 where it is computed; then what is kept is in kBf16.
  MatView<Bf16> bf16(int rows, int cols) {
    keep_ = Keep::kBf16;
    bf16_.resize(rows, cols);
    return bf16_.view();
  }
  // Likewise room for the codes of what is kept in kFp8.
  Fp8Out fp8(int rows, int cols) {
    keep_ = Keep::kFp8;
    fp8_.resize(rows, cols, ScaleTile::kRow);
    return fp8_.out();
  }
  Fp8View fp8() const noexcept { return fp8_.view(); }
  // What was kept in kBf16.
  MatView<const Bf16> bf16() const noexcept { return bf16_.cview(); }

 private:
  void convert(const Context& ctx, MatView<float> x) const;
  std::pair<int, int> shape() const noexcept;

  Keep keep_ = Keep::kF32;
  Mat<float> f32_;
  Mat<Bf16> bf16_;
  E5m6Mat e5m6_;
  Fp8Mat fp8_;
};

}  // namespace cachalot::nn
