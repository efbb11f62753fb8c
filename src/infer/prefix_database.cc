#include "infer/prefix_database.h"

#include <rocksdb/cache.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/memory_allocator.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/error.h"
#include "infer/prefix_record.h"

namespace cachalot::infer {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kSmallFiles = 2 * kMiB;  // manifests, options, the records of contexts
constexpr std::uint64_t kManifest = kMiB / 2;

// RocksDB writes a file LOG where it is given nothing else; what matters is in the statuses.
class NoLog : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char* /*format*/, va_list /*arguments*/) override {}
};

class ReadInto : public rocksdb::MemoryAllocator {
 public:
  explicit ReadInto(std::shared_ptr<PayloadMemory> memory) : memory_(std::move(memory)) {}
  const char* Name() const override { return "PayloadMemory"; }
  void* Allocate(std::size_t bytes) override { return memory_->allocate(bytes); }
  void Deallocate(void* memory) override { memory_->free(memory); }

 private:
  const std::shared_ptr<PayloadMemory> memory_;
};

rocksdb::BlockBasedTableOptions table_options(const std::shared_ptr<PayloadMemory>& memory) {
  rocksdb::BlockBasedTableOptions table;
  if (memory) {
    // Never filled, the tree in RAM is the cache: only a cache can say where blocks are read to.
    rocksdb::LRUCacheOptions cache;
    cache.capacity = 0;
    cache.num_shard_bits = 0;
    cache.memory_allocator = std::make_shared<ReadInto>(memory);
    table.block_cache = rocksdb::NewLRUCache(cache);
  } else {
    table.no_block_cache = true;
  }
  table.checksum = rocksdb::kXXH3;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.format_version = 5;
  return table;
}

rocksdb::ColumnFamilyOptions family_options(const std::shared_ptr<PayloadMemory>& memory) {
  rocksdb::ColumnFamilyOptions options;
  options.compression = rocksdb::kNoCompression;  // latent rows do not shrink
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table_options(memory)));
  options.ttl = 0;
  options.periodic_compaction_seconds = 0;
  options.write_buffer_size = kMiB / 4;
  return options;
}

rocksdb::ColumnFamilyOptions kept_options(const std::shared_ptr<PayloadMemory>& memory) {
  rocksdb::ColumnFamilyOptions options = family_options(memory);
  options.num_levels = 2;  // files go into level 1, from where they can be deleted whole
  options.disable_auto_compactions = true;
  return options;
}

rocksdb::ColumnFamilyOptions blocks_options(const DiskBudget& budget,
                                            const std::shared_ptr<PayloadMemory>& memory) {
  rocksdb::ColumnFamilyOptions options = family_options(memory);
  options.compaction_style = rocksdb::kCompactionStyleFIFO;
  options.compaction_options_fifo = rocksdb::CompactionOptionsFIFO(budget.tables, false);
  options.write_buffer_size = budget.write_buffer;
  options.max_write_buffer_number = 2;
  return options;
}

rocksdb::DBOptions database_options(const DiskBudget& budget) {
  rocksdb::DBOptions options;
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  // Each block has its own checksum and its tokens, so whatever a damaged log still holds is worth
  // reading.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kSkipAnyCorruptedRecords;
  options.avoid_flush_during_recovery = true;
  options.max_total_wal_size = budget.log;
  options.max_manifest_file_size = kManifest;
  options.manifest_preallocation_size = 4096;
  options.allow_fallocate = false;  // space set aside would count against the bound
  options.max_open_files = 640;     // within the usual limit of 1024 with room for others
  options.max_background_jobs = 2;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  options.info_log = std::make_shared<NoLog>();
  return options;
}

using Families = std::vector<rocksdb::ColumnFamilyDescriptor>;

Families families(const DiskBudget& budget, const std::shared_ptr<PayloadMemory>& memory) {
  return {{rocksdb::kDefaultColumnFamilyName, family_options(nullptr)},
          {"blocks", blocks_options(budget, memory)},
          {"kept", kept_options(memory)}};
}

rocksdb::Status try_open(const std::string& path, const DiskBudget& budget,
                         const Families& families, Database* out) {
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status =
      rocksdb::DB::Open(database_options(budget), path, families, &handles, &db);
  if (!status.ok()) return status;
  out->db.reset(db);
  out->names = handles[0];
  out->blocks = handles[1];
  out->kept = handles[2];
  return status;
}

// Whether the files are at fault rather than the system.
bool is_damage(const rocksdb::Status& status) {
  return status.IsCorruption() || status.IsInvalidArgument() || status.IsNotFound() ||
         status.IsNotSupported() || status.IsPathNotFound();
}

// Files without CURRENT would be taken for a new database, and deleted without a word.
bool lacks_current(const fs::path& path) {
  return fs::exists(path) && !fs::exists(path / "CURRENT") &&
         std::any_of(fs::directory_iterator(path), fs::directory_iterator(), [](const auto& entry) {
           const std::string extension = entry.path().extension().string();
           return extension == ".sst" || extension == ".log";
         });
}

