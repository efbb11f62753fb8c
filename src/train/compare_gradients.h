// The gradients of one step in several precisions beside those of another, parameter by parameter:
// whether a precision rounds, or computes something else.
//
// All begin with the same weights: drawn as the recipe says, or after some steps of training, which
// bring activations and gradients to the sizes that they have in a run. A router may choose other
// experts where its input was rounded; held routing leaves that out.
//
// Threads: one caller; steps use the context's threads.
// Errors:  those of Parameters and TrainGraph; kUsage for a text shorter than a sequence, and where
//          memory cannot hold a step.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/runtime.h"
#include "train/recipe.h"

namespace cachalot::train {

struct GradientCase {
  std::string name;
  Recipe recipe;  // of its own precision and numerics; all else is the first one's
};

struct GradientOptions {
  int steps = 0;              // of training before, as the second case computes (or the only one)
  bool hold_routing = false;  // every token to the first experts
  std::string_view text;      // tokens are its bytes; empty: random ones
};

// Of all parameters that differ in the numbers of their layer and expert alone.
struct GradientAgreement {
  std::string kind;  // "layers.*.self_attn.q_a_proj.weight"
  int parameters = 0;
  double norm = 0;          // of the first case
  double cosine = 1;        // of all of them as one vector
  double worst_cosine = 1;  // of a single one with a gradient
  std::string worst;        // its name
  double ratio = 1;         // of the norms, to the first case's
  double least_ratio = 1e30, most_ratio = 0;
};

struct GradientComparison {
  std::string name;
  double loss = 0, mtp_loss = 0, norm = 0;
  double same_experts = 1;  // of the tokens' choices, those that the first case made too
  std::vector<GradientAgreement> kinds;  // in the order of the parameters, the last of all
};

// Of every case, the first beside itself. `progress` hears what is being done.
std::vector<GradientComparison> compare_gradients(
    const runtime::Runtime& runtime, const std::vector<GradientCase>& cases, int vocab_size,
    const GradientOptions& options, const std::function<void(const std::string&)>& progress);

}  // namespace cachalot::train
