#include "kernels/cuda/attention_slow.cuh"
#include "kernels/cuda/ops.h"

namespace cachalot::cuda {

void attention_backward(const Context& ctx, const AttentionBackward<float>& a) {
  attn::backward_slow(ctx, a);
}

}  // namespace cachalot::cuda
