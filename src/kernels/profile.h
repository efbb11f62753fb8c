// Where the time of a step goes, by part of the model. Off (null in the Context) except when asked
// for.
//
// A part ends where the next begins, so nested parts count once: time in a product inside attention
// is the product's if it switched.
// Threads: the caller of the ops only; the pool's threads never touch it.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/context.h"
#include "tensor/device.h"

namespace cachalot {

enum class Part : std::uint8_t {
  kOther,
  kAttention,    // the core: scores, softmax, values
  kDense,        // products of attention's projections, dense MLPs, the MTP projection
  kExperts,      // products of routed and shared experts
  kHead,         // output head and cross entropy
  kRouting,      // gate, permutation, combine
  kElementwise,  // norms, SwiGLU, rope, embedding
  kQuantize,     // FP8 codes and scales
  kKeep,         // activations written for the backward and read again
  kOptimizer,
};
inline constexpr std::array<std::string_view, 10> kPartNames = {
    "other",   "attention",   "dense",    "experts", "head",
    "routing", "elementwise", "quantize", "keep",    "optimizer"};

class Profile {
 public:
  // Time from now on counts as `part`; returns what it counted as before.
  Part switch_to(Part part) {
    if (device_ != nullptr) device_->wait();
    const auto now = Clock::now();
    const double passed = std::chrono::duration<double>(now - since_).count();
    if (!paused_) seconds_[static_cast<std::size_t>(part_)] += passed;
    paused_ = false;
    since_ = now;
    const Part before = part_;
    part_ = part;
    return before;
  }
  // What a device computes counts where it was asked for: every switch waits for it, which costs
  // time of its own. Null: of a device only the asking is counted.
  void wait_for(Device* device) { device_ = device; }
  // Time until the next switch is nobody's.
  void pause() { paused_ = true; }
  void reset() { seconds_.fill(0); }
  double seconds(Part part) const { return seconds_[static_cast<std::size_t>(part)]; }

 private:
  using Clock = std::chrono::steady_clock;
  std::array<double, kPartNames.size()> seconds_{};
  Device* device_ = nullptr;
  Clock::time_point since_ = Clock::now();
  Part part_ = Part::kOther;
  bool paused_ = true;
};

// Counts what happens while it lives as `part`.
class PartScope {
 public:
  PartScope(const Context& ctx, Part part)
      : profile_(ctx.profile), before_(profile_ != nullptr ? profile_->switch_to(part) : part) {}
  ~PartScope() {
    if (profile_ != nullptr) profile_->switch_to(before_);
  }
  PartScope(const PartScope&) = delete;
  PartScope& operator=(const PartScope&) = delete;

 private:
  Profile* profile_;
  Part before_;
};

}  // namespace cachalot
