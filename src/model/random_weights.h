// Normal numbers by the billion: the values of a folder of random weights.
//
// A number is a quantile of the normal distribution picked by 16 random bits: 65536 values, the
// largest 4.33, each as likely as another. That is coarser than what training starts from
// (model/parameters.h) and a tenth of its time; bf16 has 256 values per power of two.
//
// Owns:    the table of quantiles (128 KiB: it stays in a core's second cache).
// Threads: immutable; fills in parallel. The value of an element depends on seed, name and index
//          alone.
// Errors:  none.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/context.h"

namespace cachalot::model {

class NormalFill {
 public:
  NormalFill();
  // mean + std * normal(seed, name, index)
  void fill(const Context& ctx, std::uint64_t seed, std::string_view name, float mean, float std,
            std::span<float> values) const;

 private:
  std::vector<float> upper_;  // quantiles above the median, ascending
};

}  // namespace cachalot::model
