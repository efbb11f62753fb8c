// Any text as a recipe: a clear Error, or a Recipe whose dump gives the same Recipe again. After a
// NUL byte, if there is one, each line is an override as after --set.
// Links: train
#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "train/recipe.h"
#include "train/schedule.h"

static void require(bool truth) {
  if (!truth) std::abort();
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using cachalot::Code;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> overrides;
  if (const auto nul = text.find('\0'); nul != std::string_view::npos) {
    std::string_view rest = text.substr(nul + 1);
    text = text.substr(0, nul);
    while (!rest.empty()) {
      const auto end = std::min(rest.find('\n'), rest.size());
      overrides.emplace_back(rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  cachalot::train::Recipe recipe;
  try {
    recipe = cachalot::train::parse_recipe(text, "fuzz", overrides, "/folder");
  } catch (const cachalot::Error& e) {
    require(e.code() == Code::kFormat || e.code() == Code::kConfig || e.code() == Code::kUsage ||
            e.code() == Code::kUnsupported);
    const std::string_view what(e.what());
    require(what.starts_with("fuzz") || what.starts_with("--set"));
    for (const char c : what) require(static_cast<unsigned char>(c) >= 0x20);
    return 0;
  }
  // No Error here: what was accepted is dumped and accepted again.
  const std::string dump = cachalot::train::to_toml(recipe);
  const auto again = cachalot::train::parse_recipe(dump, "again", {}, "/other");
  require(cachalot::train::to_toml(again) == dump);
  require(cachalot::train::differences(recipe, again).empty());
  for (const std::int64_t step : {std::int64_t{0}, recipe.schedule.warmup_steps,
                                  recipe.schedule.steps - 1, std::int64_t{1} << 40}) {
    const double lr = cachalot::train::learning_rate(recipe, step);
    require(lr >= 0 && lr <= recipe.optimizer.lr * (1 + 1e-12));
    const int batch = cachalot::train::batch_size(recipe, step);
    require(batch >= 1 && batch <= recipe.schedule.batch);
    require(batch % cachalot::train::micro_batch_size(recipe, step) == 0);
  }
  return 0;
}
