// From operands in memory to panels.
#include <algorithm>
#include <bit>

#include "kernels/cpu/gemm_parts.h"

#ifdef CACHALOT_X86
namespace cachalot::cpu {

namespace {

// Elements of k packed in one go where k is the far direction: bounds the pages in flight.
constexpr int kPackK = 64;

const void* element(const MatRef& m, std::ptrdiff_t index) {
  return static_cast<const char*>(m.data) + index * static_cast<std::ptrdiff_t>(size_of(m.dtype));
}

// Where the operand of a job goes on after `lines` more lines.
const void* element(const PackJob& job, int lines) {
  return static_cast<const char*>(job.src) +
         lines * job.line_stride * static_cast<std::ptrdiff_t>(size_of(job.dtype));
}

// Packs lines [line, line + lines) of an operand, elements [k0, k1).
PackJob lines_of(const MatRef& m, bool k_is_row, int line, int lines, int k0, int k1, Steps steps) {
  PackJob job;
  job.dtype = m.dtype;
  job.line_stride = k_is_row ? 1 : m.stride;
  job.k_stride = k_is_row ? m.stride : 1;
  job.src = element(m, line * job.line_stride + k0 * job.k_stride);
  job.lines = lines;
  job.k_begin = k0;
  job.k_end = k1;
  job.steps = steps;
  return job;
}

// Lines of memory that hold lines [line, line + lines), elements [k0, k1), of an operand.
Touch region_of(const MatRef& m, bool k_is_row, int line, int lines, int k0, int k1) {
  const auto width = static_cast<std::ptrdiff_t>(size_of(m.dtype));
  const std::ptrdiff_t row = k_is_row ? k0 : line, col = k_is_row ? line : k0;
  return Touch::of(static_cast<const char*>(m.data) + (row * m.stride + col) * width,
                   m.stride * width, k_is_row ? k1 - k0 : lines,
                   (k_is_row ? lines : k1 - k0) * width);
}

// The step of scales of the lines of an operand [lines, K] or, k_is_row, [K, lines].
void put_scales(const Fp8View& m, bool k_is_row, int line, int lines, int width, int k0,
                std::uint32_t* dst) {
  for (int i = 0; i < lines; ++i) {
    dst[i] = std::bit_cast<std::uint32_t>(k_is_row ? m.scale_at(k0, line + i)
                                                   : m.scale_at(line + i, k0));
  }
  std::fill(dst + lines, dst + width, 0u);
}

// `panels` panels of `lines` lines of an operand each, `width` words per step; a panel's words are
// `pitch` apart.
struct Lines {
  const MatRef& m;
  const Fp8View* scales;
  bool k_is_row;
  int line, lines, width;
  int panels;
  std::ptrdiff_t pitch;
};

void pack_lines(const GemmIsa& isa, const Part& part, const Lines& of, int k0, int k1,
                std::uint32_t* dst) {
  const int all = std::max(k1 - k0, 1);
  const int chunk = part.scaled != nullptr ? kScaleTileSize : of.k_is_row ? kPackK : all;
  for (int k = k0; k < k1; k += chunk) {
    PackJob job =
        lines_of(of.m, of.k_is_row, of.line, of.lines, k, std::min(k1, k + chunk), part.kind);
    job.width = of.width;
    job.dst = dst + part.words(k - k0) * of.width;
    for (int p = 0; p < of.panels; ++p) {
      isa.pack(job);
      if (of.scales != nullptr) {
        put_scales(*of.scales, of.k_is_row, of.line + p * of.lines, of.lines, of.width, k,
                   job.dst + steps_of(part.kind, job.k_end - k) * of.width);
      }
      job.src = element(job, of.lines);
      job.dst += of.pitch;
    }
  }
}

constexpr auto kWord = static_cast<std::ptrdiff_t>(sizeof(std::uint32_t));

}  // namespace

void pack_panel_of_a(const GemmIsa& isa, const Part& part, int p, int k0, int k1,
                     std::uint32_t* dst) {
  const Fp8View* scales = part.scaled == nullptr ? nullptr : &part.scaled->a;
  const int rows = part.panel_rows(p);
  pack_lines(isa, part, {part.g->a, scales, part.g->trans_a, part.panel_row(p), rows, rows, 1, 0},
             k0, k1, dst);
}

void pack_panels_of_a(const GemmIsa& isa, const Part& part, int p, int count, std::uint32_t* a) {
  const int k = part.g->k();
  // Where a row of memory holds all panels: a few rows of all of them, so that a cache line is not
  // fetched again for every panel that begins or ends in it.
  const int chunk = !part.g->trans_a         ? std::max(k, 1)
                    : part.scaled != nullptr ? kScaleTileSize
                                             : kPackK;
  for (int k0 = 0; k0 < k; k0 += chunk) {
    for (int i = p; i < p + count; ++i) {
      pack_panel_of_a(isa, part, i, k0, std::min(k, k0 + chunk),
                      a + part.panel_row(i) * part.steps + part.words(k0) * part.panel_rows(i));
    }
  }
}

void pack_columns_of_b(const GemmIsa& isa, const Part& part, int col, int cols, int k0, int k1,
                       std::uint32_t* dst) {
  const Fp8View* scales = part.scaled == nullptr ? nullptr : &part.scaled->b;
  const bool k_is_row = !part.g->trans_b;
  const int nr = panel_columns(isa);
  const int full = cols / nr;
  const std::int64_t words = part.words(k1 - k0) * nr;
  pack_lines(isa, part, {part.g->b, scales, k_is_row, col, nr, nr, full, words}, k0, k1, dst);
  const int left = cols - full * nr;
  if (left == 0) return;
  pack_lines(
      isa, part,
      {part.g->b, scales, k_is_row, col + full * nr, left, panel_width(isa, cols, full), 1, 0}, k0,
      k1, dst + full * words);
}

Touch region_of_a(const Part& part, int p, int k0, int k1) {
  if (part.share_a) {
    return Touch::of(part.packed_a(p, k0), 0, 1, part.words(k1 - k0) * part.panel_rows(p) * kWord);
  }
  return region_of(part.g->a, part.g->trans_a, part.panel_row(p), part.panel_rows(p), k0, k1);
}

Touch region_of_b(const GemmIsa& isa, const Part& part, int col, int cols, int k0, int k1) {
  if (part.b == nullptr) return region_of(part.g->b, !part.g->trans_b, col, cols, k0, k1);
  const int nr = panel_columns(isa);
  return Touch::of(part.packed_b(col) + part.words(k0) * nr, part.steps * nr * kWord, cols / nr,
                   part.words(k1 - k0) * nr * kWord);
}

}  // namespace cachalot::cpu
#endif
