// A model folder opened for running: weights used as they lie in the mapped files.
//
// Owns:    the mapping, and copies of the few tensors that cannot be used in place (norms and
// biases as float, F16,
//          FP8 blocks dequantised, tensors the file has misaligned).
// Threads: immutable after load; shared freely.
// Errors:  kIo, kFormat, kConfig, kShape, naming file, tensor, what was met and needed.
// Format:  Hugging Face folder; FP8: value = code * weight_scale_inv[row / 128, col / 128].
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "kernels/context.h"
#include "model/config.h"
#include "nn/params.h"

namespace cachalot::model {

// One tensor as floats, FP8 blocks multiplied out; its shape must be `shape`.
std::vector<float> read_floats(const Config& config, const io::Safetensors& file,
                               const std::string& name, const Shape& shape);

class Model {
 public:
  // `precision`: of the products it will run in. FP8 weights become F32 for kF32 (exact) and BF16
  // for kBF16; BF16 and F32 tensors are never copied.
  static Model load(const std::filesystem::path& folder, Precision precision);
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;
  ~Model();

  const Config& config() const noexcept;
  const nn::Weights& weights() const noexcept;
  Precision precision() const noexcept;
  bool has_mtp() const noexcept { return !weights().mtp.empty(); }
  std::uint64_t copied_bytes() const noexcept;  // weights held beside the mapping
  std::uint64_t mapped_bytes() const noexcept;

 private:
  struct State;
  explicit Model(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cachalot::model
