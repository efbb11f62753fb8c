// Conversions of a tensor as it lies in a file.
#include <cstring>
#include <limits>

#include "io/safetensors.h"
#include "numeric/small_float.h"

namespace cachalot::io {

namespace {

// Reads by memcpy: a file need not align its data.
template <class Stored, class Out, class Decode>
std::vector<Out> convert(const TensorView& view, Decode decode) {
  const auto n = static_cast<std::size_t>(view.size());
  std::vector<Out> out(n);
  const char* next = static_cast<const char*>(view.data);
  for (std::size_t i = 0; i < n; ++i, next += sizeof(Stored)) {
    Stored stored;
    std::memcpy(&stored, next, sizeof stored);
    out[i] = static_cast<Out>(decode(stored));
  }
  return out;
}

template <class Out>
std::vector<Out> to_reals(const TensorView& v) {
  switch (v.dtype) {
    case DType::kF64:
      return convert<double, Out>(v, [](double x) { return x; });
    case DType::kF32:
      return convert<float, Out>(v, [](float x) { return x; });
    case DType::kF16:
      return convert<std::uint16_t, Out>(v, numeric::decode_f16);
    case DType::kBF16:
      return convert<std::uint16_t, Out>(v, [](std::uint16_t x) { return to_float(Bf16{x}); });
    case DType::kF8E4M3:
      return convert<std::uint8_t, Out>(v, numeric::decode_e4m3);
    case DType::kF8E5M2:
      return convert<std::uint8_t, Out>(v, numeric::decode_e5m2);
    default:
      throw Error(Code::kUnsupported, cat(v.file, ": a tensor of ", name(v.dtype), " ",
                                          to_string(v.shape), " where real numbers are needed"));
  }
}

}  // namespace

std::vector<float> TensorView::to_floats() const { return to_reals<float>(*this); }
std::vector<double> TensorView::to_doubles() const { return to_reals<double>(*this); }

std::vector<std::int64_t> TensorView::to_ints() const {
  const auto same = [](auto x) { return x; };
  switch (dtype) {
    case DType::kI64:
      return convert<std::int64_t, std::int64_t>(*this, same);
    case DType::kI32:
      return convert<std::int32_t, std::int64_t>(*this, same);
    case DType::kI16:
      return convert<std::int16_t, std::int64_t>(*this, same);
    case DType::kI8:
      return convert<std::int8_t, std::int64_t>(*this, same);
    case DType::kU8:
    case DType::kBool:
      return convert<std::uint8_t, std::int64_t>(*this, same);
    default:
      throw Error(Code::kUnsupported, cat(file, ": a tensor of ", name(dtype), " ",
                                          to_string(shape), " where integers are needed"));
  }
}

MatRef TensorView::ref() const {
  constexpr std::int64_t kMax = std::numeric_limits<int>::max();
  std::int64_t rows = 1;
  for (std::size_t i = 0; i + 1 < shape.size(); ++i) {
    if (__builtin_mul_overflow(rows, shape[i], &rows)) rows = kMax + 1;
  }
  const std::int64_t cols = shape.empty() ? 1 : shape.back();
  if (rows > kMax || cols > kMax) {
    throw Error(Code::kShape,
                cat(file, ": a tensor of shape ", to_string(shape),
                    " has more rows or columns than the ", kMax, " a matrix may have"));
  }
  return {data, dtype, static_cast<int>(rows), static_cast<int>(cols),
          static_cast<std::ptrdiff_t>(cols)};
}

}  // namespace cachalot::io
