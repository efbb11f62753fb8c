#include "infer/prefix_writer.h"

#include <utility>
#include <vector>

namespace cachalot::infer {

// A batch is copied once more by RocksDB; small blocks share the cost of a write, large ones go
// alone.
static constexpr std::size_t kBatchBytes = 1 << 20;

PrefixWriter::PrefixWriter(std::size_t queue_bytes, Write write)
    : queue_bytes_(queue_bytes), write_(std::move(write)), thread_([this] { run(); }) {}

PrefixWriter::~PrefixWriter() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_.notify_one();
  thread_.join();
}

bool PrefixWriter::push(BlockPtr block) {
  {
    const std::lock_guard lock(mutex_);
    const std::size_t bytes = PrefixTree::bytes_of(*block);
    if (bytes_ > 0 && bytes_ + bytes > queue_bytes_) return false;  // one block always has room
    bytes_ += bytes;
    ++pushed_;
    pending_[block->place.key] = block;
    queue_.push_back(std::move(block));
  }
  work_.notify_one();
  return true;
}

BlockPtr PrefixWriter::find(const BlockPlace& place) const {
  const std::lock_guard lock(mutex_);
  const auto found = pending_.find(place.key);
  if (found == pending_.end() || !(found->second->place == place)) return nullptr;
  return found->second;
}

void PrefixWriter::drain() {
  std::unique_lock lock(mutex_);
  const std::uint64_t until = pushed_;
  done_.wait(lock, [&] { return written_ >= until; });
}

void PrefixWriter::run() {
  std::vector<BlockPtr> batch;
  std::unique_lock lock(mutex_);
  for (;;) {
    work_.wait(lock, [&] { return stop_ || !queue_.empty(); });
    if (queue_.empty()) return;
    std::size_t bytes = 0;
    while (!queue_.empty() && (batch.empty() || bytes < kBatchBytes)) {
      bytes += PrefixTree::bytes_of(*queue_.front());
      batch.push_back(std::move(queue_.front()));
      queue_.pop_front();
    }
    const std::size_t blocks = batch.size();
    lock.unlock();
    write_(batch);
    lock.lock();
    for (const BlockPtr& block : batch) {
      const auto found = pending_.find(block->place.key);
      if (found != pending_.end() && found->second == block) pending_.erase(found);
    }
    lock.unlock();
    batch.clear();  // frees before the queue counts it as free
    lock.lock();
    bytes_ -= bytes;
    written_ += blocks;
    done_.notify_all();
  }
}

}  // namespace cachalot::infer
