// Fetches what comes next into the second cache while the current block is computed.
//
// A head's rows lie far apart (one short piece per token), so the core does not look ahead by
// itself, and packing them would wait for memory. Fetching is spread over the products instead.
//
// Threads: one per task. Addresses are only hints: nothing is read.
#pragma once

#include <algorithm>
#include <cstddef>

namespace cachalot::cpu {

class RowFetcher {
 public:
  // `rows` rows from `first`, `cols` elements of `size` bytes of each. What was asked for before
  // goes first.
  void add(const void* first, std::ptrdiff_t stride, int rows, int cols, int size = 4) {
    if (count_ == kPieces || rows <= 0 || cols <= 0) return;
    pieces_[count_++] = {static_cast<const char*>(first), stride * size, rows, cols * size};
  }
  // Spreads what is left over `steps` calls of `step`.
  void spread(int steps) { rows_per_step_ = (left() + steps - 1) / std::max(1, steps); }
  void step() {
    for (int n = rows_per_step_; n > 0 && at_ < count_; --n) {
      const Piece& p = pieces_[at_];
      const char* row = p.first + row_ * p.stride;
      for (int b = 0; b < p.bytes; b += kLine) __builtin_prefetch(row + b, 0, 2);
      if (++row_ == p.rows) {
        row_ = 0;
        ++at_;
      }
    }
    if (at_ == count_) at_ = count_ = 0;
  }

 private:
  static constexpr int kPieces = 8, kLine = 64;
  struct Piece {
    const char* first;
    std::ptrdiff_t stride;
    int rows, bytes;
  };
  int left() const {
    int rows = -row_;
    for (int i = at_; i < count_; ++i) rows += pieces_[i].rows;
    return rows;
  }

  Piece pieces_[kPieces] = {};
  int count_ = 0, at_ = 0, row_ = 0, rows_per_step_ = 0;
};

}  // namespace cachalot::cpu
