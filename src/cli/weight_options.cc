#include "cli/weight_options.h"

#include <CLI/Validators.hpp>

#include "base/error.h"

namespace cachalot::cli {

void add_weight_options(CLI::App* app, WeightOptions& o) {
  app->add_option("--group", o.group,
                  "Columns that share a scale, of int8 (unless given 128) and int4 (32)")
      ->check(CLI::IsMember({32, 64, 128}))
      ->type_name("32|64|128");
  app->add_option(
         "--head", o.head,
         "Output head of int8 and int4 folders (unless given int8) and of fp8 ones (unless "
         "given bf16, as published models have it). Every token reads all of it; in 8 bits "
         "it is half as long, but few other programs read it so")
      ->check(CLI::IsMember({"int8", "fp8", "bf16"}))
      ->type_name("int8|fp8|bf16");
}

std::optional<model::PackedConfig> packed_of(const WeightOptions& o, model::WeightFormat format) {
  const auto refuse = [&](const std::string& flag, const char* needed) {
    throw Error(Code::kUsage, cat(flag, " is for ", needed, ", but the weights are ",
                                  model::name(format), "; leave it out"));
  };
  const model::PackedConfig packed = model::packed_config(format, o.group, o.head != "bf16");
  if (!packed.enabled && o.group != 0) refuse("--group", "int8 and int4");
  if (!packed.enabled && o.head == "int8") refuse("--head int8", "int8 and int4");
  const bool fp8 = format == model::WeightFormat::kFp8;
  if (!fp8 && o.head == "fp8") refuse("--head fp8", "fp8");
  if (!packed.enabled && !fp8 && !o.head.empty()) refuse("--head", "fp8, int8 and int4");
  if (!packed.enabled) return std::nullopt;
  return packed;
}

void refuse_tied_head(const WeightOptions& o, const model::Config& config) {
  if (!o.asks_for_head() || !config.tie_word_embeddings) return;
  throw Error(Code::kUsage, cat("--head ", o.head,
                                ": this model's output head is its embedding "
                                "(tie_word_embeddings), which stays BF16; leave --head out"));
}

}  // namespace cachalot::cli
