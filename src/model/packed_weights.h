// Weights of a folder as they are stored: one logical tensor may lie in several of the file.
//
// `X.weight` in F8_E4M3 has `X.weight_scale_inv`; packed integers are `X.weight_packed`,
// `X.weight_scale` and `X.weight_shape` (docs/file-formats.md). The file is hostile until a view of
// it is given out.
//
// Owns:    nothing; views point into the mapping.
// Threads: pure functions.
// Errors:  kFormat, kShape, kUnsupported, naming file, tensor, what was met and needed.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "io/safetensors.h"
#include "model/config.h"
#include "tensor/quantized.h"

namespace cachalot::model {

// Names of the parts of the packed weight `name` ("X.weight").
struct PackedNames {
  std::string codes, scales, shape;
  explicit PackedNames(const std::string& name);
};
// "X.weight" for "X.weight_packed"; empty for any other name.
std::string packed_owner(std::string_view name);
// Scales and shapes belong to a weight and are no tensors of their own.
bool is_part_of_weight(const io::Safetensors& file, std::string_view name);

struct StoredPacked {
  Shape shape;
  const io::TensorView* codes = nullptr;
  const io::TensorView* scales = nullptr;
  QuantView view;  // its scales may be misaligned in the file: 2 bytes are needed
};
// The packed integers of weight `name`, checked; nothing where the file has none.
std::optional<StoredPacked> find_packed(const Config& config, const io::Safetensors& file,
                                        const std::string& name);

// The codes of an F8_E4M3 matrix with checked scales.
struct StoredFp8 {
  const io::TensorView* codes = nullptr;
  const io::TensorView* scales = nullptr;  // F32 or another type of real numbers
};
StoredFp8 find_fp8(const Config& config, const io::Safetensors& file, const std::string& name);

// Shape of the weight `name`, however it is stored.
Shape stored_shape(const Config& config, const io::Safetensors& file, const std::string& name);

bool is_head(std::string_view name);  // the output head, or the MTP layer's copy of it

// The form that weight `name` takes in a folder of integers; none for what stays BF16: embedding,
// norms, router, the MTP projection, and of attention kv_b_proj, which absorbed attention reads
// both ways; where projections have 4 bits also the small ones to the latents; and the head unless
// `packed` says how.
std::optional<PackedConfig::Form> packed_form(const PackedConfig& packed, std::string_view name,
                                              const Shape& shape);
// The form in which packed integers of that name are read.
PackedConfig::Form stored_form(const PackedConfig& packed, std::string_view name);

// `quantization_config` of such a folder.
nlohmann::ordered_json quantization_json(const PackedConfig& packed);

}  // namespace cachalot::model
