#include "model/weight_encoder.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "kernels/fp8.h"
#include "kernels/quantize_groups.h"
#include "model/packed_weights.h"
#include "numeric/quantize.h"

namespace cachalot::model {

namespace {
constexpr std::string_view kScaleSuffix = "_scale_inv";
std::int64_t blocks(std::int64_t size, std::int64_t block) { return (size + block - 1) / block; }

[[noreturn]] void refuse(const std::string& weight) {
  throw Error(Code::kNumeric, cat("tensor '", weight,
                                  "' holds a NaN or an infinity, which no scaled code stands for. "
                                  "Convert to bf16, or mend the model."));
}
}  // namespace

WeightEncoder::WeightEncoder(const Context& ctx, WeightFormat format, const PackedConfig& packed,
                             const Fp8Form& fp8, FloatSource source)
    : ctx_(ctx), format_(format), packed_(packed), fp8_(fp8), source_(std::move(source)) {}

bool WeightEncoder::is_fp8(std::string_view name, const Shape& shape) const {
  return format_ == WeightFormat::kFp8 &&
         (is_fp8_weight(name, shape) || (fp8_.head && is_head(name)));
}

void WeightEncoder::put(const std::string& name, DType type, const Shape& shape, Part part) {
  tensors_.push_back({name, type, shape, nullptr});
  parts_[name] = std::move(part);
}

DType WeightEncoder::plain_type(std::string_view name) const noexcept {
  return format_ == WeightFormat::kF32 || is_router_bias(name) ? DType::kF32 : DType::kBF16;
}

void WeightEncoder::add(const std::string& name, const Shape& shape) {
  if (is_fp8(name, shape)) return add_fp8(name, shape);
  if (const auto form = packed_form(packed_, name, shape)) return add_packed(name, shape, *form);
  add_plain(name, plain_type(name), shape);
}

void WeightEncoder::add_plain(const std::string& name, DType type, const Shape& shape) {
  put(name, type, shape, {name, shape, How::kPlain});
}

void WeightEncoder::add_foreign(const std::string& name, DType type, const Shape& shape) {
  put(name, type, shape, {name, shape, How::kForeign});
}

void WeightEncoder::add_fp8(const std::string& name, const Shape& shape) {
  put(name, DType::kF8E4M3, shape, {name, shape, How::kFp8Codes});
  put(name + std::string(kScaleSuffix), DType::kF32,
      {blocks(shape[0], numeric::kScaleBlock), blocks(shape[1], numeric::kScaleBlock)},
      {name, shape, How::kFp8Scales});
}

void WeightEncoder::add_packed(const std::string& name, const Shape& shape,
                               const PackedConfig::Form& form) {
  const PackedNames names(name);
  put(names.codes, DType::kI32, {shape[0], blocks(shape[1] * form.bits, 32)},
      {name, shape, How::kPackedCodes});
  put(names.scales, DType::kBF16, {shape[0], blocks(shape[1], form.group)},
      {name, shape, How::kPackedScales});
  add_packed_shape(name, shape);
}

void WeightEncoder::add_packed_shape(const std::string& name, const Shape& shape) {
  put(PackedNames(name).shape, DType::kI64, {2}, {name, shape, How::kPackedShape});
}

std::uint64_t WeightEncoder::bytes() const {
  std::uint64_t all = 0;
  for (const io::TensorToWrite& t : tensors_) {
    all += static_cast<std::uint64_t>(count(t.shape)) * size_of(t.dtype);
  }
  return all;
}

bool WeightEncoder::is_foreign(const io::TensorToWrite& t) const {
  return parts_.at(t.name).how == How::kForeign;
}

const void* WeightEncoder::make(const io::TensorToWrite& t) {
  const Part& part = parts_.at(t.name);
  switch (part.how) {
    case How::kForeign:
      return nullptr;
    case How::kPlain:
      return plain(part, t.dtype);
    case How::kFp8Codes:
      quantise(part);
      return codes_.data();
    case How::kFp8Scales:
      quantise(part);
      return scales_.data();
    case How::kPackedCodes:
      pack(part);
      kept_scales_[part.weight] = std::move(bf16_);
      return codes_.data();
    case How::kPackedScales: {
      const auto kept = kept_scales_.find(part.weight);
      if (kept == kept_scales_.end()) {  // asked for before its codes
        pack(part);
      } else {
        bf16_ = std::move(kept->second);
        kept_scales_.erase(kept);
      }
      return bf16_.data();
    }
    case How::kPackedShape:
      packed_shape_ = part.shape;
      return packed_shape_.data();
  }
  return nullptr;
}

const void* WeightEncoder::plain(const Part& part, DType type) {
  const std::span<const float> floats = source_(part.weight, part.shape);
  if (type == DType::kF32) return floats.data();
  bf16_.resize(floats.size());
  constexpr std::int64_t kGrain = 1 << 16;
  ctx_.for_each(static_cast<std::int64_t>(floats.size()), kGrain, [&](std::int64_t i) {
    bf16_[static_cast<std::size_t>(i)] = to_bf16(floats[static_cast<std::size_t>(i)]);
  });
  return bf16_.data();
}

// A file lists scales (4 bytes) before codes (1 byte), so a weight's turn comes twice and it is
// quantised twice: that costs time once per model, and holds no second copy of it.
void WeightEncoder::quantise(const Part& part) {
  const std::span<const float> floats = source_(part.weight, part.shape);
  const int rows = static_cast<int>(part.shape[0]), cols = static_cast<int>(part.shape[1]);
  const int scale_rows = numeric::blocks_of(rows, numeric::kScaleBlock);
  const int scale_cols = numeric::blocks_of(cols, numeric::kScaleBlock);
  codes_.resize(floats.size());
  scales_.resize(static_cast<std::size_t>(scale_rows) * static_cast<std::size_t>(scale_cols));
  if (floats.empty()) return;
  QuantizeFp8 job;
  job.x = MatView<const float>{floats.data(), rows, cols, cols};
  job.kind = fp8_.ue8m0_scales ? numeric::ScaleKind::kPow2 : numeric::ScaleKind::kPlain;
  job.out = {codes_.data(), rows, cols, cols, scales_.data(), scale_cols, ScaleTile::kBlock};
  quantize_fp8(ctx_, job);
  // A NaN or an infinity shows in the scale of its block.
  const bool finite =
      std::all_of(scales_.begin(), scales_.end(), [](float scale) { return std::isfinite(scale); });
  if (!finite) refuse(part.weight);
}

// Codes as little-endian words into codes_, scales into bf16_.
void WeightEncoder::pack(const Part& part) {
  const std::span<const float> floats = source_(part.weight, part.shape);
  const int rows = static_cast<int>(part.shape[0]), cols = static_cast<int>(part.shape[1]);
  const PackedConfig::Form form = stored_form(packed_, part.weight);
  QuantizeGroups job{{floats.data(), rows, cols, cols}, form.bits, form.group, {}, {}};
  const int row_bytes = job.row_bytes(), groups = job.groups();
  codes_.resize(static_cast<std::size_t>(rows) * static_cast<std::size_t>(row_bytes));
  bf16_.resize(static_cast<std::size_t>(rows) * static_cast<std::size_t>(groups));
  job.codes = {codes_.data(), rows, row_bytes, row_bytes};
  job.scales = {bf16_.data(), rows, groups, groups};
  if (!quantize_groups(ctx_, job)) refuse(part.weight);
}

}  // namespace cachalot::model
