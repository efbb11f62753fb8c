#include "nn/linear.h"

#include <vector>

namespace cachalot::nn {

void linear_backward(const Context& ctx, Precision precision,
                     std::span<const LinearBackward> layers) {
  std::vector<Gemm> products;
  products.reserve(2 * layers.size());
  for (const LinearBackward& l : layers) {
    if (l.dx.rows > 0) products.push_back({l.dy, l.w, l.dx, false, false, l.add_dx});
    if (l.dw.rows > 0 && l.dy.rows > 0) products.push_back({l.dy, l.x, l.dw, true, false, true});
  }
  gemm(ctx, precision, products);
}

}  // namespace cachalot::nn
