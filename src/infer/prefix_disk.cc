#include "infer/prefix_disk.h"

#include <rocksdb/write_batch.h>

#include <cstring>
#include <utility>

#include "base/error.h"
#include "infer/prefix_record.h"

namespace cachalot::infer {

namespace {

// Beside the blocks and with them: 8 bytes, how much has been written. Keys of blocks have 16
// bytes.
constexpr const char* kWrittenKey = "written";

}  // namespace

DiskBlock read_block(const Database& database, rocksdb::ColumnFamilyHandle* family,
                     const rocksdb::Slice& key, const BlockPlace& place,
                     std::size_t payload_bytes) {
  using State = DiskBlock::State;
  auto bytes = std::make_shared<rocksdb::PinnableSlice>();
  const rocksdb::Status status = read_record(database, family, key, bytes.get());
  if (status.IsNotFound()) return {};
  if (status.IsCorruption()) return {State::kDamaged, nullptr, 0, status.ToString()};
  if (!status.ok()) return {State::kFailed, nullptr, 0, status.ToString()};
  const DecodedBlock decoded = decode_block(std::as_bytes(std::span(bytes->data(), bytes->size())));
  if (!decoded.record) return {State::kDamaged, nullptr, 0, std::string(decoded.damage)};
  const BlockRecord& record = *decoded.record;
  if (!(record.place == place) || record.payload.size() != payload_bytes) {
    return {State::kOther, nullptr, record.stamp, {}};
  }
  // The block's memory is what RocksDB read it into: nothing is copied.
  auto block = std::make_shared<Block>(Block{place, record.payload, std::move(bytes)});
  return {State::kFound, std::move(block), record.stamp, {}};
}

PrefixDisk::PrefixDisk(const Database& database, const DiskBudget& budget,
                       std::size_t payload_bytes, Report report)
    : database_(database),
      budget_(budget),
      payload_bytes_(payload_bytes),
      report_(std::move(report)) {
  // Where it is missing or cannot be read, stamps of a former life look like those of the future:
  // not fresh.
  rocksdb::PinnableSlice bytes;
  if (read_record(database_, database_.blocks, kWrittenKey, &bytes).ok() && bytes.size() == 8) {
    std::uint64_t written;
    std::memcpy(&written, bytes.data(), sizeof written);
    written_ = written;
  }
}

DiskBlock PrefixDisk::read(const BlockPlace& place) const {
  const rocksdb::Slice key = slice(place.key);
  DiskBlock found = read_block(database_, database_.blocks, key, place, payload_bytes_);
  if (found.state == DiskBlock::State::kDamaged) {
    const bool deleted = database_.db->Delete(rocksdb::WriteOptions(), database_.blocks, key).ok();
    report_(cat("prefix store: block ", place.position, " of a prompt is damaged: ", found.what,
                deleted ? ". It has been deleted and" : ". It could not be deleted, but",
                " will be computed again."));
  } else if (found.state == DiskBlock::State::kFailed) {
    report_(cat("prefix store: block ", place.position,
                " of a prompt could not be read: ", found.what, ". It will be computed again."));
  }
  return found;
}

std::optional<std::uint64_t> PrefixDisk::write(std::span<const BlockPtr> blocks) {
  const std::uint64_t stamp = written_;
  std::uint64_t written = stamp;
  rocksdb::WriteBatch batch;
  for (const BlockPtr& block : blocks) {
    const RecordHeader header = encode_header({block->place, stamp, block->payload});
    const rocksdb::Slice key = slice(block->place.key);
    const rocksdb::Slice value[2] = {
        {reinterpret_cast<const char*>(header.data()), header.size()},
        {reinterpret_cast<const char*>(block->payload.data()), block->payload.size()}};
    const rocksdb::Status status =
        batch.Put(database_.blocks, rocksdb::SliceParts(&key, 1), rocksdb::SliceParts(value, 2));
    if (!status.ok()) {
      fail("write blocks", status);
      return std::nullopt;
    }
    written += header.size() + block->payload.size() + key.size();
  }
  rocksdb::Status status =
      batch.Put(database_.blocks, kWrittenKey,
                rocksdb::Slice(reinterpret_cast<const char*>(&written), sizeof written));
  // After a full disk RocksDB refuses until it is told to look again.
  if (status.ok() && failing_) status = database_.db->Resume();
  if (status.ok()) status = database_.db->Write(rocksdb::WriteOptions(), &batch);
  if (!status.ok()) {
    fail("write blocks", status);
    return std::nullopt;
  }
  failing_ = false;
  written_ = written;
  return stamp;
}

bool PrefixDisk::sync() {
  const rocksdb::Status status = database_.db->SyncWAL();
  return status.ok() || fail("sync its log", status);
}

bool PrefixDisk::fail(const std::string& what, const rocksdb::Status& status) {
  if (!failing_.exchange(true)) {
    report_(cat("the prefix store cannot ", what, ": ", status.ToString(),
                ". It goes on without: new blocks are lost at the end of this process. Free some "
                "space, or see what is wrong with the disk."));
  }
  return false;
}

bool PrefixDisk::fresh(std::uint64_t stamp) const noexcept {
  const std::uint64_t now = written_;
  return stamp != kNotOnDisk && stamp <= now && now - stamp < budget_.tables / 2;
}

std::uint64_t PrefixDisk::table_bytes() const {
  std::uint64_t bytes = 0;
  (void)database_.db->GetIntProperty(database_.blocks, rocksdb::DB::Properties::kTotalSstFilesSize,
                                     &bytes);
  return bytes;
}

}  // namespace cachalot::infer
