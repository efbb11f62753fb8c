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

}  // namespace cachalot::nn
