#include "nn/params.h"

#include <cmath>

#include "nn/mla.h"

namespace cachalot::nn {

namespace {

double bytes_of(const PackedB& p) {
  const double element = p.precision == Precision::kBF16 ? 2 : 4;
  return element * p.k * p.n;
}

}  // namespace

double bytes_read(const WeightRef& w) {
  if (!w.quant.empty()) {
    const QuantView& q = w.quant;
    const double codes = static_cast<double>(q.rows) * q.cols * q.bits() / 8;
    const bool blocks = q.code == QuantCode::kE4m3;
    const double scale_rows =
        blocks ? std::ceil(static_cast<double>(q.rows) / QuantView::kBlockRows) : q.rows;
    return codes + scale_rows * q.groups() * (blocks ? 4 : 2);
  }
  if (w.packed != nullptr) return bytes_of(*w.packed);
  if (w.heads != nullptr) {
    double sum = 0;
    for (const PackedB& p : w.heads->keys) sum += bytes_of(p);
    for (const PackedB& p : w.heads->values) sum += bytes_of(p);
    return sum;
  }
  return static_cast<double>(w.rows) * w.cols * static_cast<double>(size_of(w.dtype));
}

static void add(const void* at, std::size_t bytes, std::vector<MemoryPiece>& to) {
  if (at != nullptr && bytes > 0) to.push_back({at, static_cast<std::ptrdiff_t>(bytes)});
}

void add_memory(std::span<const PackedB> packed, std::vector<MemoryPiece>& to) {
  for (const PackedB& p : packed) add(p.words.data(), p.bytes(), to);
}

void add_memory(const WeightRef& w, std::vector<MemoryPiece>& to) {
  add(w.data,
      static_cast<std::size_t>(w.rows) * static_cast<std::size_t>(w.stride) * size_of(w.dtype), to);
  if (w.packed != nullptr) add_memory({w.packed, 1}, to);
  if (w.heads != nullptr) {
    add_memory(w.heads->keys, to);
    add_memory(w.heads->values, to);
  }
  if (w.quant.empty()) return;
  add(w.quant.codes, w.quant.code_span(), to);
  add(w.quant.scales, w.quant.scale_span(), to);
}

}  // namespace cachalot::nn
