#include "kernels/bf16_ops.h"

#include <algorithm>

#include "kernels/cpu/avx512bf16.h"
#include "kernels/cpu/gemm_driver.h"
#include "kernels/cpu/vec_avx512.h"

#ifdef CACHALOT_X86
CACHALOT_BEGIN_TARGET(CACHALOT_AVX512BF16)
namespace cachalot::cpu::avx512bf16 {

using namespace avx512;  // its vectors

// By the instruction, which takes denormals for zero, as the products do that read them.
static inline void put_bf16(Bf16* p, Vec v, All) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
}
static inline void put_bf16(Bf16* p, Vec v, First f) {
  _mm256_mask_storeu_epi16(p, f.mask, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
}
#include "kernels/cpu/bf16_ops_body.inc"
}  // namespace cachalot::cpu::avx512bf16
CACHALOT_END_TARGET
#endif
