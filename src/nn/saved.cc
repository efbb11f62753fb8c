#include "nn/saved.h"

#include <cstring>

#include "kernels/fp8.h"
#include "kernels/profile.h"

namespace cachalot::nn {

void Saved::store(const Context& ctx, Keep keep, MatView<const float> x, numeric::ScaleKind scale) {
  const PartScope part(ctx, Part::kKeep);
  keep_ = keep;
  switch (keep) {
    case Keep::kF32:
      f32_.resize(x.rows, x.cols);
      ctx.for_each(x.rows, 64, [&](std::int64_t i) {
        std::memcpy(f32_.row(i), x.row(i), static_cast<std::size_t>(x.cols) * sizeof(float));
      });
      return;
    case Keep::kE5m6:
    case Keep::kBf16:
      bf16_.resize(x.rows, x.cols);
      ctx.for_each(x.rows, 16, [&](std::int64_t i) {
        for (int j = 0; j < x.cols; ++j) bf16_.row(i)[j] = to_bf16(x.row(i)[j]);
      });
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
      ctx.for_each(x.rows, 64, [&](std::int64_t i) {
        std::memcpy(x.row(i), f32_.row(i), static_cast<std::size_t>(x.cols) * sizeof(float));
      });
      return;
    case Keep::kE5m6:
    case Keep::kBf16:
      ctx.for_each(x.rows, 16, [&](std::int64_t i) {
        for (int j = 0; j < x.cols; ++j) x.row(i)[j] = to_float(bf16_.row(i)[j]);
      });
      return;
    case Keep::kFp8:
      dequantize_fp8(ctx, {fp8_.view(), x});
      return;
  }
}

int Saved::rows() const noexcept {
  return keep_ == Keep::kF32 ? f32_.rows() : keep_ == Keep::kFp8 ? fp8_.rows() : bf16_.rows();
}
int Saved::cols() const noexcept {
  return keep_ == Keep::kF32 ? f32_.cols() : keep_ == Keep::kFp8 ? fp8_.cols() : bf16_.cols();
}

MatView<const float> Saved::load(const Context& ctx, Mat<float>& scratch) const {
  if (keep_ == Keep::kF32) return f32_.cview();
  load_into(ctx, scratch);
  return scratch.cview();
}

void Saved::load_into(const Context& ctx, Mat<float>& to) const {
  const PartScope part(ctx, Part::kKeep);
  to.resize(rows(), cols());
  convert(ctx, to.view());
}

MatRef Saved::ref() const {
  if (keep_ == Keep::kF32) return f32_.cview();
  if (keep_ == Keep::kBf16) return bf16_.cview();
  throw Error(Code::kInternal, "an activation kept as FP8 or E5M6 was asked for as bf16");
}

std::size_t Saved::bytes() const noexcept {
  switch (keep_) {
    case Keep::kF32:
      return f32_.bytes();
    case Keep::kE5m6:
    case Keep::kBf16:
      return bf16_.bytes();
    case Keep::kFp8:
      return fp8_.bytes();
  }
  return 0;
}

}  // namespace cachalot::nn
