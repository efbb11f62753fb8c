// A model folder of random weights in any shape and format: for benchmarks, and for trying what a
// shape needs before it is trained.
//
// Written one tensor at a time, so memory holds the largest tensor, not the model. The folder is
// whole or not there (model/new_folder.h).
//
// Values:  matrices N(0, std), norm weights 1 + N(0, std), router biases N(0, std) (small beside
// the
//          scores, which spread over a few tenths). They depend on the seed and the tensor's name
//          alone: a format holds what converting the f32 folder to it would give, FP8 with scales
//          that are powers of two where the config asks for such. The MTP layer's copies of
//          embedding and head are copies.
// Threads: one caller per Context; results do not depend on the number of threads.
// Errors:  kUsage (the target is there and not empty), kIo.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kernels/context.h"
#include "model/config.h"
#include "model/weight_format.h"

namespace cachalot::model {

struct InitOptions {
  WeightFormat format = WeightFormat::kBf16;
  std::optional<PackedConfig> packed;  // of int8 and int4; none: packed_config(format)
  // Of fp8: the head too, which published models keep in BF16; where it is the embedding, it stays.
  bool fp8_head = false;
  std::uint64_t seed = 1;
  double std = 0;  // 0: the config's initializer_range
  std::uint64_t shard_bytes = 5ull << 30;
  std::vector<std::filesystem::path> files;  // copied into the folder: a tokenizer
  // Before each tensor: bytes done, of all.
  std::function<void(std::uint64_t done, std::uint64_t all)> progress;
};
struct InitReport {
  std::uint64_t parameters = 0;  // the MTP layer's copies of embedding and head not counted
  std::size_t tensors = 0;       // of the file, scales included
  std::size_t fp8_tensors = 0;
  std::size_t packed_tensors = 0;
  std::uint64_t bytes = 0;  // of tensor data
};

// `config_json`: the text that `config` was read from; the folder gets it with the keys changed
// that say how weights are stored.
InitReport init_model(const Context& ctx, const Config& config, std::string_view config_json,
                      const std::filesystem::path& target, const InitOptions& options);

// The form that a config.json says its weights have: the default of a folder made from it.
WeightFormat format_of(const Config& config) noexcept;

}  // namespace cachalot::model
