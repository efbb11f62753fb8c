// Rotary position embedding on interleaved pairs, in place; and the tables of angles.
//
// (x[2i], x[2i+1]) -> (x[2i] cos - x[2i+1] sin, x[2i] sin + x[2i+1] cos), the layout of DeepSeek's
// released weights. The gradient of a rotation is the inverse rotation.
// Paper: V3 report section 2.1.1; YaRN (arXiv 2309.00071) as in the released inference/model.py.
#pragma once

#include <span>
#include <vector>

#include "kernels/context.h"
#include "tensor/mat.h"

namespace cachalot {

struct YarnConfig {
  double factor = 1;
  double original_max_position = 4096;
  double beta_fast = 32;
  double beta_slow = 1;
  double mscale = 1;          // absent in a config: 1
  double mscale_all_dim = 0;  // absent in a config: 0
};

struct RopeConfig {
  int dim = 64;  // R, even
  double theta = 10000;
  bool yarn = false;
  YarnConfig scaling = {};
};

// [dim / 2] inverse frequencies, after YaRN where it is set.
std::vector<double> rope_inv_freq(const RopeConfig& config);
// What cos and sin are multiplied with: m(mscale) / m(mscale_all_dim) under YaRN, else 1.
double rope_multiplier(const RopeConfig& config);
// (nope + rope)^-0.5, times m(mscale_all_dim)^2 under YaRN.
double attention_scale(const RopeConfig& config, int nope_dim);

// Row i of cos and sin [P, dim / 2] for positions[i]; angles in double, so long positions are
// exact.
template <class T>
void rope_table(const RopeConfig& config, std::span<const int> positions, MatView<T> cos,
                MatView<T> sin);

template <class T>
struct Rope {
  MatView<T> x;  // [T, heads * head_stride at least]
  int heads = 1;
  int head_stride = 0;   // columns from one head to the next
  int offset = 0;        // first rotated column of a head
  MatView<const T> cos;  // [T, R / 2]
  MatView<const T> sin;  // [T, R / 2]
  bool inverse = false;  // rotate back: the gradient
};

template <class T>
void rope_ref(const Context& ctx, const Rope<T>& a);
void check_shapes(const Rope<float>& a);
void rope(const Context& ctx, const Rope<float>& a);  // the table's

}  // namespace cachalot
