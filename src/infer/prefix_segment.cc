#include "infer/prefix_segment.h"

#include <rocksdb/convenience.h>
#include <rocksdb/metadata.h>

#include <filesystem>
#include <limits>

#include "base/error.h"
#include "infer/prefix_record.h"

namespace cachalot::infer {

namespace {

// Of a file: its index and filter per block, and what it has once.
constexpr std::uint64_t kPerBlock = 128;
constexpr std::uint64_t kPerFile = 16384;

void require(const rocksdb::Status& status, const char* what) {
  if (status.ok()) return;
  throw Error(Code::kIo,
              cat("the prefix store cannot ", what, " a named context: ", status.ToString(),
                  ". Free some space, or see what is wrong with the disk."));
}

std::uint64_t segment_of(const std::string& key) {
  std::uint64_t segment = 0;
  for (std::size_t i = 0; i < 8 && i < key.size(); ++i) {
    segment = segment << 8 | static_cast<unsigned char>(key[i]);
  }
  return segment;
}

}  // namespace

SegmentKey::SegmentKey(std::uint64_t segment, std::uint32_t position) {
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(segment >> (56 - 8 * i));
  for (int i = 0; i < 4; ++i) bytes[8 + i] = static_cast<char>(position >> (24 - 8 * i));
}

SegmentFile::SegmentFile(const std::string& folder, std::uint64_t segment)
    : segment_(segment),
      path_((std::filesystem::path(folder) / cat("segment-", segment, ".sst")).string()) {}

SegmentFile::~SegmentFile() {
  if (!writer_) return;
  writer_.reset();
  std::error_code ignored;  // the next opening empties the folder
  std::filesystem::remove(path_, ignored);
}

void SegmentFile::add(const Block& block) {
  if (!writer_) {
    writer_ = std::make_unique<rocksdb::SstFileWriter>(rocksdb::EnvOptions(), kept_file_options());
    require(writer_->Open(path_), "write");
  }
  const RecordHeader header = encode_header({block.place, 0, block.payload});
  record_.assign(reinterpret_cast<const char*>(header.data()), header.size());
  record_.append(reinterpret_cast<const char*>(block.payload.data()), block.payload.size());
  const SegmentKey key(segment_, block.place.position);
  require(writer_->Put(key.slice(), record_), "write");
  ++blocks_;
}

std::uint64_t SegmentFile::bytes_with(std::uint64_t more,
                                      std::size_t payload_bytes) const noexcept {
  return kPerFile + (blocks_ + more) * (payload_bytes + kRecordHeaderBytes + kPerBlock);
}

std::uint64_t SegmentFile::take_in(const Database& database) {
  rocksdb::ExternalSstFileInfo info;
  require(writer_->Finish(&info), "write");
  rocksdb::IngestExternalFileOptions options;
  options.move_files = true;
  options.write_global_seqno = false;
  require(database.db->IngestExternalFile(database.kept, {path_}, options), "take in");
  return info.file_size;
}

std::map<std::uint64_t, std::uint64_t> segments_of(const Database& database) {
  std::map<std::uint64_t, std::uint64_t> segments;
  rocksdb::ColumnFamilyMetaData family;
  database.db->GetColumnFamilyMetaData(database.kept, &family);
  for (const rocksdb::LevelMetaData& level : family.levels) {
    for (const rocksdb::SstFileMetaData& file : level.files) {
      segments[segment_of(file.smallestkey)] += file.size;
    }
  }
  return segments;
}

void delete_segment(const Database& database, std::uint64_t segment) {
  const SegmentKey first(segment, 0);
  const SegmentKey last(segment, std::numeric_limits<std::uint32_t>::max());
  const rocksdb::Slice begin = first.slice();
  const rocksdb::Slice end = last.slice();
  require(rocksdb::DeleteFilesInRange(database.db.get(), database.kept, &begin, &end), "delete");
  if (!segments_of(database).contains(segment)) return;
  // A repair puts files where they cannot be deleted whole: compact what is left of it away.
  require(database.db->DeleteRange(rocksdb::WriteOptions(), database.kept, begin, end), "delete");
  rocksdb::CompactRangeOptions options;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForce;
  require(database.db->CompactRange(options, database.kept, &begin, &end), "delete");
}

}  // namespace cachalot::infer
