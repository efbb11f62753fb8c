// What a CPU level gives to absorbed attention beside attention_kernels.h: products with rows of
// the cache where they lie. The loops over blocks are in latent_attention_driver.cc.
//
// Rows and queries hold "elements": floats where products are float, else bf16. A query is padded
// with zeros to whole vectors (query_bytes). A level that has no product of bf16 pairs widens them
// and gives the bits of one that has, denormals counting as zero in both.
//
// Threads: kernels touch only what their job names.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/latent_rows.h"

namespace cachalot::cpu {

// What the next block will read, to be fetched into the second cache meanwhile. Rows of a block are
// one piece of memory, but blocks are not, and a core that works on four rows at a time does not
// look far enough ahead by itself.
struct LatentFetch {
  const std::byte* first = nullptr;
  std::ptrdiff_t bytes = 0;
};

// scores[r][k] = sum over c of q[r][c] * row[k][c]: lane by lane over the vectors of a row, then
// the lanes in a fixed tree, so that no other row or query changes a bit.
struct LatentScoresJob {
  int rows = 0;
  const std::byte* q = nullptr;
  std::ptrdiff_t q_stride = 0;  // bytes
  int keys = 0;
  const std::byte* k = nullptr;
  std::ptrdiff_t k_stride = 0;  // bytes
  int width = 0;                // elements, L + R
  float* scores = nullptr;      // [rows, keys rounded up to 4]
  std::ptrdiff_t stride = 0;
  LatentFetch fetch;
};

// out[r] = (alpha ? out[r] * alpha[r] : 0) + sum over k of p[r][k] * row[k], k as SoftmaxJob stores
// them (attention_kernels.h). Columns of `out` lie in the kernel's own order; `finish` puts them
// right.
struct LatentValuesJob {
  int rows = 0;
  const std::uint32_t* p = nullptr;
  std::ptrdiff_t p_stride = 0;  // words
  int keys = 0;
  const std::byte* v = nullptr;
  std::ptrdiff_t v_stride = 0;  // bytes
  int cols = 0;                 // L
  const float* alpha = nullptr;
  float* out = nullptr;  // [rows, L rounded up to kLatentColumns]
  std::ptrdiff_t stride = 0;
  LatentFetch fetch;
};
constexpr int kLatentColumns = 32;

// n rows of the cache as elements, where they do not lie there as such.
struct LatentDecodeJob {
  LatentLayout layout;
  const std::byte* rows = nullptr;
  int n = 0;
  std::byte* out = nullptr;
  std::ptrdiff_t stride = 0;  // bytes
};

struct LatentKernels {
  int element = 4;  // bytes
  void (*scores)(const LatentScoresJob&) = nullptr;
  void (*values)(const LatentValuesJob&) = nullptr;
  void (*decode)(const LatentDecodeJob&) = nullptr;
  // n floats to elements, zeros up to query_bytes(n).
  void (*query)(const float* src, int n, std::byte* out) = nullptr;
  // into = into * keep + from * take
  void (*merge)(float* into, const float* from, float keep, float take, int n) = nullptr;
  // out[c] = columns[c] * factor, in order; `columns` hold n rounded up to kLatentColumns.
  void (*finish)(const float* columns, float factor, float* out, int n) = nullptr;

  std::ptrdiff_t query_bytes(int n) const noexcept { return (n * element + 63) / 64 * 64; }
  // Whether rows of the format are elements as they lie.
  bool in_place(LatentFormat format) const noexcept {
    return format == (element == 4 ? LatentFormat::kF32 : LatentFormat::kBF16);
  }
};

}  // namespace cachalot::cpu
