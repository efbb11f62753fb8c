#include "cli/cache_options.h"

#include <CLI/Validators.hpp>

#include "base/error.h"
#include "cli/finite.h"

namespace cachalot::cli {

namespace {
constexpr const char* kGroup = "Latent cache";
}

std::optional<LatentFormat> CacheOptions::latent_format() const {
  if (format == "auto") return std::nullopt;
  for (const LatentFormat f : {LatentFormat::kF32, LatentFormat::kBF16, LatentFormat::kFp8}) {
    if (format == name(f)) return f;
  }
  throw Error(Code::kUsage,
              cat("--kv-cache is `", format, "`, but must be auto, f32, bf16 or fp8"));
}

void add_kv_cache(CLI::App* app, CacheOptions& o) {
  app->add_option(
         "--kv-cache", o.format,
         "What a token keeps: fp8 takes 57 % of bf16 (E4M3 latents, scales per 128); auto: "
         "that of --precision")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "fp8"}))
      ->type_name("auto|f32|bf16|fp8")
      ->group(kGroup);
}

void add_fast(CLI::App* app, CacheOptions& o) {
  app->add_flag(
         "--fast", o.fast,
         "Rebuild keys and values for long prompts: faster deep in a context, but results may "
         "differ in the last bits with how a prompt is cut")
      ->group(kGroup);
}

void add_kv_memory(CLI::App* app, CacheOptions& o) {
  app->add_option("--kv-memory", o.memory_gib,
                  "GiB for the caches of all sequences; 0: half of the memory there is")
      ->check(finite_range(0, 1048576))
      ->type_name("GIB")
      ->group(kGroup);
}

}  // namespace cachalot::cli
