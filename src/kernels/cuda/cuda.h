// The CUDA backend as `runtime/` sees it: a device, and the table of kernels that run on it.
//
// Built for Hopper (compute capability 9.0a) alone: products use its wgmma and TMA instructions.
// Errors:  kUnsupported where there is no driver, no GPU or an older one.
// Threads: a device serves one caller at a time.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "kernels/table.h"
#include "tensor/device.h"

namespace cachalot::cuda {

struct DeviceFacts {
  std::string name;               // "NVIDIA H200"
  int processors = 0;             // streaming multiprocessors
  std::size_t memory = 0;         // bytes
  std::size_t l2_cache = 0;       // bytes
  double memory_clock_bound = 0;  // bytes per second of its memory bus, by its clock; 0: not told
};

int count_devices() noexcept;  // 0 without a driver
DeviceFacts facts(int index);
std::unique_ptr<Device> open(int index = 0);
std::size_t free_memory();  // bytes, of the device that this thread opened
const KernelTable& table() noexcept;

}  // namespace cachalot::cuda
