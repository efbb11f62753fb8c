// The shape of a fast matrix product, the same for every level: packing, blocking, threads.
//
// A level gives a GemmIsa: how it packs, its register tile, its product for few rows. A task is
// (problem, rows, columns): it packs a block of B into its core's L2 cache and one panel of A after
// the other into L1, and while it multiplies it fetches what it will pack next. Packing everything
// first would write it to memory and read it back, which costs more than packing A again for every
// block of columns. A B that many small tasks need, and an A that many blocks of columns need, are
// packed once for all of them; a B that was packed before (PackedB) has that layout.
//
// gemm_plan.cc cuts, gemm_operands.cc packs, gemm_task.cc multiplies.
//
// Everything is in words of 32 bits, one per summation step: a float, or a pair of bf16. A panel is
// [steps, width] words: all lines (rows of A, columns of B) of one register tile, step by step.
// Codes of E4M3 become such words too. A panel of a block-scaled operand has one more step after
// each 128 elements of k: the scale of each line there.
//
// Threads: tasks own disjoint parts of C; each element has one accumulator, so neither the split
//          nor the tile shape changes a bit.
// Paper:   Goto & van de Geijn, "Anatomy of high-performance matrix multiplication" (TOMS 2008);
//          DeepSeek-V3 report, section 3.3.2, for the scaled kind.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/fp8.h"
#include "kernels/gemm.h"

namespace cachalot::cpu {

// What a word of a panel holds. Both bf16 kinds sum in the order of the contract.
enum class Steps : std::uint8_t {
  kFloat,  // step s: element k = s
  kWide,   // rounded to bf16, kept as a float; step s: k = s ^ 1 (the odd one of a pair first)
  kPair,   // step s: bf16 elements 2s (low half) and 2s + 1 (high half)
};

// Lines of an operand to be packed: element (line, k) is src[line * line_stride + k * k_stride].
// One of the strides is 1. F32, BF16, or F8_E4M3 (kWide and kPair only).
struct PackJob {
  const void* src = nullptr;
  DType dtype = DType::kF32;
  std::ptrdiff_t line_stride = 0;
  std::ptrdiff_t k_stride = 0;
  int lines = 0;    // real ones; words of the rest of the width are zero
  int width = 0;    // words per step of the panel
  int k_begin = 0;  // even
  int k_end = 0;    // elements; odd only at the end of the operand
  Steps steps = Steps::kFloat;
  std::uint32_t* dst = nullptr;  // [steps of the range, width]

  bool across() const { return line_stride == 1 && k_stride != 1; }
};

// Memory that will be read soon, fetched into L2 a line per step while a tile is computed: pieces
// of `lines` cache lines, one behind the other, in `rows` rows.
struct Touch {
  const char* at = nullptr;
  int left = 1;                  // lines of this row
  int lines = 1;                 // of a row
  int rows = 0;                  // this one and those to come; 0: nothing to do, stays where it is
  std::ptrdiff_t skip = -kLine;  // from the end of a row to the next one

