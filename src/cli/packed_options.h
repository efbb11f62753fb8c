// Flags of weights in 8 and 4 bits, shared by the commands that write such folders.
//
// Errors: kUsage where a flag is given for a format without integers.
#pragma once

#include <CLI/App.hpp>
#include <optional>

#include "model/weight_format.h"

namespace cachalot::cli {

struct PackedOptions {
  int group = 0;              // 0: the format's own
  std::string head = "int8";  // or "bf16"
  bool head_was_given = false;

  bool given() const noexcept { return group != 0 || head_was_given; }
};

void add_packed(CLI::App* app, PackedOptions& options);  // --group, --head
// How weights of `format` are packed; none where it has no integers.
std::optional<model::PackedConfig> packed_of(const PackedOptions& options,
                                             model::WeightFormat format);

}  // namespace cachalot::cli
