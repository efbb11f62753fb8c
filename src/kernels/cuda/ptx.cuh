// Hopper's instructions for moving tiles: barriers in shared memory (mbarrier), the copy engine
// (TMA), clusters of blocks, registers. The matrix instructions are in wgmma.cuh, descriptors of
// matrices in tensor_map.cuh.
//
// Addresses in shared memory are the 32-bit ones of shared_address(). A wait that never ends fails
// after some seconds: a fault is an error and no hang.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace cachalot::cuda::ptx {

__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

// ---- mbarrier ----

__device__ __forceinline__ void barrier_init(std::uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// After the inits, before a __syncthreads or cluster_sync that shows them to the others.
__device__ __forceinline__ void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async;" ::: "memory");
}
__device__ __forceinline__ void barrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// At the same address in another block of the cluster (or in this one).
__device__ __forceinline__ void barrier_arrive_at(std::uint32_t barrier, int block_of_cluster) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}" ::"r"(barrier),
      "r"(block_of_cluster)
      : "memory");
}
// What this thread has written to that block's shared memory, and what others wrote that it has
// synchronised with, is seen by who waits with barrier_wait_cluster.
__device__ __forceinline__ void barrier_arrive_release(std::uint32_t barrier,
                                                       int block_of_cluster) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n"
      "}" ::"r"(barrier),
      "r"(block_of_cluster)
      : "memory");
}
// One arrival, and the phase also waits for that many bytes of copies.
__device__ __forceinline__ void barrier_arrive_expect(std::uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ bool barrier_try_wait(std::uint32_t barrier, std::uint32_t parity) {
  std::uint32_t done;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n"
      "}"
      : "=r"(done)
      : "r"(barrier), "r"(parity)
      : "memory");
  return done != 0;
}
// Ends the kernel with an error (a store to address 0). Not __trap(): where a path of control ends,
// ptxas forgets what setmaxnreg gave to the branch, and spills.
__device__ __forceinline__ void fail() {
  asm volatile("st.global.u32 [%0], %1;" ::"l"(0ull), "r"(0) : "memory");
}
// Until the phase of that parity is over; the first phase has parity 0, and waiting for parity 1 on
// a fresh barrier returns at once.
__device__ __forceinline__ void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
  if (barrier_try_wait(barrier, parity)) return;
  constexpr long long kCycles = 6'000'000'000;  // 3 s or more
  const long long begin = clock64();
  while (!barrier_try_wait(barrier, parity)) {
    if (clock64() - begin > kCycles) fail();
  }
}

__device__ __forceinline__ void barrier_wait_cluster(std::uint32_t barrier, std::uint32_t parity) {
  constexpr long long kCycles = 6'000'000'000;
  const long long begin = clock64();
  for (std::uint32_t done = 0; done == 0;) {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n"
        "}"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
    if (clock64() - begin > kCycles) fail();
  }
}
// Into the shared memory of another block of the cluster, at the address it has in this one.
__device__ __forceinline__ void store_at(std::uint32_t to, int block_of_cluster, float4 value) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "st.shared::cluster.v4.f32 [there], {%2, %3, %4, %5};\n"
      "}" ::"r"(to),
      "r"(block_of_cluster), "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w)
      : "memory");
}

// ---- copies into shared memory ----

