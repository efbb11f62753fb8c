// What a CPU level gives to attention: small kernels on blocks; the loops over blocks are in
// attention_forward.cc, attention_backward.cc and latent_attention_driver.cc, the same for all.
//
// A word is 32 bits, one summation step: a float, or a pair of bf16 (`pair` = 2). Matrices of words
// are either "rows" [rows, words], whose words are broadcast, or "panels" [words, columns], whose
// columns are the lanes of a vector. Columns of panels and of results are padded to kLaneBlock, so
// that kernels only see whole vectors.
//
// Threads: kernels touch only what their job names.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attention.h"
#include "kernels/cpu/latent_kernels.h"
#include "kernels/latent_attention.h"

namespace cachalot::cpu {

constexpr int kLaneBlock = 16;  // columns are padded to this: a vector of the widest level
constexpr int kKeyBlock = 64;   // keys per step of the online softmax, at absolute positions

// c[rows, cols] = (add ? c * (row_scale ? row_scale[r] : 1) : 0) + a b, each element a chain of
// fused multiply-adds in the order of the words, so that no other row or column changes its bits.
struct ProductJob {
  int rows = 0;
  int cols = 0;  // multiple of kLaneBlock
  int words = 0;
  bool add = false;
  const float* row_scale = nullptr;  // [rows]
  const std::uint32_t* a = nullptr;  // rows [rows, words]
  std::ptrdiff_t a_stride = 0;
  const std::uint32_t* b = nullptr;  // panel [words, cols]
  std::ptrdiff_t b_stride = 0;
  float* c = nullptr;
  std::ptrdiff_t c_stride = 0;
};

// Floats or bf16 into words; rounded floats that are no pairs lie in the order in which vdpbf16ps
// sums a pair, the odd element first. For pack_rows: [rows, cols] -> rows of words, zero from cols
// up to `width` words. For pack_panel: rows become the summed dimension, [ceil(rows / pair),
// width], a missing last row counts as zero.
struct PackJob {
  const void* src = nullptr;
  DType dtype = DType::kF32;
  std::ptrdiff_t src_stride = 0;  // elements
  int rows = 0;
  int cols = 0;
  std::uint32_t* dst = nullptr;
  std::ptrdiff_t dst_stride = 0;
  int width = 0;  // words written per row: a multiple of kLaneBlock that holds cols
};

// dst[c][r] = src[r][c]; rows and cols multiples of kLaneBlock.
struct TransposeJob {
  const std::uint32_t* src = nullptr;
  std::ptrdiff_t src_stride = 0;
  int rows = 0;
  int cols = 0;
  std::uint32_t* dst = nullptr;
  std::ptrdiff_t dst_stride = 0;
};

// One block of keys of the online softmax, in base 2: for each row
//   t = scores * factor;  m' = max(m, max t);  p = 2^(t - m');  alpha = 2^(m - m');
//   sum = sum * alpha + p, lane by lane.  Row r sees its first live keys.
struct SoftmaxJob {
  int rows = 0;
  int cols = 0;                      // multiple of kLaneBlock
  int live = 0;                      // of row 0; row r sees live + r, unless
  const int* live_of_row = nullptr;  // [rows] says otherwise
  float factor = 0;                  // scale * log2(e)
  const float* scores = nullptr;
  std::ptrdiff_t stride = 0;
  float* max = nullptr;    // [rows]
  float* alpha = nullptr;  // [rows] rounded up to kLaneBlock
  float* sum = nullptr;    // [rows, kLaneBlock]
  std::uint32_t* p = nullptr;
  std::ptrdiff_t p_stride = 0;  // words
};

// Keys are rows, queries are lanes: p = 2^(s * factor - lse2) where the lane sees the row, else 0;
// ds = p * (dp - delta). Row k is seen from lane first + k on.
struct GradientJob {
  int rows = 0;  // keys
  int cols = 0;  // queries, multiple of kLaneBlock
  int first = 0;
  float factor = 0;
  const float* s = nullptr;   // [keys, queries]
  const float* dp = nullptr;  // [keys, queries]
  std::ptrdiff_t stride = 0;
  const float* lse2 = nullptr;   // [queries] lse * log2(e)
  const float* delta = nullptr;  // [queries]
  std::uint32_t* p_rows = nullptr;
  std::uint32_t* ds_rows = nullptr;  // rows [keys, queries as words]
  std::ptrdiff_t row_stride = 0;
  std::uint32_t* ds_panel = nullptr;  // panel [keys as words, queries]
  std::ptrdiff_t panel_stride = 0;
};

// out[r] = sum over the columns of a[r] * b[r]: in lanes, then lane by lane.
struct DotsJob {
  const float* a = nullptr;
  std::ptrdiff_t a_stride = 0;
  const float* b = nullptr;
  std::ptrdiff_t b_stride = 0;
  int rows = 0;
  int cols = 0;
  float* out = nullptr;
};

struct AttentionKernels {
  int pair = 1;        // elements per word
  bool exact = false;  // a word is the float itself
  void (*product)(const ProductJob&) = nullptr;
  void (*pack_rows)(const PackJob&) = nullptr;
  void (*pack_panel)(const PackJob&) = nullptr;
  void (*transpose)(const TransposeJob&) = nullptr;
  void (*softmax)(const SoftmaxJob&) = nullptr;
  void (*gradient)(const GradientJob&) = nullptr;
  void (*dots)(const DotsJob&) = nullptr;
  // out[c] = sum over h of parts[h * cols + c], h in order
  void (*head_sums)(const float* parts, int heads, int cols, float* out) = nullptr;
  // out[r] = sum over the lanes of total [rows, kLaneBlock], in order; rows a multiple of
  // kLaneBlock
  void (*lane_sums)(const float* total, int rows, float* out) = nullptr;
  // dst = src * factor
  void (*scale)(const float* src, float factor, float* dst, int n) = nullptr;
  LatentKernels latent;

