#include "nn/saved.h"

#include "kernels/elementwise.h"
#include "kernels/fp8.h"
#include "kernels/profile.h"
#include "kernels/saved.h"

namespace cachalot::nn {

void Saved::store(const Context& ctx, Keep keep, MatView<const float> x, numeric::ScaleKind scale) {
  const PartScope part(ctx, Part::kKeep);
  keep_ = keep;
  switch (keep) {
    case Keep::kF32:
      f32_.resize(x.rows, x.cols);
      copy_rows(ctx, x, f32_.view());
      return;
    case Keep::kBf16:
      bf16_.resize(x.rows, x.cols);
      store_bf16(ctx, x, bf16_.view());
      return;
    case Keep::kE5m6:
      e5m6_.resize(x.rows, x.cols);
      store_e5m6(ctx, x, e5m6_);
      return;
    case Keep::kFp8: {
      fp8_.resize(x.rows, x.cols, ScaleTile::kRow);
      const QuantizeFp8 job{x, scale, fp8_.out(), {}};
      quantize_fp8(ctx, std::span(&job, 1));
      return;
    }
  }
}

void Saved::store_rounded(const Context& ctx, Keep keep, MatView<float> x) {
  store(ctx, keep, x);
  if (keep == Keep::kF32) return;
  const PartScope part(ctx, Part::kKeep);
  convert(ctx, x);
}

void Saved::convert(const Context& ctx, MatView<float> x) const {
  switch (keep_) {
    case Keep::kF32:
      copy_rows(ctx, f32_.cview(), x);
      return;
    case Keep::kBf16:
      load_bf16(ctx, bf16_.cview(), x);
      return;
    case Keep::kE5m6:
      load_e5m6(ctx, e5m6_, x);
      return;
    case Keep::kFp8:
      dequantize_fp8(ctx, {fp8_.view(), x});
      return;
  }
}

std::pair<int, int> Saved::shape() const noexcept {
  switch (keep_) {
    case Keep::kF32:
      return {f32_.rows(), f32_.cols()};
    case Keep::kBf16:
      return {bf16_.rows(), bf16_.cols()};
    case Keep::kE5m6:
      return {e5m6_.rows(), e5m6_.cols()};
    case Keep::kFp8:
      return {fp8_.rows(), fp8_.cols()};
  }
  return {0, 0};
}

MatView<const float> Saved::load(const Context& ctx, Mat<float>& scratch) const {
  if (keep_ == Keep::kF32) return f32_.cview();
  load_into(ctx, scratch);
  return scratch.cview();
}

void Saved::load_into(const Context& ctx, Mat<float>& to) const {
  const PartScope part(ctx, Part::kKeep);
  const auto [rows, cols] = shape();
  to.resize(rows, cols);
  convert(ctx, to.view());
}

std::size_t Saved::bytes() const noexcept {
  switch (keep_) {
    case Keep::kF32:
      return f32_.bytes();
    case Keep::kBf16:
      return bf16_.bytes();
    case Keep::kE5m6:
      return e5m6_.bytes();
    case Keep::kFp8:
      return fp8_.bytes();
  }
  return 0;
}

}  // namespace cachalot::nn