  static constexpr std::ptrdiff_t kLine = 64;
  static Touch of(const void* first, std::ptrdiff_t stride, int rows, std::ptrdiff_t bytes) {
    if (rows <= 0 || bytes <= 0) return {};
    const auto begin = reinterpret_cast<std::uintptr_t>(first);
    const std::uintptr_t line = begin / kLine * kLine;
    const int lines =
        static_cast<int>((begin - line + static_cast<std::uintptr_t>(bytes) + kLine - 1) / kLine);
    return {reinterpret_cast<const char*>(line), lines, lines, rows, stride - lines * kLine};
  }
  // To the next line; in the end it stays on the last row, which costs nothing.
  [[gnu::always_inline]] void step() {
    at += kLine;
    if (--left > 0) return;
    left = lines;
    rows = rows > 0 ? rows - 1 : 0;
    at += rows > 0 ? skip : -lines * kLine;
  }
};

// c[rows, vecs * lanes] (+)= panel a times panel b over `steps` words; `load`: sums go on from c.
// Of a scaled product, `scaled_steps` words and one of scales, again and again: each run is summed
// from zero and joins c by c = fma(part, scale of a * scale of b, c).
struct TileJob {
  int rows = 0;
  int vecs = 0;  // of `lanes` columns
  bool load = false;
  std::int64_t steps = 0;
  std::int64_t scaled_steps = 0;
  const std::uint32_t* a = nullptr;  // [steps, rows]
  const std::uint32_t* b = nullptr;  // [steps, vecs * lanes]
  float* c = nullptr;
  std::ptrdiff_t c_stride = 0;
  Touch* touch = nullptr;  // moved on by what was fetched
};

// A product of few rows that reads B where it lies, once: in the layout of its matrix, or packed.
struct DirectJob {
  int rows = 0;
  int cols = 0;
  int k = 0;
  Steps steps = Steps::kFloat;
  const std::uint32_t* a = nullptr;  // panel [steps, rows]
  const void* b = nullptr;           // element (first column, k = 0)
  DType b_dtype = DType::kF32;
  std::ptrdiff_t b_stride = 0;
  bool trans_b = false;
  bool accumulate = false;
  float* c = nullptr;
  std::ptrdiff_t c_stride = 0;
  // Instead of b: panels of columns, each [steps, width]; and what is read after them.
  const std::uint32_t* packed = nullptr;
  const std::uint32_t* packed_next = nullptr;
};

struct GemmIsa {
  int lanes = 0;        // floats of a vector
  int max_rows = 0;     // of a register tile
  int max_vecs = 0;     // of a register tile
  int direct_rows = 0;  // problems of at most that many rows go to `direct`
  Steps bf16 = Steps::kWide;
  bool direct_takes_pairs = false;       // of a B in bf16; else kWide
  bool direct_takes_packed = false;      // a packed B of pairs
  bool flush_denormals_in_bf16 = false;  // as vdpbf16ps does, whatever kernel runs
  void (*pack)(const PackJob&) = nullptr;
  void (*tile)(const TileJob&) = nullptr;
  void (*scaled_tile)(const TileJob&) = nullptr;
  void (*direct)(const DirectJob&) = nullptr;
  // c (+)= the top left [rows, cols] of a tile with `stride` floats per row.
  void (*store)(const float* tile, std::ptrdiff_t stride, int rows, int cols, bool accumulate,
                float* c, std::ptrdiff_t c_stride) = nullptr;
  // The same, rounded to bf16.
  void (*store_bf16)(const float* tile, std::ptrdiff_t stride, int rows, int cols, Bf16* c,
                     std::ptrdiff_t c_stride) = nullptr;
};
// Beside the levels' other ops that round to bf16 (bf16_ops_body.inc).
namespace avx2 {
void gemm_store_bf16(const float* tile, std::ptrdiff_t stride, int rows, int cols, Bf16* c,
                     std::ptrdiff_t c_stride);
}
namespace avx512 {
void gemm_store_bf16(const float* tile, std::ptrdiff_t stride, int rows, int cols, Bf16* c,
                     std::ptrdiff_t c_stride);
}
namespace avx512bf16 {
void gemm_store_bf16(const float* tile, std::ptrdiff_t stride, int rows, int cols, Bf16* c,
                     std::ptrdiff_t c_stride);
}

constexpr int kDirectRowsLimit = 8;

inline std::int64_t steps_of(Steps kind, std::int64_t k) {
  if (kind == Steps::kFloat) return k;
  return kind == Steps::kWide ? (k + 1) / 2 * 2 : (k + 1) / 2;
}

void run_gemm(const GemmIsa& isa, const Context& ctx, Precision precision,
              std::span<const Gemm> problems);
// Lays out B as run_gemm would for tasks that share it: panels of columns, each [steps, width].
void run_pack_b(const GemmIsa& isa, const Context& ctx, Precision precision,
                std::span<const PackB> jobs);
// Block-scaled products, in the steps of `isa.bf16`.
void run_gemm_fp8(const GemmIsa& isa, const Context& ctx, std::span<const Fp8Gemm> problems);

}  // namespace cachalot::cpu
