#include "train/memory_bound.h"

#include <cmath>

#include "base/error.h"
#include "cost/cost.h"
#include "runtime/memory.h"
#include "tensor/dtype.h"

namespace cachalot::train {

namespace {

double gb(double bytes) { return std::ceil(bytes * 1e-8) / 10; }

}  // namespace

double least_memory(const Recipe& recipe, const model::Config& config, int sequences) {
  constexpr double kMasterAndGradient = 4 + 4;
  const double moments = 2.0 * static_cast<double>(size_of(recipe.moment_type()));
  const auto parameters = static_cast<double>(cost::parameters(config).total);
  // The stream, its norm and its gradient as floats; of each layer the stream before attention and
  // before its feed-forward network, at a byte each whatever the precision. Logits come in pieces.
  const double of_a_token =
      static_cast<double>(config.hidden_size) * (3 * 4 + 2.0 * config.num_hidden_layers);
  const double tokens = static_cast<double>(sequences) * recipe.data.seq_len;
  return parameters * (kMasterAndGradient + moments) + tokens * of_a_token;
}

void check_memory(const Recipe& recipe, const model::Config& config, int sequences, double memory) {
  const double least = least_memory(recipe, config, sequences);
  if (memory <= 0 || least <= memory) return;
  throw Error(Code::kUsage,
              cat("training with ", sequences, " sequences of ", recipe.data.seq_len,
                  " tokens in a pass needs ", gb(least), " GB at least, and the machine has ",
                  gb(memory), " GB: set a smaller schedule.micro_batch, or take a smaller model"));
}

void check_memory_of_all(std::span<const Recipe> recipes, const model::Config& config,
                         int sequences, double memory) {
  double least = 0;
  for (const Recipe& recipe : recipes) {
    check_memory(recipe, config, sequences, memory);
    least += least_memory(recipe, config, sequences);
  }
  if (memory <= 0 || least <= memory) return;
  throw Error(Code::kUsage, cat("the models of ", recipes.size(), " precisions at once need ",
                                gb(least), " GB at least, and the machine has ", gb(memory),
                                " GB: take one after the other with --precision, set a smaller "
                                "schedule.micro_batch, or take a smaller model"));
}

double memory_to_check(const Context& ctx) {
  return ctx.device == nullptr ? static_cast<double>(runtime::total_memory()) : 0;
}

}  // namespace cachalot::train
