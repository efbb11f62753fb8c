// The end of a training step: gradient norm, clipping, AdamW, the routers' balance biases, and the
// running mean of the weights.
//
// Owns:    the moments m and v and, where asked for, the mean of the weights, all laid out as the
//          parameters' arena.
// Threads: one caller.
// Paper:   V3 report 4.2 (AdamW, clipping at 1.0), 3.3.3 (moments in bf16), 2.1.2 (bias += gamma *
//          sign(mean load - load)), 3.2.3 (EMA of the parameters).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/adamw.h"
#include "model/parameters.h"

namespace cachalot::model {

struct OptimizerOptions {
  DType moments = DType::kF32;  // or kBF16
  // Of the mean of the weights, kept in float; 0: none. bf16 would stand still: a step of (1 -
  // decay) is below half a bf16 step for every decay of use.
  double ema_decay = 0;
};

struct OptimizerStep {
  AdamWConfig adamw;  // weight decay is applied to matrices only
  double clip_norm = 1.0;
  double bias_gamma = 1e-3;
};

struct OptimizerReport {
  double grad_norm = 0;  // before clipping
  double clip_scale = 1;
  bool skipped = false;  // the norm was not finite, or too large to square: nothing was changed
};

class Optimizer {
 public:
  explicit Optimizer(const Parameters& parameters, const OptimizerOptions& options = {});

  static void zero_gradients(Parameters& parameters) { zero_gradients(Context{}, parameters); }
  static void zero_gradients(const Context& ctx, Parameters& parameters);
  // `expert_load` per MoE layer, of the whole batch, in the order of parameters.biases().
  OptimizerReport step(const Context& ctx, Parameters& parameters,
                       std::span<const std::vector<std::int64_t>> expert_load,
                       const OptimizerStep& options);

  std::int64_t steps() const noexcept { return steps_; }  // taken so far
  void set_steps(std::int64_t steps) noexcept { steps_ = steps; }

  // What a checkpoint holds: "m.NAME" and "v.NAME" of every parameter, elements of moment_type().
  // Of a device's moments the host has a copy then, which lasts until the next call.
  DType moment_type() const noexcept { return options_.moments; }
  std::vector<io::TensorToWrite> moment_tensors(const Parameters& parameters) const;
  void set_moments(const Parameter& p, const void* m, const void* v);

  // The mean of the weights (and router biases): ema += (1 - d) (weights - ema) after each step
  // that was taken, with d = min(ema_decay, (1 + step) / (10 + step)), so that a short run's mean
  // is not one of its beginning.
  bool has_average() const noexcept { return options_.ema_decay > 0; }
  void begin_average(const Parameters& parameters);  // the mean is these values from now on
  // Exchanges the parameters with their mean: to evaluate the mean, and back again.
  void swap_average(Parameters& parameters);
  // Parameters::tensors() of the mean.
  std::vector<io::TensorToWrite> average_tensors(const Parameters& parameters) const;

  // Master weights and both moments, without the mean: what AdamW keeps of a parameter. The gaps
  // between tensors are not counted.
  static std::int64_t state_bytes(const Parameters& parameters, DType moments);

 private:
  std::size_t place(const Parameter& p) const noexcept {  // in bytes
    return static_cast<std::size_t>(p.offset) * size_of(options_.moments);
  }
  template <class M>
  static std::span<M> arena(Mat<std::byte>& moments) noexcept {
    return {reinterpret_cast<M*>(moments.data()), moments.size() / sizeof(M)};
  }
  template <class M>
  void adamw_all(const Context& ctx, Parameters& parameters, const AdamWConfig& config,
                 double clip_scale);
  void update_average(const Context& ctx, const Parameters& parameters);

  OptimizerOptions options_;
  Mat<std::byte> m_, v_;
  Mat<float> average_;
  mutable Mat<std::byte> file_m_, file_v_;  // what moment_tensors() points at, of a device's
  mutable Mat<float> file_average_;         // likewise average_tensors()
  std::vector<std::vector<float>> average_biases_;
  std::int64_t steps_ = 0;
};

}  // namespace cachalot::model