// Shared memory written by ordinary stores is what the copy engine or wgmma reads next: in each
// writing thread, before the barrier.
__device__ __forceinline__ void fence_shared_for_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void prefetch_tensor_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
// Before using a map that lies in global memory and that the host wrote there.
__device__ __forceinline__ void acquire_tensor_map(const CUtensorMap* map) {
  asm volatile("fence.proxy.tensormap::generic.acquire.sys [%0], 128;" ::"l"(map) : "memory");
}
// The box of the map whose first element is column x, row y; what lies outside is zero, and counts
// as bytes too.
__device__ __forceinline__ void tma_load(std::uint32_t to, const CUtensorMap* map,
                                         std::uint32_t barrier, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(x), "r"(y)
      : "memory");
}
__device__ __forceinline__ void tma_load(std::uint32_t to, const CUtensorMap* map,
                                         std::uint32_t barrier, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z)
      : "memory");
}
// To the same address of every block of the cluster in the mask; each one's barrier gets the bytes.
__device__ __forceinline__ void tma_load_multicast(std::uint32_t to, const CUtensorMap* map,
                                                   std::uint32_t barrier, std::uint16_t blocks,
                                                   int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%4, %5}], [%2], %3;" ::"r"(to),
      "l"(map), "r"(barrier), "h"(blocks), "r"(x), "r"(y)
      : "memory");
}
// The same of a map of 5 dimensions.
__device__ __forceinline__ void tma_load_5d(std::uint32_t to, const CUtensorMap* map,
                                            std::uint32_t barrier, int x, int y, int z, int u,
                                            int v) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6, %7}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(u), "r"(v)
      : "memory");
}
__device__ __forceinline__ void tma_load_multicast_5d(std::uint32_t to, const CUtensorMap* map,
                                                      std::uint32_t barrier, std::uint16_t blocks,
                                                      int x, int y, int z, int u, int v) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%4, %5, %6, %7, %8}], [%2], %3;" ::"r"(to),
      "l"(map), "r"(barrier), "h"(blocks), "r"(x), "r"(y), "r"(z), "r"(u), "r"(v)
      : "memory");
}
// Into the L2 cache alone.
__device__ __forceinline__ void tma_prefetch_5d(const CUtensorMap* map, int x, int y, int z, int u,
                                                int v) {
  asm volatile("cp.async.bulk.prefetch.tensor.5d.L2.global [%0, {%1, %2, %3, %4, %5}];" ::"l"(map),
               "r"(x), "r"(y), "r"(z), "r"(u), "r"(v)
               : "memory");
}
// Plain bytes: addresses and size are multiples of 16.
__device__ __forceinline__ void bulk_load(std::uint32_t to, const void* from, std::uint32_t barrier,
                                          int bytes) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
// From shared memory to the matrix; then tma_store_commit, and tma_store_wait_read before the
// shared memory is written again.
__device__ __forceinline__ void tma_store(const CUtensorMap* map, std::uint32_t from, int x,
                                          int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
      "r"(from), "r"(x), "r"(y)
      : "memory");
}
// The same, added to the matrix.
__device__ __forceinline__ void tma_add(const CUtensorMap* map, std::uint32_t from, int x, int y) {
  asm volatile(
      "cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.bulk_group [%0, {%2, %3}], [%1];" ::
          "l"(map),
      "r"(from), "r"(x), "r"(y)
      : "memory");
}
__device__ __forceinline__ void tma_store_commit() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
template <int kPending = 0>
__device__ __forceinline__ void tma_store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}
template <int kPending = 0>
__device__ __forceinline__ void tma_store_wait() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kPending) : "memory");
}

// One float by the asynchronous copies of sm_80; zero where !exists (then `from` is not read).
__device__ __forceinline__ void copy_float_async(std::uint32_t to, const float* from, bool exists) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from),
               "r"(exists ? 4 : 0)
               : "memory");
}
// This thread's arrival, once its copies before are done; one of the barrier's expected arrivals.
__device__ __forceinline__ void copies_arrive(std::uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// ---- blocks, warps, registers ----

// In a kernel launched with cudaLaunchAttributeProgrammaticStreamSerialization, which may start
// before those before it in the stream are done: until they are, and what they wrote is seen.
__device__ __forceinline__ void wait_for_kernels_before() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}
// Once all blocks have said so, such a kernel after this one may start.
__device__ __forceinline__ void let_dependents_start() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

__device__ __forceinline__ int cluster_rank() {
  std::uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}
// All threads of all blocks of the cluster.
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.aligned;" ::: "memory");
  asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
}
// Named barriers 1 .. 15 among `threads` threads (0 is that of __syncthreads).
__device__ __forceinline__ void named_sync(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_arrive(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
// Registers of each thread of a warpgroup; multiples of 8, all its warps alike.
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace cachalot::cuda::ptx
