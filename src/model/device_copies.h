// Weights copied to a device, one after the other as a folder is read.
//
// Owns:    the copies, in pieces of up to 64 MiB and larger ones where a tensor is.
// Threads: one caller.
// Errors:  those of Device: kUnsupported where its memory does not suffice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "nn/params.h"

namespace cachalot::model {

class DeviceCopies {
 public:
  explicit DeviceCopies(Device* device = nullptr) : device_(device) {}

  bool active() const noexcept { return device_ != nullptr; }
  // The same weight or vector with its numbers on the device; its source may go away.
  nn::WeightRef copy(nn::WeightRef w);
  nn::VecRef copy(nn::VecRef v);
  std::uint64_t bytes() const noexcept { return bytes_; }

 private:
  const void* copy(const void* from, std::size_t bytes);

  Device* device_;
  std::vector<std::unique_ptr<void, FreeDeleter>> slabs_;
  std::byte* next_ = nullptr;
  std::size_t left_ = 0;
  std::uint64_t bytes_ = 0;
};

}  // namespace cachalot::model
