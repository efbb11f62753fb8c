// Any text as config.json: a clear Error, or a Config whose text gives the same Config again.
// Links: model
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "model/config.h"

static void require(bool truth) {
  if (!truth) std::abort();
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using cachalot::Code;
  cachalot::model::Config config;
  try {
    config = cachalot::model::parse_config({reinterpret_cast<const char*>(data), size}, "fuzz");
  } catch (const cachalot::Error& e) {
    require(e.code() == Code::kFormat || e.code() == Code::kConfig ||
            e.code() == Code::kUnsupported);
    require(std::string_view(e.what()).starts_with("fuzz"));
    return 0;
  }
  const double scale = config.softmax_scale();
  require(std::isfinite(scale) && scale > 0);
  require(config.qk_head_dim() > 0 && config.cache_row_width() > 0);
  for (int layer = 0; layer < config.num_hidden_layers; layer += 1000) {
    require(!config.is_moe_layer(layer) || config.route.topk <= config.route.experts);
  }
  // No Error here: what was accepted is written and accepted again.
  require(cachalot::model::parse_config(to_json(config), "again") == config);
  return 0;
}
