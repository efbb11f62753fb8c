// Blocks on their way to disk: a bounded queue and one thread that empties it in batches.
//
// Owns:    its thread; a share of each block in the queue.
// Threads: push and drain from any.
// Errors:  a full queue drops the block and says so. The writing function must not throw.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <span>
#include <thread>
#include <unordered_map>

#include "infer/prefix_tree.h"

namespace cachalot::infer {

class PrefixWriter {
 public:
  using Write = std::function<void(std::span<const BlockPtr>)>;
  PrefixWriter(std::size_t queue_bytes, Write write);
  ~PrefixWriter();  // writes what is left
  PrefixWriter(const PrefixWriter&) = delete;
  PrefixWriter& operator=(const PrefixWriter&) = delete;

  bool push(BlockPtr block);  // false: the queue is full, and the block was dropped
  BlockPtr find(const BlockPlace& place) const;  // pushed and not yet written; else null
  void drain();  // returns when what was pushed before has been handed to `write`

 private:
  void run();

  const std::size_t queue_bytes_;
  const Write write_;
  mutable std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable done_;
  std::deque<BlockPtr> queue_;
  std::unordered_map<BlockKey, BlockPtr, BlockKeyHash> pending_;  // the queue and the batch
  std::size_t bytes_ = 0;      // in the queue and in the batch being written
  std::uint64_t pushed_ = 0;   // blocks ever
  std::uint64_t written_ = 0;  // blocks ever
  bool stop_ = false;
  std::thread thread_;  // last: starts when all else is there
};

}  // namespace cachalot::infer
