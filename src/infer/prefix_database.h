// RocksDB as the prefix store uses it: its options, its column families, and the way back from
// damage.
//
//   blocks   FIFO: files of blocks in the order they were written; the oldest is deleted when the
//            sum passes the bound
//   kept     blocks of named contexts: one file per save, put in and deleted whole, never compacted
//   default  one small record per named context
//
// Owns:    the open database.
// Threads: any, as RocksDB itself.
// Errors:  kIo where the system refuses (permission, full disk); kUsage for a bound too small for
//          the blocks. Damage is no error: the database is repaired, or begun afresh, and the
//          report says which.
#pragma once

#include <rocksdb/db.h>

#include <cstdint>
#include <filesystem>
#include <memory>

#include "infer/prefix_folder.h"
#include "infer/prefix_key.h"
#include "infer/prefix_memory.h"

namespace cachalot::infer {

// How the bound on the folder (named contexts apart) is divided.
struct DiskBudget {
  std::uint64_t total = 0;
  std::uint64_t write_buffer = 0;  // a file of blocks: what FIFO deletes at a time
  std::uint64_t log = 0;           // the write-ahead log, flushed when it passes this
  std::uint64_t tables = 0;        // what FIFO keeps

  // kUsage below the smallest total that holds such blocks, which the text names.
  DiskBudget(std::uint64_t total, std::size_t payload_bytes);
};

struct Database {
  std::unique_ptr<rocksdb::DB> db;
  rocksdb::ColumnFamilyHandle* blocks = nullptr;
  rocksdb::ColumnFamilyHandle* kept = nullptr;
  rocksdb::ColumnFamilyHandle* names = nullptr;  // the default one

  Database() = default;
  Database(Database&& other) noexcept;
  Database& operator=(Database&&) = delete;
  ~Database();
};

// Records are read into `memory`, which outlives them.
Database open_database(const PrefixFolder& folder, const DiskBudget& budget,
                       const std::shared_ptr<PayloadMemory>& memory, const Report& report);
// For files that are made outside and then taken in.
rocksdb::Options kept_file_options();
// One block's record, unchecked but for RocksDB's own checksum; never goes through a cache.
rocksdb::Status read_record(const Database& database, rocksdb::ColumnFamilyHandle* family,
                            const rocksdb::Slice& key, rocksdb::PinnableSlice* record);

inline rocksdb::Slice slice(const BlockKey& key) {
  return {reinterpret_cast<const char*>(key.bytes.data()), key.bytes.size()};
}

}  // namespace cachalot::infer
