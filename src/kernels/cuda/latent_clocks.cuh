// Development only.
#pragma once
#include <cstdint>
namespace cachalot::cuda {
#ifdef LATENT_CLOCKS
static __device__ unsigned long long latent_clocks[2][16];
struct Clocks {
  std::uint32_t at;  // shared: last, sums
  bool mine;
  __device__ Clocks(std::uint32_t base, int group, bool first) : at(base + group * 128), mine(first) {
    if (!mine) return;
    for (int i = 1; i < 16; ++i) asm volatile("st.shared.u32 [%0], %1;" ::"r"(at + 4 * i), "r"(0) : "memory");
    unsigned t = clock();
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(t) : "memory");
  }
  __device__ void mark(int i) const {
    if (!mine) return;
    asm volatile("{\n.reg .u32 t, l, s;\nmov.u32 t, %%clock;\nld.shared.u32 l, [%0];\nst.shared.u32 [%0], t;\nsub.u32 l, t, l;\nld.shared.u32 s, [%1];\nadd.u32 s, s, l;\nst.shared.u32 [%1], s;\n}" ::"r"(at), "r"(at + 4 * i) : "memory");
  }
  __device__ void done(int group) const {
    if (!mine) return;
    for (int i = 1; i < 16; ++i) {
      unsigned x;
      asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(at + 4 * i) : "memory");
      atomicAdd(&latent_clocks[group][i], static_cast<unsigned long long>(x));
    }
  }
};
#define CLOCK(i) clocks.mark(i)
#else
#define CLOCK(i)
#endif
}  // namespace cachalot::cuda
