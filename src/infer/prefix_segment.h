// Files of kept blocks, one per save: written outside the database, taken in whole, deleted whole.
//
// Owns:    a file in the making, removed where it is not taken in.
// Threads: one per object; the functions from one at a time.
// Errors:  kIo.
#pragma once

#include <rocksdb/sst_file_writer.h>

#include <cstdint>
#include <map>
#include <string>

#include "infer/prefix_database.h"
#include "infer/prefix_tree.h"

namespace cachalot::infer {

// A kept block's key: its segment, then its position, big-endian, so that a segment is a range of
// keys.
struct SegmentKey {
  SegmentKey(std::uint64_t segment, std::uint32_t position);
  rocksdb::Slice slice() const { return {bytes, sizeof bytes}; }
  char bytes[12];
};

class SegmentFile {
 public:
  SegmentFile(const std::string& folder, std::uint64_t segment);
  ~SegmentFile();
  SegmentFile(const SegmentFile&) = delete;
  SegmentFile& operator=(const SegmentFile&) = delete;

  void add(const Block& block);  // in order of position
  std::uint64_t segment() const noexcept { return segment_; }
  // What the file takes with `more` further blocks of `payload_bytes`, at most.
  std::uint64_t bytes_with(std::uint64_t more, std::size_t payload_bytes) const noexcept;
  bool empty() const noexcept { return blocks_ == 0; }
  // Into the database, where it survives the process and a loss of power; its size there.
  std::uint64_t take_in(const Database& database);

 private:
  const std::uint64_t segment_;
  const std::string path_;
  std::uint64_t blocks_ = 0;
  std::unique_ptr<rocksdb::SstFileWriter> writer_;
  std::string record_;
};

// The segments in the database and their sizes, from the files' names of first and last keys; no
// file is read.
std::map<std::uint64_t, std::uint64_t> segments_of(const Database& database);
void delete_segment(const Database& database, std::uint64_t segment);

}  // namespace cachalot::infer
