// Flags of the latent cache and of attention, shared by commands that run a model.
//
// Errors: kUsage names the flag and what it has to be.
#pragma once

#include <CLI/App.hpp>
#include <optional>
#include <string>

#include "kernels/latent_rows.h"
#include "model/forward.h"

namespace cachalot::cli {

struct CacheOptions {
  std::string format = "auto";
  double memory_gib = 0;
  bool fast = false;

  std::optional<LatentFormat> latent_format() const;  // none: auto
  model::AttentionMode attention() const {
    return fast ? model::AttentionMode::kAuto : model::AttentionMode::kAbsorbed;
  }
};

void add_kv_cache(CLI::App* app, CacheOptions& options);   // --kv-cache
void add_fast(CLI::App* app, CacheOptions& options);       // --fast
void add_kv_memory(CLI::App* app, CacheOptions& options);  // --kv-memory

}  // namespace cachalot::cli
