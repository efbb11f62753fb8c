// Converting a model folder to another precision, and comparing two folders tensor by tensor.
//
// A folder is converted one tensor at a time, so memory holds the largest tensor, not the model.
// The new folder is written beside and renamed: it is whole or not there.
//
// Threads: one caller per Context; results do not depend on the number of threads.
// Errors:  kUsage (the target is the source, or no place for a new folder), kIo, and what reading a
//          model folder throws.
// Format:  model/weight_format.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"
#include "kernels/context.h"
#include "model/weight_format.h"

namespace cachalot::model {

struct ConvertOptions {
  WeightFormat format = WeightFormat::kBf16;
  std::optional<PackedConfig> packed;  // of int8 and int4; none: packed_config(format)
  // Of fp8: the head too, which published models keep in BF16; where it is the embedding, it stays.
  bool fp8_head = false;
  std::uint64_t shard_bytes = 5ull << 30;
  // Called after each tensor: how many are done, of how many.
  std::function<void(std::size_t done, std::size_t all)> progress;
};
struct ConvertReport {
  std::size_t tensors = 0;         // written, scales included
  std::size_t fp8_tensors = 0;     // of them in FP8
  std::size_t packed_tensors = 0;  // of them packed integers
  std::uint64_t bytes = 0;         // of tensor data
  std::vector<std::string> copied_files;
  std::vector<std::string> remarks;  // on the source's config.json: keys that look misspelt
};

// Weights, config.json (quantization_config, torch_dtype; all other keys as they are) and the other
// files of the folder: tokenizer, generation_config.json, licence. Weights that have the target's
// form already, FP8 or integers of that width and group, are kept bit for bit. From FP8 to FP8,
// scales that the source's config.json calls powers of two stay such.
ConvertReport convert_model(const Context& ctx, const std::filesystem::path& source,
                            const std::filesystem::path& target, const ConvertOptions& options);

// Values compared after codes in 8 or 4 bits are multiplied out.
struct TensorComparison {
  std::string name;
  bool in_a = false, in_b = false;
  std::string type_a, type_b;  // "BF16", "F8_E4M3", "INT4"
  Shape shape_a, shape_b;
  bool compared = false;       // in both, with one shape
  bool bit_identical = false;  // same type and bytes, scales too
  double max_abs_error = 0;    // infinity where one is NaN or infinite and the other is not
  double max_rel_error = 0;    // max_abs_error / largest |a|
  double rms_error = 0;
  double rms_a = 0;
};
std::vector<TensorComparison> compare_models(
    const Context& ctx, const std::filesystem::path& a, const std::filesystem::path& b,
    const std::function<void(std::size_t done, std::size_t all)>& progress = nullptr);

}  // namespace cachalot::model
