#include "kernels/bf16_ops.h"

#include <algorithm>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/gemm_driver.h"
#include "kernels/cpu/vec_avx2.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX2)
namespace cachalot::cpu::avx2 {

template <class Live>
static inline void put_bf16(Bf16* p, Vec v, Live live) {
  store_bf16(p, v, live);
}
#include "kernels/cpu/bf16_ops_body.inc"
}  // namespace cachalot::cpu::avx2
CACHALOT_END_TARGET
#endif
