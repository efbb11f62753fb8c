// Which model to train on the hardware there is, in the time or for the money there is: shapes of
// DeepSeek-V3's kind are timed by the training plan and ordered by a scaling law.
//
// A scaling law knows sizes, experts and tokens. What it does not know follows rules: widths and
// depths of like proportion (Kaplan et al. 2020, section 3: loss hardly depends on them), a shared
// expert as wide as a routed one, the feed-forward part 2.6 times as wide as the stream (V3: 9 x
// 2048 / 7168), the latent four heads wide (V2 report 2.1.4) unless the cache must be smaller.
//
// Threads: pure functions; the same answer every time.
// Errors:  kConfig where no shape meets the constraints (the nearest miss is named).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "plan/scaling_law.h"
#include "plan/train_plan.h"

namespace cachalot::plan {

struct DesignRequest {
  double device_hours = 0;
  int nodes = 1;
  int sequence = 4096;
  int vocabulary = 129280;
  double unique_tokens = 0;  // 0: never repeated
  double token_bytes = 0;    // of text in a token; 0: as many as in one of the law's
  int batch = 0;             // sequences of a step; 0: by the rule of batch_tokens
  ScalingLaw law = ScalingLaw::kJointMoe;
  std::optional<cost::TrainPrecision> precision;  // none: whatever comes to the lower loss
  int mtp_layers = 1;
  // Constraints; 0: none.
  double kv_bytes = 0;  // of the cache per token, in bf16
  double tpot_ms = 0;   // per token of one stream, at a full context
  double active_parameters = 0;
  double total_parameters = 0;
};

struct Design {
  model::Config config;
  cost::TrainPrecision precision = cost::TrainPrecision::kBf16;
  int batch = 0;  // sequences of a step
  double steps = 0;
  double tokens = 0;
  double seconds = 0;  // of the run
  double device_hours = 0;
  double money = 0;
  double loss = 0;
  double active = 0;  // parameters of products, and all
  double total = 0;
  double kv_bytes = 0;
  double tpot_ms = 0;
  double learning_rate = 0;
};

struct DesignResult {
  Design best;
  std::optional<TrainPlan> plan;  // of the best, with its layout
  // No other is better in loss, cost and cache at once; for an eighth, a quarter, a half and all of
  // the budget.
  std::vector<Design> front;
  int considered = 0;
  int refused = 0;  // by the constraints, or a memory that is too small in any case
};

// Each design has the layout that suits it best. No shape that the request allows comes to a lower
// loss than the best one, and none that is not on the front could be.
DesignResult search_designs(const HardwareProfile& hardware, const DesignRequest& request);

// One shape timed: what `request` makes of it. For comparing shapes made by hand with.
struct TimedDesign {
  Design design;
  TrainPlan plan;
};
TimedDesign evaluate_design(const HardwareProfile& hardware, const DesignRequest& request,
                            const model::Config& config, cost::TrainPrecision precision,
                            double device_hours);

// Whether a machine has matrix units that want wide products (accelerators), or is one of CPUs.
bool is_large(const HardwareProfile& hardware) noexcept;
// Standard deviation of a design's initial weights: DeepSeek-V3's 0.006 at its width of 7168 (V3
// report 4.2), by the inverse root of the width (Yang et al. 2022, arXiv 2203.03466), so that what
// a product gives is as large at every width.
double initial_deviation(int width);
// The shapes that are tried.
std::vector<model::Config> design_shapes(const DesignRequest& request, bool large_machine);

// Tokens of a step, from those of the run: Li et al. 2025 (Step Law, arXiv 2503.04715), 0.58
// D^0.571. On one device a step is not larger than keeps its speed: the smallest of 1, 2, 4, ...
// sequences that is at most 5 % slower per token than the law's (Marek et al. 2025, arXiv
// 2507.07101: the smallest batch that still has the full throughput; smaller ones learn as much per
// token or more).
double batch_tokens(double tokens);
// Peak rate, from parameters, tokens, tokens of a step and the width of the stream. From 60 million
// parameters on, where its fit begins, Step Law: 1.79 N^-0.713 D^0.307. Below, it would ask for
// several times what was best in runs here (docs/planning-training.md): instead 1e-3 at a width of
// 256 and steps of 2048 tokens, by the inverse of the width (Yang et al. 2022, arXiv 2203.03466).
// Either by the root of the step (Malladi et al. 2022, arXiv 2205.10287; of the law's no more than
// its own), and at most 3e-3.
double learning_rate(double parameters, double tokens, double batch, double width);

}  // namespace cachalot::plan
