// Passes of few rows on a device that records launches (tensor/device.h): decoding. What differs
// between passes of one shape - tokens, positions, places in caches, contexts of about a length -
// is written to the same memory before each, so all launches of a pass are queued as one.
//
// Owns:    buffers of its own, which no other passes move, and the recordings.
// Threads: those of its Forward.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "kernels/planned_latents.h"
#include "model/forward.h"
#include "tensor/device.h"

namespace cachalot::model {

class Forward::Small {
 public:
  static constexpr int kMostRows = 64;

  explicit Small(const Forward& of) : forward_(of.ctx_, of.model_, of.mode_) {}

  void allow_recording(bool allowed) noexcept { forward_.allow_recording(allowed); }
  // Whether the launches of a pass of so many rows ask nothing of the host.
  bool takes(int rows);
  // The result of Forward::run or run_mtp, of chunks with reserved rows; caches do not grow yet.
  MatView<const float> run(std::span<const Chunk> chunks, bool mtp, MatView<const float> hidden);

 private:
  struct Shape {
    int plain = 0;  // passes that were not recorded
    std::unique_ptr<Recording> recording;
    std::uint64_t last = 0;  // pass
  };
  void plan(std::span<const Chunk> chunks, bool mtp, int rows);
  void launch(std::span<const Chunk> chunks, bool mtp);
  Shape& shape_of(bool mtp, int rows);

  Forward forward_;
  Mat<float> hidden_;  // [T, D] what the MTP layer reads
  PlannedLatents planned_;
  std::map<std::vector<std::int64_t>, Shape> shapes_;
  std::map<int, bool> taken_;  // by rows
  std::uint64_t passes_ = 0;
};

}  // namespace cachalot::model
