// The latent cache of one sequence: per layer one row [L + R] per token, the normed latent and the
// rotated rope key. Keys and values are never kept.
//
// Owns:    its rows, F32 for Precision::kF32, BF16 for kBF16; grows by doubling up to `capacity`.
// Threads: one user at a time.
// Errors:  growing past `capacity` throws kUsage: the caller checks lengths first.
// Paper:   V3 report 2.1.1.
#pragma once

#include <vector>

#include "kernels/context.h"
#include "model/config.h"
#include "tensor/mat.h"

namespace cachalot::model {

class LatentCache {
 public:
  // Layers of the main model and, where it has one, the MTP layer (index num_hidden_layers).
  LatentCache(const Config& config, Precision precision, int capacity);

  int length() const noexcept { return length_; }          // tokens in the main layers
  int mtp_length() const noexcept { return mtp_length_; }  // rows in the MTP layer
  int capacity() const noexcept { return capacity_; }
  DType dtype() const noexcept { return dtype_; }
  std::size_t bytes() const noexcept;  // held now

  // Makes room for rows up to `end` in all layers.
  void reserve(int end);
  // Writes the rows of positions [begin, begin + c_kv.rows) of one layer.
  void write(const Context& ctx, int layer, int begin, MatView<const float> c_kv,
             MatView<const float> k_rope);
  // The first `rows` rows of a layer, [rows, L + R].
  MatRef rows(int layer, int rows) const;
  // The first out.rows rows of a layer as float: latent part [rows, L], rope part [rows, R].
  void latent(const Context& ctx, int layer, MatView<float> out) const;
  void k_rope(const Context& ctx, int layer, MatView<float> out) const;

  void set_length(int length) { length_ = length; }  // after a pass, or to forget rejected tokens
  void set_mtp_length(int length) { mtp_length_ = length; }

 private:
  void columns(const Context& ctx, int layer, int begin, MatView<float> out) const;

  int latent_ = 0;
  int width_ = 0;
  int capacity_ = 0;
  int reserved_ = 0;
  int length_ = 0;
  int mtp_length_ = 0;
  DType dtype_;
  std::vector<Mat<float>> floats_;  // per layer; one of the two is in use
  std::vector<Mat<Bf16>> bf16s_;
};

}  // namespace cachalot::model
