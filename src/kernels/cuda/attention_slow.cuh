// Attention for whatever the tiled kernels do not take: products of floats, wider heads. One warp
// per row and head; right for every shape, fast for none.
#pragma once

#include "kernels/attention.h"

namespace cachalot::cuda::attn {

void forward_slow(const Context& ctx, const Attention<float>& a);
void backward_slow(const Context& ctx, const AttentionBackward<float>& a);

}  // namespace cachalot::cuda::attn
