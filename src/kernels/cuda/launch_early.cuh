// Launches that overlap with the kernel before: what a pass of few rows is made of takes a few
// microseconds each, and starting takes as long as working.
#pragma once

#include <utility>

#include "kernels/cuda/stream.cuh"

namespace cachalot::cuda {

// A kernel launched by launch_early waits for all kernels before it here, before it reads or writes
// what they write or read.
__device__ inline void wait_for_those_before() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}
// The next kernel may be launched: it waits for the end of this one itself. Where it reads anything
// before it waits, this kernel has to have waited.
__device__ inline void allow_next_kernel() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
__device__ inline void after_those_before() {
  allow_next_kernel();
  wait_for_those_before();
}

template <class... Params, class... Args>
void launch_early(const Context& ctx, const char* name, void (*kernel)(Params...), dim3 grid,
                  dim3 block, std::size_t shared, Args&&... args) {
  cudaLaunchConfig_t launch{};
  launch.gridDim = grid;
  launch.blockDim = block;
  launch.dynamicSmemBytes = shared;
  launch.stream = stream_of(ctx);
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  launch.attrs = &early;
  launch.numAttrs = 1;
  check(cudaLaunchKernelEx(&launch, kernel, Params(std::forward<Args>(args))...), name);
  check_launch(name);
}

}  // namespace cachalot::cuda
