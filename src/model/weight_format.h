// The forms in which a model folder may hold its weights, and what config.json says of each.
//
// Threads: pure functions.
// Errors:  kUsage for an unknown name, kFormat for a config.json that is no object.
// Format:  FP8: F8_E4M3 codes and `<name>_scale_inv` F32 per block of 128 x 128 for the projections
//          of attention, MLPs and experts; embedding, head, norms, router gate, `eh_proj` stay
//          BF16; router biases stay F32 in every format. int8, int4: packed integers with a BF16
//          scale per group of columns (model/packed_weights.h).
// Paper:   DeepSeek-V3 report, section 3.3.1 (what stays in higher precision).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "model/config.h"
#include "tensor/tensor.h"

namespace cachalot::model {

enum class WeightFormat : std::uint8_t { kF32, kBf16, kFp8, kInt8, kInt4 };
std::string_view name(WeightFormat format) noexcept;      // "f32", "bf16", "fp8", "int8", "int4"
WeightFormat parse_weight_format(std::string_view text);  // kUsage naming the five

bool is_fp8_weight(std::string_view name, const Shape& shape);  // FP8 in published FP8 models
bool is_router_bias(std::string_view name);

// How integers of `format` are packed; group 0: 128 columns share a scale in 8 bits, 32 in 4. The
// head has 8 bits, or stays BF16. Not enabled for the other formats.
PackedConfig packed_config(WeightFormat format, int group = 0, bool pack_head = true);

// The same for a model: a head that is the embedding (tie_word_embeddings) has no form of its own
// and stays BF16, and so does the MTP layer's copy of it.
PackedConfig packed_for(const Config& config, PackedConfig packed);

// What may differ between two folders of FP8 blocks.
struct Fp8Form {
  bool head = false;  // the head too, which published models keep in BF16
  // Scales are powers of two, and whoever runs the folder in FP8 is to quantise activations so:
  // what a config.json says with "scale_fmt": "ue8m0".
  bool ue8m0_scales = false;
};

// A config.json with the keys that say how weights are stored; every other key, also one this
// program does not know, stays. Of `quantization_config` other keys stay where the form is the one
// that the source had; of another form nobody knows whether they hold. `file_name` is for messages.
std::string stored_config(std::string_view json, const std::string& file_name, WeightFormat format,
                          const PackedConfig& packed, const Fp8Form& fp8);

}  // namespace cachalot::model
