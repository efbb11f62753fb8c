// The part of the prefix store on disk: blocks in the order they were written, the oldest given up
// when the bound on their sum is passed (RocksDB's FIFO compaction).
//
// What is still used does not grow old: a record carries a stamp, the number of bytes written
// before it, and the store writes a block again when it is used and no longer `fresh`, long before
// FIFO reaches it.
//
// Owns:    nothing: works on the database it is given.
// Threads: read from any; write from one at a time.
// Errors:  none is thrown. A failed write is reported once until writing works again, and returned.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>

#include "infer/prefix_database.h"
#include "infer/prefix_tree.h"

namespace cachalot::infer {

// A block as some column family has it.
struct DiskBlock {
  enum class State {
    kFound,
    kAbsent,
    kOther,  // sound, but of another chain with the same key
    kDamaged,
    kFailed,  // the system could not read it
  };
  State state = State::kAbsent;
  BlockPtr block;
  std::uint64_t stamp = 0;
  std::string what;  // is wrong: of a damaged or a failed one
};

// Reads, checks every byte, compares with `place`.
DiskBlock read_block(const Database& database, rocksdb::ColumnFamilyHandle* family,
                     const rocksdb::Slice& key, const BlockPlace& place, std::size_t payload_bytes);

class PrefixDisk {
 public:
  PrefixDisk(const Database& database, const DiskBudget& budget, std::size_t payload_bytes,
             Report report);

  // A damaged block is reported, and deleted by then.
  DiskBlock read(const BlockPlace& place) const;
  // All of them or, where it returns nullopt, none: survives the process from here on. Returns
  // their common stamp.
  std::optional<std::uint64_t> write(std::span<const BlockPtr> blocks);
  // Makes what was written survive a loss of power as well.
  bool sync();

  // Whether FIFO is far from what was written at `stamp`.
  bool fresh(std::uint64_t stamp) const noexcept;
  std::uint64_t table_bytes() const;  // in files now, without the log

 private:
  bool fail(const std::string& what, const rocksdb::Status& status);

  const Database& database_;
  const DiskBudget budget_;
  const std::size_t payload_bytes_;
  const Report report_;
  std::atomic<std::uint64_t> written_{1};  // bytes, over the store's whole life
  std::atomic<bool> failing_{false};
};

}  // namespace cachalot::infer
