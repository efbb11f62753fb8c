// Hopper's warpgroup products: D [64, N] += A [64, K] B [N, K]^T, A and B in shared memory, D in
// the registers of 128 threads.
//
// Thread t of the warpgroup (warp w, lane l) holds, for each 8 columns c, d[4c + 0 .. 1] = row
// 16 w + l / 4, columns 8 c + 2 (l % 4) + {0, 1}, and d[4c + 2 .. 3] = the same 8 rows below.
// They run asynchronously: wgmma_fence before the first, wgmma_commit after the last,
// wgmma_wait before the registers or the shared memory are touched; hold_registers keeps the
// compiler from moving uses of d across these.
#pragma once

#include <cstdint>

namespace cachalot::cuda::ptx {

__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
template <int kCount>
__device__ __forceinline__ void hold_registers(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// A tile whose rows (of M or N) are 128 bytes of K each, as a TMA box with the 128-byte swizzle
// leaves them, beginning at a multiple of 1024 bytes: rows in groups of 8, 1024 bytes apart. Add
// kStep32Bytes to go on 32 bytes along K (one instruction: 32 codes, or 16 numbers of bf16).
__device__ __forceinline__ std::uint64_t k_major_tile(std::uint32_t shared) {
  constexpr std::uint32_t kUnused = 1u << 16;  // the leading offset: a tile is 128 bytes wide
  constexpr std::uint32_t kGroupStride = 1024 >> 4, kSwizzle128 = 1u << 30;
  constexpr std::uint64_t kHigh = std::uint64_t{kSwizzle128 | kGroupStride} << 32;
  return kHigh | (((shared & 0x3FFFF) >> 4) | kUnused);
}
inline constexpr std::uint64_t kStep32Bytes = 32 >> 4;

#define CACHALOT_D4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define CACHALOT_D16(d, i) \
  CACHALOT_D4(d, i), CACHALOT_D4(d, i + 4), CACHALOT_D4(d, i + 8), CACHALOT_D4(d, i + 12)
#define CACHALOT_D32(d, i) CACHALOT_D16(d, i), CACHALOT_D16(d, i + 16)
#define CACHALOT_D64(d, i) CACHALOT_D32(d, i), CACHALOT_D32(d, i + 32)
#define CACHALOT_R0_31                                                               \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, " \
  "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define CACHALOT_R32_63                                                              \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define CACHALOT_R64_95                                                              \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define CACHALOT_R64_127                                                                 \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "     \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "     \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, "     \
  "%110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, " \
  "%124, %125, %126, %127"

// d = (keep ? d : 0) + A B^T over 32 codes of E4M3 along K.
__device__ __forceinline__ void wgmma_e4m3(float (&d)[32], std::uint64_t a, std::uint64_t b,
                                           bool keep) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 {" CACHALOT_R0_31
      "}, %32, %33, p, 1, 1;\n}"
      : CACHALOT_D32(d, 0)
      : "l"(a), "l"(b), "r"(static_cast<int>(keep)));
}
__device__ __forceinline__ void wgmma_e4m3(float (&d)[64], std::uint64_t a, std::uint64_t b,
                                           bool keep) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {" CACHALOT_R0_31 ", " CACHALOT_R32_63
      "}, %64, %65, p, 1, 1;\n}"
      : CACHALOT_D64(d, 0)
      : "l"(a), "l"(b), "r"(static_cast<int>(keep)));
}

__device__ __forceinline__ void wgmma_e4m3(float (&d)[96], std::uint64_t a, std::uint64_t b,
                                           bool keep) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %98, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n192k32.f32.e4m3.e4m3 {" CACHALOT_R0_31 ", " CACHALOT_R32_63
      ", " CACHALOT_R64_95 "}, %96, %97, p, 1, 1;\n}"
      : CACHALOT_D64(d, 0), CACHALOT_D32(d, 64)
      : "l"(a), "l"(b), "r"(static_cast<int>(keep)));
}

// The same over 16 numbers of bf16. kTransA, kTransB: the tile lies with M (N) contiguous instead
// of K (its descriptor is then another: see the instruction set's manual).
template <int kTransA = 0, int kTransB = 0>
__device__ __forceinline__ void wgmma_bf16(float (&d)[32], std::uint64_t a, std::uint64_t b,
                                           bool keep) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" CACHALOT_R0_31
      "}, %32, %33, p, 1, 1, %35, %36;\n}"
      : CACHALOT_D32(d, 0)
      : "l"(a), "l"(b), "r"(static_cast<int>(keep)), "n"(kTransA), "n"(kTransB));
}
template <int kTransA = 0, int kTransB = 0>
__device__ __forceinline__ void wgmma_bf16(float (&d)[64], std::uint64_t a, std::uint64_t b,
                                           bool keep) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" CACHALOT_R0_31 ", " CACHALOT_R32_63
      "}, %64, %65, p, 1, 1, %67, %68;\n}"
      : CACHALOT_D64(d, 0)
      : "l"(a), "l"(b), "r"(static_cast<int>(keep)), "n"(kTransA), "n"(kTransB));
}
template <int kTransA = 0, int kTransB = 0>
__device__ __forceinline__ void wgmma_bf16(float (&d)[128], std::uint64_t a, std::uint64_t b,
                                           bool keep) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" CACHALOT_R0_31 ", " CACHALOT_R32_63
      ", " CACHALOT_R64_127 "}, %128, %129, p, 1, 1, %131, %132;\n}"
      : CACHALOT_D64(d, 0), CACHALOT_D64(d, 64)
      : "l"(a), "l"(b), "r"(static_cast<int>(keep)), "n"(kTransA), "n"(kTransB));
}

#undef CACHALOT_D4
#undef CACHALOT_D16
#undef CACHALOT_D32
#undef CACHALOT_D64
#undef CACHALOT_R0_31
#undef CACHALOT_R32_63
#undef CACHALOT_R64_95
#undef CACHALOT_R64_127

}  // namespace cachalot::cuda::ptx
