// Floats -> the tensors of a file: which tensors a weight becomes in a format, and their bytes, one
// tensor at a time, so that memory holds the largest tensor, not the model.
//
// Owns:    the list of tensors, buffers for one weight, and the scales of integers whose turn in
//          the file comes after their codes (a sixteenth of a shard, at the most an eighth).
// Threads: one caller; results do not depend on the threads of the Context.
// Errors:  kNumeric for a NaN or an infinity that is to become a scaled code.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "kernels/context.h"
#include "model/weight_format.h"

namespace cachalot::model {

// The values of a weight, valid until the next call.
using FloatSource = std::function<std::span<const float>(const std::string& name, const Shape&)>;

class WeightEncoder {
 public:
  WeightEncoder(const Context& ctx, WeightFormat format, const PackedConfig& packed,
                const Fp8Form& fp8, FloatSource source);

  // The tensors that weight `name` becomes in the format.
  void add(const std::string& name, const Shape& shape);
  void add_plain(const std::string& name, DType type, const Shape& shape);  // F32 or BF16
  void add_fp8(const std::string& name, const Shape& shape);
  void add_packed(const std::string& name, const Shape& shape, const PackedConfig::Form& form);
  void add_packed_shape(const std::string& name, const Shape& shape);
  // A tensor whose bytes are the caller's own.
  void add_foreign(const std::string& name, DType type, const Shape& shape);

  const std::vector<io::TensorToWrite>& tensors() const noexcept { return tensors_; }
  const PackedConfig& packed() const noexcept { return packed_; }
  const Fp8Form& fp8() const noexcept { return fp8_; }
  bool is_fp8(std::string_view name, const Shape& shape) const;  // becomes FP8 blocks
  DType plain_type(std::string_view name) const noexcept;        // of what has no codes
  std::uint64_t bytes() const;                                   // of all tensors

  bool is_foreign(const io::TensorToWrite& t) const;
  // The bytes of a tensor of the list that is not foreign, valid until the next call.
  const void* make(const io::TensorToWrite& t);

 private:
  enum class How : std::uint8_t {
    kForeign,
    kPlain,
    kFp8Codes,
    kFp8Scales,
    kPackedCodes,
    kPackedScales,
    kPackedShape
  };
  struct Part {
    std::string weight;
    Shape shape;  // of the weight
    How how;
  };
  void put(const std::string& name, DType type, const Shape& shape, Part part);
  const void* plain(const Part& part, DType type);
  void quantise(const Part& part);
  void pack(const Part& part);

  const Context& ctx_;
  WeightFormat format_;
  PackedConfig packed_;
  Fp8Form fp8_;
  FloatSource source_;
  std::vector<io::TensorToWrite> tensors_;
  std::map<std::string, Part> parts_;
  std::map<std::string, std::vector<Bf16>> kept_scales_;  // by weight
  std::vector<Bf16> bf16_;
  std::vector<std::uint8_t> codes_;
  std::vector<float> scales_;
  Shape packed_shape_;
};

}  // namespace cachalot::model
