// Memory that threads with nothing else to do fetch into their second caches, each some of it.
//
// Threads: one at a time calls `set`; each thread has a Fetcher of its own.
// Errors:  none; addresses are hints, nothing is read.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>

#include "base/memory_piece.h"

namespace cachalot {

class FetchList {
 public:
  static constexpr std::size_t kMostPieces = 32;
  static constexpr std::ptrdiff_t kStep = 512;  // bytes that are asked for at a time
  static constexpr std::ptrdiff_t kMostBytes = std::ptrdiff_t{1}
                                               << 20;  // what caches have room for

  // In place of what there was. What is too much is left out.
  void set(std::span<const MemoryPiece> pieces) noexcept {
    const std::lock_guard lock(mutex_);
    count_ = 0;
    std::ptrdiff_t left = kMostBytes;
    for (const MemoryPiece& piece : pieces) {
      if (count_ == kMostPieces || left <= 0) break;
      const std::ptrdiff_t bytes = std::min(piece.bytes, left);
      pieces_[count_++] = {piece.at, (bytes + kStep - 1) / kStep * kStep};
      left -= bytes;
    }
    told_.fetch_add(1, std::memory_order_release);
  }

  // Goes over the list once: thread `thread` of `threads` takes every so many runs of it.
  class Fetcher {
   public:
    static constexpr std::ptrdiff_t kRun = 8 * kStep;

    Fetcher(FetchList& list, int thread, int threads)
        : list_(list), skip_(kRun * (threads - 1)), first_(kRun * thread) {}

    // The next kStep bytes, of which some may lie behind a piece's end; null: there are none left.
    const char* next() noexcept {
      if (list_.told_.load(std::memory_order_acquire) != seen_) begin();
      while (piece_ < count_ && at_ >= pieces_[piece_].bytes) {
        at_ -= pieces_[piece_].bytes;
        ++piece_;
      }
      if (piece_ >= count_) return nullptr;
      const char* here = static_cast<const char*>(pieces_[piece_].at) + at_;
      at_ += kStep;
      run_ += kStep;
      if (run_ == kRun) {
        run_ = 0;
        at_ += skip_;
      }
      return here;
    }

    // Asks for them. False: there was nothing left to ask for.
    bool step() noexcept {
      const char* from = next();
      if (from == nullptr) return false;
      constexpr int kToSecondCache = 2;
      for (int line = 0; line < kStep; line += 64) {
        __builtin_prefetch(from + line, 0, kToSecondCache);
      }
      return true;
    }

   private:
    void begin() noexcept {
      const std::lock_guard lock(list_.mutex_);
      seen_ = list_.told_.load(std::memory_order_relaxed);
      count_ = list_.count_;
      std::copy_n(list_.pieces_.begin(), count_, pieces_.begin());
      piece_ = 0;
      run_ = 0;
      at_ = first_;
    }

    FetchList& list_;
    std::ptrdiff_t skip_, first_;
    std::uint64_t seen_ = 0;
    std::array<MemoryPiece, kMostPieces> pieces_;
    std::size_t count_ = 0, piece_ = 0;
    std::ptrdiff_t at_ = 0;   // of the piece
    std::ptrdiff_t run_ = 0;  // done of the run
  };

 private:
  std::mutex mutex_;
  std::atomic<std::uint64_t> told_{0};
  std::array<MemoryPiece, kMostPieces> pieces_;
  std::size_t count_ = 0;
};

}  // namespace cachalot
