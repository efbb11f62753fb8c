#include "cli/packed_options.h"

#include <CLI/Validators.hpp>

#include "base/error.h"

namespace cachalot::cli {

void add_packed(CLI::App* app, PackedOptions& o) {
  app->add_option("--group", o.group,
                  "Columns that share a scale, of int8 (unless given 128) and int4 (32)")
      ->check(CLI::IsMember({32, 64, 128}))
      ->type_name("32|64|128");
  app->add_option("--head", o.head,
                  "Output head of int8 and int4: int8 is read twice as fast as bf16, which "
                  "programs that know no packed head need")
      ->check(CLI::IsMember({"int8", "bf16"}))
      ->type_name("int8|bf16")
      ->each([&o](const std::string&) { o.head_was_given = true; });
}

std::optional<model::PackedConfig> packed_of(const PackedOptions& o, model::WeightFormat format) {
  const model::PackedConfig packed = model::packed_config(format, o.group, o.head == "int8");
  if (packed.enabled) return packed;
  if (o.given()) {
    throw Error(Code::kUsage, cat(o.group != 0 ? "--group" : "--head",
                                  " is for int8 and int4, but the weights are ",
                                  model::name(format), "; leave it out"));
  }
  return std::nullopt;
}

}  // namespace cachalot::cli
