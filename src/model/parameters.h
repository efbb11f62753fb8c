// All parameters of a model in one float arena, with gradients beside them: what training works on.
//
// Where a device is given, values, gradients and codes lie there, and so do the addresses that this
// hands out; router biases are kept by the host, with a copy there.
//
// Owns:    values, gradients, router biases, and codes of the values for FP8 products. Every tensor
// starts at a multiple of 16 floats; the
//          gaps stay zero, so that the arena can be summed as one vector.
// Threads: plain memory; one writer at a time.
// Errors:  kFormat / kShape from `load`, naming the tensor.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "kernels/fp8.h"
#include "model/config.h"
#include "nn/numerics.h"
#include "nn/params.h"

namespace cachalot::model {

struct Parameter {
  std::string name;
  int rows = 0;             // vectors: 0
  int cols = 0;             // vectors: their length
  std::int64_t offset = 0;  // into the arena, in floats
  bool is_matrix() const noexcept { return rows > 0; }
  std::int64_t size() const noexcept { return std::int64_t{cols} * (is_matrix() ? rows : 1); }
  Shape shape() const { return is_matrix() ? Shape{rows, cols} : Shape{cols}; }
};

struct RouterBias {
  std::string name;
  int layer = 0;  // num_hidden_layers for the MTP layer
  std::vector<float> value;
};

class Parameters {
 public:
  explicit Parameters(const Config& config, Device* device = nullptr);  // zeroed

  // Matrices N(0, std), norm weights 1, biases 0; to every row of the embedding the same vector
  // of N(0, embedding_mean) is added. A tensor's values depend on the seed and its own name only.
  //
  // The common vector is what attention tells positions by in the first layer: a rotated query
  // and a rotated key say how far apart two tokens are where neither depends on the token. Later
  // layers get such a part from the ones before; the first would have to learn it.
  void initialise(double std, std::uint64_t seed) { initialise(Context{}, std, seed); }
  void initialise(const Context& ctx, double std, std::uint64_t seed, double embedding_mean = 0);
  // From a checkpoint of the same shape: F32, BF16, F16, or F8_E4M3 with weight_scale_inv. Copies
  // of embedding and head in the MTP layer are ignored: training shares them.
  void load(const io::Safetensors& file) { load(file, config_); }
  // `source`: the file's own config.json, which says how its FP8 blocks are cut.
  void load(const io::Safetensors& file, const Config& source);
  // As published names; with the MTP layer's copies of embedding and head, as other tools expect.
  // Of a device's weights the host has a copy then, which lasts until the next call.
  std::vector<io::TensorToWrite> tensors() const;
  // The same with other values in their places: laid out as values(), and as biases().
  std::vector<io::TensorToWrite> tensors_with(const float* values,
                                              std::span<const float* const> biases) const;

  const Config& config() const noexcept { return config_; }
  const std::vector<Parameter>& list() const noexcept { return list_; }
  std::vector<RouterBias>& biases() noexcept { return biases_; }
  const std::vector<RouterBias>& biases() const noexcept { return biases_; }
  std::int64_t count() const noexcept { return count_; }  // without padding and biases

  // Whoever asks for values to write may change them: codes made before are stale from then on.
  std::span<float> values() noexcept {
    ++version_;
    return values_.span();
  }
  std::span<const float> values() const noexcept { return values_.span(); }
  std::span<float> gradients() noexcept { return gradients_.span(); }
  std::span<const float> gradients() const noexcept { return gradients_.span(); }
  std::span<float> value(const Parameter& p) noexcept {
    ++version_;
    return slice(values_, p);
  }
  std::span<float> gradient(const Parameter& p) noexcept { return slice(gradients_, p); }

  Device* device() const noexcept { return device_; }
  // What a pass on a device reads besides the values, made new where it is stale: its copy of the
  // biases, and for bf16 products the matrices in bf16, so that not every product rounds them
  // again.
  void refresh(const Context& ctx, const nn::Numerics& num);

  // Gives the weights of every Linear that FP8 products may read their codes, unless those it has
  // are of these very values.
  void quantize(const Context& ctx, const nn::Numerics& num);
  std::size_t code_bytes() const noexcept;

  const nn::Weights& weights() const noexcept { return weights_; }
  const nn::Gradients& gradient_tree() const noexcept { return gradient_tree_; }

 private:
  void bind_weights();
  void make_room_for_codes(ScaleTile tile);
  void set(const Parameter& p, std::span<const float> values);
  static std::span<float> slice(Mat<float>& arena, const Parameter& p) {
    return {arena.data() + p.offset, static_cast<std::size_t>(p.size())};
  }
  Config config_;
  Device* device_ = nullptr;
  std::vector<Parameter> list_;
  std::vector<RouterBias> biases_;
  std::int64_t count_ = 0;
  Mat<float> values_, gradients_;
  Mat<float> device_biases_;  // of all layers, one after the other
  Mat<Bf16> rounded_;         // the values, on a device whose products read bf16
  bool all_rounded_ = false;  // not only those that have no codes in FP8
  std::uint64_t rounded_version_ = 0;
  mutable Mat<float> file_copy_;  // what tensors() points at where the values lie on a device
  std::vector<Fp8Mat> codes_;     // of one parameter, or of gate and up
  std::vector<Fp8Mat> turned_;    // likewise, codes transposed: on a device alone
  std::vector<Fp8View> code_views_, turned_views_;  // one per parameter; no rows: none
  ScaleTile code_tile_ = ScaleTile::kBlock;
  std::vector<QuantizeFp8> code_jobs_;  // that make them
  std::uint64_t version_ = 1;
  std::uint64_t codes_version_ = 0;
  nn::Weights weights_;
  nn::Gradients gradient_tree_;
};

}  // namespace cachalot::model
