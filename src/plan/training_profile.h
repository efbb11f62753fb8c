// What a hardware profile says of training: how much of what a kernel reaches alone is left inside
// a step, and what the all-to-all of the experts reaches.
//
// Owns:    its lists; a plain value.
// Threads: values; nothing shared.
// Errors:  those of HardwareProfile, which has this as its section [training].
// Paper:   DeepEP README (normal kernels); FlashAttention-3; FlashMLA's notes on throttling.
#pragma once

#include <string>
#include <vector>

#include "base/fields.h"

namespace cachalot::plan {

struct TrainingProfile {
  double sustained = 0;           // of the rate of a kernel measured alone; 0: 1
  double attention_forward = 0;   // share of the bf16 peak (else f32); 0: achieved.attention
  double attention_backward = 0;  // 0: as forward
  double expert_imbalance = 0;    // tokens of the busiest device over the mean; 0: 1
  // Bandwidth of dispatch and combine by the size of the expert group, in DeepEP's way of counting:
  // one copy of a token per node, the sender's own included.
  std::vector<double> expert_ranks;
  std::vector<double> dispatch_gbps;
  std::vector<double> combine_gbps;
  // A product loses half of its rate where its depth or width is so small, that is, reaches
  // n / (n + half_size) of it; and where its rows are, unless rates by rows are measured.
  double half_size = 0;
  double elementwise_bytes = 0;  // read and written per value of an activation, and pass; 0: 4
  double product_us = 0;         // of each product, besides bytes and operations
  double reserve_gb = 0;         // of a device's memory that is not the model's: buffers, runtime
  std::string source;
  void fields(FieldVisitor& f);
};

}  // namespace cachalot::plan
