// Products of one warpgroup (wgmma, bf16 to float): d [64, N] (+)= a [64, 16] b [16, N].
//
// Thread t of the warpgroup holds of d, with w = t / 32 and l = t % 32, the rows 16 w + l / 4 and
// 8 further down: d[4 i + 0, 1] are columns 8 i + 2 (l % 4) + 0, 1 of the first, d[4 i + 2, 3] of
// the second. So two neighbours i of a result, rounded to bf16, are the `a` of a next product.
// Products are queued: a fence before the first, `commit` behind the last, then `wait_for`.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention_hopper.cuh"

namespace cachalot::cuda::attn {

__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// The compiler moves no use of `registers` over this.
template <int n>
__device__ inline void pin(float (&registers)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}
// Nor gives them away before this: products that were queued read them until they were waited for.
template <int n>
__device__ inline void keep(const std::uint32_t (&registers)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) asm volatile("" ::"r"(registers[i]) : "memory");
}
template <int kPending>
__device__ inline void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

#define CACHALOT_NAMES_32                                                  \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define CACHALOT_NAMES_48                                                            \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define CACHALOT_NAMES_64                                                            \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define CACHALOT_NAMES_96                                                            \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define CACHALOT_REGS_8(d, i)                                                                 \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define CACHALOT_REGS_16(d, i) CACHALOT_REGS_8(d, i), CACHALOT_REGS_8(d, i + 8)
#define CACHALOT_REGS_32(d) CACHALOT_REGS_16(d, 0), CACHALOT_REGS_16(d, 16)
#define CACHALOT_REGS_48(d) CACHALOT_REGS_32(d), CACHALOT_REGS_16(d, 32)
#define CACHALOT_REGS_64(d) CACHALOT_REGS_48(d), CACHALOT_REGS_16(d, 48)
#define CACHALOT_REGS_96(d) CACHALOT_REGS_64(d), CACHALOT_REGS_16(d, 64), CACHALOT_REGS_16(d, 80)

// Both operands out of shared memory, summed along their rows; `add` 0 overwrites d.
__device__ inline void multiply(float (&d)[32], Operand a, Operand b, int add) {
  asm volatile(
      "{\n.reg .pred p;\n.reg .b64 a, b;\nsetp.ne.b32 p, %36, 0;\n"
      "mov.b64 a, {%32, %33};\nmov.b64 b, {%34, %35};\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" CACHALOT_NAMES_32
      "}, a, b, p, 1, 1, 0, 0;\n}"
      : CACHALOT_REGS_32(d)
      : "r"(a.low), "r"(a.high), "r"(b.low), "r"(b.high), "r"(add));
}
__device__ inline void multiply(float (&d)[64], Operand a, Operand b, int add) {
  asm volatile(
      "{\n.reg .pred p;\n.reg .b64 a, b;\nsetp.ne.b32 p, %68, 0;\n"
      "mov.b64 a, {%64, %65};\nmov.b64 b, {%66, %67};\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" CACHALOT_NAMES_64
      "}, a, b, p, 1, 1, 0, 0;\n}"
      : CACHALOT_REGS_64(d)
      : "r"(a.low), "r"(a.high), "r"(b.low), "r"(b.high), "r"(add));
}

// a out of registers, b out of shared memory, summed across its rows.
__device__ inline void multiply_add(float (&d)[32], const std::uint32_t* a, Operand b) {
  asm volatile(
      "{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, %38, 0;\n"
      "mov.b64 b, {%36, %37};\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" CACHALOT_NAMES_32
      "}, {%32, %33, %34, %35}, b, p, 1, 1, 1;\n}"
      : CACHALOT_REGS_32(d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.low), "r"(b.high), "r"(1));
}
__device__ inline void multiply_add(float (&d)[48], const std::uint32_t* a, Operand b) {
  asm volatile(
      "{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, %54, 0;\n"
      "mov.b64 b, {%52, %53};\n"
      "wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {" CACHALOT_NAMES_48
      "}, {%48, %49, %50, %51}, b, p, 1, 1, 1;\n}"
      : CACHALOT_REGS_48(d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.low), "r"(b.high), "r"(1));
}
__device__ inline void multiply_add(float (&d)[64], const std::uint32_t* a, Operand b) {
  asm volatile(
      "{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, %70, 0;\n"
      "mov.b64 b, {%68, %69};\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" CACHALOT_NAMES_64
      "}, {%64, %65, %66, %67}, b, p, 1, 1, 1;\n}"
      : CACHALOT_REGS_64(d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.low), "r"(b.high), "r"(1));
}
__device__ inline void multiply_add(float (&d)[96], const std::uint32_t* a, Operand b) {
  asm volatile(
      "{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, %102, 0;\n"
      "mov.b64 b, {%100, %101};\n"
      "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {" CACHALOT_NAMES_96
      "}, {%96, %97, %98, %99}, b, p, 1, 1, 1;\n}"
      : CACHALOT_REGS_96(d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.low), "r"(b.high), "r"(1));
}

#undef CACHALOT_NAMES_32
#undef CACHALOT_NAMES_48
#undef CACHALOT_NAMES_64
#undef CACHALOT_NAMES_96
#undef CACHALOT_REGS_8
#undef CACHALOT_REGS_16
#undef CACHALOT_REGS_32
#undef CACHALOT_REGS_48
#undef CACHALOT_REGS_64
#undef CACHALOT_REGS_96

// Sums with this address are not kept in registers from one round of a loop to the next.
__device__ inline void recompute(Operand& a) { asm volatile("" : "+r"(a.low)); }

// d [64, N] = a b^T over kSteps * 16 columns of tiles in panels of kRowsA and kRowsB rows.
template <int kSteps, int kRowsA, int kRowsB, int n>
__device__ inline void multiply_rows(float (&d)[n], Operand a, Operand b) {
  recompute(a);
  recompute(b);
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
    const int within = k % 4 * 2;  // in units of 16 bytes, as descriptors count
    multiply(d, a + k / 4 * (kRowsA * 8) + within, b + k / 4 * (kRowsB * 8) + within, k > 0);
  }
}
// d [64, N] += a b over kSteps * 16 rows of b.
template <int kSteps, int n>
__device__ inline void multiply_add_rows(float (&d)[n], const std::uint32_t (&a)[4 * kSteps],
                                         Operand b) {
  recompute(b);
#pragma unroll
  for (int k = 0; k < kSteps; ++k) multiply_add(d, a + 4 * k, b + k * 128);
}

// Two floats as bf16, the first in the lower half.
__device__ inline std::uint32_t pack(float low, float high) {
  std::uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
__device__ inline float low_half(std::uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_half(std::uint32_t pair) {
  return __uint_as_float(pair & 0xFFFF0000u);
}
__device__ inline float exp2_fast(float x) {  // 2 ulp; exp2(-inf) = 0
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

}  // namespace cachalot::cuda::attn
