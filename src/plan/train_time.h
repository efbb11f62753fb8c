// How long the parts of a training step take on given hardware.
//
// Products: operations over the rate the profile gives for so many rows (rates.*_gflops, else peak
// times the achieved share), times n / (n + half_size) for depth and width, times `sustained`.
// Attention: causal, forward once and backward 2.5 times its operations. Everything else is bound
// by memory: each value of an activation passes elementwise_bytes per pass, and each weight's
// gradient is read and written once per micro-batch. Dispatch and combine of the experts: bytes
// over the bandwidth measured for groups of that size.
//
// Threads: pure functions.
// Errors:  kConfig where the profile lacks a figure that the layout needs; it is named.
// Paper:   V3 report 3.2 and 3.3; "Insights into DeepSeek-V3" 4.
#pragma once

#include "cost/schedule_simulate.h"
#include "cost/train_traffic.h"
#include "plan/hardware.h"

namespace cachalot::plan {

struct PassSeconds {
  double forward = 0;
  double input_grad = 0;
  double weight_grad = 0;
  double sum() const noexcept { return forward + input_grad + weight_grad; }
  PassSeconds& operator+=(const PassSeconds& other) noexcept;
};
PassSeconds operator*(double factor, const PassSeconds& p) noexcept;

// One micro-batch in one layer, on one device.
struct LayerTime {
  PassSeconds products;
  PassSeconds attention;
  PassSeconds elementwise;
  PassSeconds accumulation;  // of weights' gradients
  PassSeconds sending;       // experts' dispatch and combine, tensor groups
  PassSeconds computing() const noexcept;
  LayerTime& operator+=(const LayerTime& other) noexcept;
};

// A layer takes as long whatever the pipeline: where only that changes in `layout`, the same clock
// goes on telling the time of stages, of sends and of the optimizer.
class TrainClock {
 public:
  TrainClock(const model::Config& config, const cost::Layout& layout,
             const HardwareProfile& hardware);

  cost::StageUnits units() const;
  // The whole of a stage, and as the schedule's simulation wants it.
  LayerTime stage(const cost::Stage& stage) const;
  cost::StageTimes stage_times(const cost::Stage& stage) const;
  double send_seconds() const;  // from stage to stage
  // Gradients to their owners, AdamW, weights back.
  double optimizer_seconds(const cost::DeviceParameters& parameters) const;

  // Seconds of one product [m, k] x [k, n].
  double product_seconds(Arithmetic arithmetic, double m, double n, double k) const;

 private:
  // What a model consists of, each part timed once; those it has not take no time.
  struct Parts {
    LayerTime dense, moe;  // a layer
    LayerTime head;        // logits, their softmax, one time
    LayerTime mtp;         // a layer with its projection and its head
  };
  Parts parts() const;
  LayerTime layer(bool moe) const;
  LayerTime head() const;
  LayerTime projection() const;  // of an MTP layer
  PassSeconds linear(Arithmetic arithmetic, double rows, double in, double out) const;
  LayerTime attention_block() const;
  LayerTime feed_forward(bool moe) const;
  void add_experts(LayerTime& t) const;
  void add_tensor_groups(LayerTime& t) const;
  void add_recomputation(LayerTime& t, bool moe) const;
  PassSeconds accumulate(double parameters) const;
  PassSeconds pass_over(double values) const;
  double sustained() const noexcept;
  double expert_bandwidth(const std::vector<double>& measured) const;

  const model::Config& config_;
  const cost::Layout& layout_;
  const HardwareProfile& hardware_;
  Arithmetic linear_arithmetic_;
  Arithmetic other_arithmetic_;
  double tokens_;  // of a micro-batch
  Parts parts_;
};

// What products of a training precision are computed in, and what attention and head are.
Arithmetic arithmetic_of(cost::TrainPrecision precision) noexcept;

}  // namespace cachalot::plan
