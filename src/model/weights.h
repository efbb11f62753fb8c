// A model folder opened for running: weights used as they lie in the mapped files, or copied.
//
// Owns:    the mapping, and copies of the few tensors that cannot be used in place (norms and
//          biases as float, F16, tensors the file has misaligned, codes in 8 or 4 bits that are to
//          be multiplied out); for a device, copies of all of them in its memory.
// Threads: immutable after load; shared freely.
// Errors:  kIo, kFormat, kConfig, kShape, naming file, tensor, what was met and needed.
// Format:  Hugging Face folder; FP8 and integers: model/packed_weights.h.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "kernels/context.h"
#include "model/config.h"
#include "nn/numerics.h"
#include "nn/params.h"

namespace cachalot::model {

// One tensor as floats, codes multiplied out; its shape must be `shape`.
std::vector<float> read_floats(const Config& config, const io::Safetensors& file,
                               const std::string& name, const Shape& shape);

// Published folders may leave the MTP layers out although config.json counts them: then it counts
// none any more, and `remarks`, where given, says so.
void drop_absent_mtp(Config& config, const io::Safetensors& file,
                     std::vector<std::string>* remarks = nullptr);

struct LoadOptions {
  Precision precision = Precision::kBF16;  // of the products it will run in
  // Projections in FP8, int8 or int4 are multiplied as they lie in the file. Otherwise, and with
  // kF32 unless activations are quantised, they become BF16 or F32. kv_b_proj does in any case:
  // absorbed attention reads it both ways.
  bool keep_codes = false;
  // With kept codes: what they are multiplied with. E4M3 needs weights in FP8, int8 needs integers;
  // both are made in tiles of 1 x 128.
  enum class Activations : std::uint8_t { kBf16, kFp8, kInt8 };
  Activations activations = Activations::kBf16;
  // How products of FP8 activations are summed. Hopper's way is an emulation, slow and on the CPU.
  Accumulation accumulation = {};
  // Where matrices lie that could be used in the file (but for the embedding, of which a pass reads
  // a few rows): there; copied into huge pages; or copied as products read them: codes in panels
  // (tensor/quantized.h), bf16 as pack_b lays it out, kv_b_proj so beside itself. What is read
  // otherwise (codes for FP8 activations, the router) is copied as it is then.
  // With a device in `context` everything lies on it as the file has it, whatever is asked for.
  enum class Placement : std::uint8_t { kMapped, kCopied, kPacked, kOnDevice };
  Placement placement = Placement::kMapped;
  // Copies and packs; kPacked needs it, and passes have to run at its level. None: this thread.
  const Context* context = nullptr;
  // Bytes on the device so far, where there is one.
  std::function<void(std::uint64_t bytes)> progress = {};
  // `precision` is what precision_for says of the folder's weights instead.
  bool precision_of_weights = false;
};

// kF32 where most bytes of a folder's weights are F32; kBF16 where they are kept in two bytes or
// fewer, codes in 8 and 4 bits among them: there float products are slow and win nothing to speak
// of.
Precision precision_for(const io::Safetensors& file);

std::string_view name(LoadOptions::Placement placement) noexcept;  // "mapped", ...

class Model {
 public:
  static Model load(const std::filesystem::path& folder, const LoadOptions& options);
  static Model load(const std::filesystem::path& folder, Precision precision) {
    return load(folder, LoadOptions{precision});
  }
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;
  ~Model();

  const Config& config() const noexcept;
  const nn::Weights& weights() const noexcept;
  Precision precision() const noexcept;
  const nn::Numerics& numerics() const noexcept;  // of a pass
  bool has_mtp() const noexcept { return !weights().mtp.empty(); }
  LoadOptions::Placement placement() const noexcept;
  std::uint64_t copied_bytes() const noexcept;  // weights held beside the mapping
  std::uint64_t mapped_bytes() const noexcept;
  std::uint64_t code_bytes() const noexcept;  // of them, weights that stay in 8 or 4 bits
  // What is odd about the folder without being wrong: keys of its config.json that look misspelt,
  // an MTP layer that is promised there and not in the files.
  const std::vector<std::string>& remarks() const noexcept;

 private:
  struct State;
  explicit Model(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cachalot::model