  // Of a sum over so many elements; floats that stand for pairs come in twos.
  int words(int elements) const noexcept {
    return exact ? elements : (elements + 1) / 2 * (2 / pair);
  }
};

struct AttentionIsa {
  AttentionKernels f32, bf16;
  const AttentionKernels& of(Precision p) const noexcept {
    return p == Precision::kBF16 ? bf16 : f32;
  }
};

// What attention reads of queries, or of keys and values: floats or bf16.
template <class Op>
MatRef queries_of(const Op& a) {
  return a.q_bf16.rows > 0 ? MatRef(a.q_bf16) : MatRef(a.q);
}
template <class Op>
MatRef keys_and_values_of(const Op& a) {
  return a.kv_bf16.rows > 0 ? MatRef(a.kv_bf16) : MatRef(a.kv);
}
inline const void* element_of(const MatRef& m, std::ptrdiff_t row, std::ptrdiff_t col) {
  return static_cast<const char*>(m.data) +
         (row * m.stride + col) * static_cast<std::ptrdiff_t>(size_of(m.dtype));
}
inline int element_size(const MatRef& m) { return static_cast<int>(size_of(m.dtype)); }

// Keys [first, first + keys) of a head, nope and rope parts joined: [keys, N + R] floats.
void join_keys(const AttentionDims& dims, const MatRef& kv, MatView<const float> k_rope, int head,
               int first, int keys, float* joined);

// Keys [first, first + keys) of a head as rows of words, nope and rope parts joined. `joined`
// [keys, N + R] is needed where a part does not fill whole vectors of words; it gets the floats.
void pack_keys(const AttentionKernels& kernels, const AttentionDims& dims, const MatRef& kv,
               MatView<const float> k_rope, int head, int first, int keys, float* joined,
               std::uint32_t* rows, int row_words);

constexpr int round_up(int n, int to) noexcept { return (n + to - 1) / to * to; }

void run_attention(const AttentionIsa& isa, const Context& ctx, const Attention<float>& a);
void run_attention_backward(const AttentionIsa& isa, const Context& ctx,
                            const AttentionBackward<float>& a);
void run_latent_attention(const AttentionIsa& isa, const Context& ctx,
                          std::span<const LatentAttention> problems);

namespace avx512 {
extern constinit const AttentionIsa kAttentionIsa;
}
namespace avx512bf16 {
// The same bits by two instructions: vdpbf16ps, or float FMAs in its order.
extern constinit const AttentionKernels kAttentionPairs;
extern constinit const AttentionKernels kAttentionFloats;
}  // namespace avx512bf16

}  // namespace cachalot::cpu