// A bound that is smaller than last time holds from now on, not from the next file on.
void shrink(const Database& database, const DiskBudget& budget) {
  std::uint64_t tables = 0;
  if (!database.db->GetIntProperty(database.blocks, rocksdb::DB::Properties::kTotalSstFilesSize,
                                   &tables) ||
      tables <= budget.tables) {
    return;
  }
  // Should it fail, FIFO does it with the next file.
  (void)database.db->CompactRange(rocksdb::CompactRangeOptions(), database.blocks, nullptr,
                                  nullptr);
}

[[noreturn]] void refuse(const PrefixFolder& folder, const rocksdb::Status& status) {
  throw Error(Code::kIo,
              cat("cannot open the prefix store ", folder.path().string(), ": ", status.ToString(),
                  ". Free space or give write permission there, or give another folder."));
}

}  // namespace

DiskBudget::DiskBudget(std::uint64_t bytes, std::size_t payload_bytes) : total(bytes) {
  const std::uint64_t record = record_slot_bytes(payload_bytes);
  // Many small files make every miss slow, large ones the log and the time to open after a crash.
  write_buffer = std::max(std::min(total / 32, 64 * kMiB), total / 512);
  write_buffer =
      std::clamp(write_buffer, std::max(kMiB / 16, record), std::max(256 * kMiB, record));
  // Besides the tables that FIFO keeps: one table just written and not yet counted, and the logs of
  // the buffer that fills, of the one being written out, and of one more that waits; each may pass
  // its size by a record.
  log = 2 * write_buffer;
  const std::uint64_t reserve = 5 * (write_buffer + record) + kSmallFiles;
  if (total < 2 * reserve) {
    // Solved for `total` with either value of write_buffer.
    const std::uint64_t least =
        std::max((10 * record + 2 * kSmallFiles) * 16 / 11 + 32,
                 10 * (std::max(kMiB / 16, record) + record) + 2 * kSmallFiles);
    throw Error(
        Code::kUsage,
        cat("prefix store: ", total, " bytes on disk are too few for blocks of ", payload_bytes,
            " bytes. Allow at least ", least, ", or give no folder and keep blocks in RAM alone."));
  }
  tables = total - reserve;
}

Database::Database(Database&& other) noexcept
    : db(std::move(other.db)),
      blocks(std::exchange(other.blocks, nullptr)),
      kept(std::exchange(other.kept, nullptr)),
      names(std::exchange(other.names, nullptr)) {}

Database::~Database() {
  if (!db) return;
  for (rocksdb::ColumnFamilyHandle* family : {names, blocks, kept}) {
    // A handle that will not close leaves memory behind, nothing else.
    (void)db->DestroyColumnFamilyHandle(family);
  }
}

rocksdb::Options kept_file_options() {
  rocksdb::DBOptions options;
  options.info_log = std::make_shared<NoLog>();
  return {options, kept_options(nullptr)};
}

Database open_database(const PrefixFolder& folder, const DiskBudget& budget,
                       const std::shared_ptr<PayloadMemory>& memory, const Report& report) {
  const fs::path path = folder.database();
  const Families all = families(budget, memory);
  Database database;
  rocksdb::Status status;
  if (lacks_current(path)) {
    status = rocksdb::Status::Corruption("the file CURRENT is missing");
  } else {
    status = try_open(path.string(), budget, all, &database);
    if (status.ok()) {
      shrink(database, budget);
      return database;
    }
    if (!is_damage(status)) refuse(folder, status);
  }
  const std::string damage = status.ToString();
  status = rocksdb::RepairDB(path.string(), database_options(budget), all);
  if (status.ok()) status = try_open(path.string(), budget, all, &database);
  std::error_code ignored;
  fs::remove_all(path / "lost", ignored);  // where a repair puts what it cannot use
  if (status.ok()) {
    report(cat("the prefix store ", folder.path().string(), " was damaged (", damage,
               ") and has been repaired: blocks that are missing will be computed again."));
    return database;
  }
  if (!is_damage(status)) refuse(folder, status);
  fs::remove_all(path, ignored);
  status = try_open(path.string(), budget, all, &database);
  if (!status.ok()) refuse(folder, status);
  report(cat("the prefix store ", folder.path().string(), " was damaged (", damage,
             ") beyond repair and starts afresh: its blocks and named contexts are gone."));
  return database;
}

rocksdb::Status read_record(const Database& database, rocksdb::ColumnFamilyHandle* family,
                            const rocksdb::Slice& key, rocksdb::PinnableSlice* record) {
  rocksdb::ReadOptions options;
  options.verify_checksums = true;
  options.fill_cache = false;
  return database.db->Get(options, family, key, record);
}

}  // namespace cachalot::infer
