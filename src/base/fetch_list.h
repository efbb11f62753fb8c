// Memory that threads with nothing else to do fetch into their second caches: whoever has time
// takes the next run of it.
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
  static constexpr std::ptrdiff_t kRun = 1024;  // bytes that a thread asks for at a time
  static constexpr std::size_t kMostPieces = 32;
  // What a second cache has room for.
  static constexpr std::ptrdiff_t kMostBytes = std::ptrdiff_t{1} << 20;

  // In place of what there was. What is too much is left out.
  void set(std::span<const MemoryPiece> pieces) noexcept {
    const std::lock_guard lock(mutex_);
    count_ = 0;
    std::ptrdiff_t left = kMostBytes;
    for (const MemoryPiece& piece : pieces) {
      if (count_ == kMostPieces || left <= 0) break;
      const std::ptrdiff_t bytes = std::min(piece.bytes, left);
      pieces_[count_++] = {piece.at, (bytes + kRun - 1) / kRun * kRun};
      left -= bytes;
    }
    const std::uint32_t number = told_.load(std::memory_order_relaxed) + 1;
    claimed_.store(std::uint64_t{number} << 32, std::memory_order_relaxed);
    told_.store(number, std::memory_order_release);
  }

  class Fetcher {
   public:
    explicit Fetcher(FetchList& list) : list_(list) {}

    // The next kRun bytes that no other thread has taken, of which some may lie behind a piece's
    // end; null: there are none left.
    const char* next() noexcept {
      if (list_.told_.load(std::memory_order_acquire) != seen_) begin();
      if (piece_ >= count_) return nullptr;
      const std::uint64_t claim = list_.claimed_.fetch_add(1, std::memory_order_relaxed);
      if (claim >> 32 != seen_) begin();  // another list meanwhile; the claim is one to that
      const auto at = static_cast<std::ptrdiff_t>(claim & 0xFFFFFFFFu) * kRun;
      while (piece_ < count_ && at - begin_ >= pieces_[piece_].bytes) {
        begin_ += pieces_[piece_].bytes;
        ++piece_;
      }
      if (piece_ >= count_) return nullptr;
      return static_cast<const char*>(pieces_[piece_].at) + (at - begin_);
    }

    // Asks for them. False: there was nothing left to ask for.
    bool step() noexcept {
      const char* from = next();
      if (from == nullptr) return false;
      constexpr int kToSecondCache = 2;
      for (int line = 0; line < kRun; line += 64) {
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
      begin_ = 0;
    }

    FetchList& list_;
    std::uint32_t seen_ = 0;  // list
    std::array<MemoryPiece, kMostPieces> pieces_;
    std::size_t count_ = 0, piece_ = 0;
    std::ptrdiff_t begin_ = 0;  // of the piece, all of them laid end to end
  };

 private:
  std::mutex mutex_;
  std::atomic<std::uint32_t> told_{0};     // lists so far
  std::atomic<std::uint64_t> claimed_{0};  // the list's number << 32 | runs that were taken
  std::array<MemoryPiece, kMostPieces> pieces_;
  std::size_t count_ = 0;
};

}  // namespace cachalot
