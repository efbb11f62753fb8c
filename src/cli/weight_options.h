// Flags of weights in 8 and 4 bits, shared by the commands that write such folders.
//
// Errors: kUsage where a flag is given for a format that has no use for it.
#pragma once

#include <CLI/App.hpp>
#include <optional>
#include <string>

#include "model/weight_format.h"

namespace cachalot::cli {

struct WeightOptions {
  int group = 0;     // 0: the format's own
  std::string head;  // int8, fp8, bf16; empty: the format's own

  bool given() const noexcept { return group != 0 || !head.empty(); }
  bool asks_for_head() const noexcept { return !head.empty() && head != "bf16"; }
};

void add_weight_options(CLI::App* app, WeightOptions& options);  // --group, --head
// How weights of `format` are packed; none where it has no integers. Checks --group and --head.
std::optional<model::PackedConfig> packed_of(const WeightOptions& options,
                                             model::WeightFormat format);
// kUsage where a head in 8 bits is asked for by name and the model's is its embedding, which stays
// BF16.
void refuse_tied_head(const WeightOptions& options, const model::Config& config);

// Into the options of model::convert_model or model::init_model, whose format is set.
template <class ModelOptions>
void apply(const WeightOptions& o, ModelOptions& to) {
  to.packed = packed_of(o, to.format);
  to.fp8_head = o.head == "fp8";
}

}  // namespace cachalot::cli
