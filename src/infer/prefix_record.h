// How a block lies on disk: a header of fixed size, then the payload. The bytes are hostile until
// decoded.
//
//   0 u32 magic "CPB1"   4 u32 tokens (64)   8 u32 position   12 u32 zero   16 u64 stamp
//   24 key [16]   40 parent's key [16]   56 u64 payload bytes   64 i32 tokens [64]
//   320 u64 XXH3-64 of the payload   328 u64 XXH3-64 of bytes 0..328   336 payload
//
// Owns:    nothing: a decoded payload is a view into the bytes it was decoded from.
// Threads: plain functions.
// Errors:  damage is a return value, in words; nothing throws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "infer/prefix_key.h"

namespace cachalot::infer {

inline constexpr std::size_t kRecordHeaderBytes = 336;
// What a record takes in a log, a table, or the memory it is read into: with its key and RocksDB's
// framing.
inline constexpr std::size_t record_slot_bytes(std::size_t payload_bytes) {
  return payload_bytes + kRecordHeaderBytes + 128;
}
using RecordHeader = std::array<std::byte, kRecordHeaderBytes>;

struct BlockRecord {
  BlockPlace place;
  std::uint64_t stamp = 0;  // bytes the store had written before it, which tells its age
  std::span<const std::byte> payload;
};

struct DecodedBlock {
  std::optional<BlockRecord> record;
  std::string_view damage;  // what is wrong, where there is no record
};

RecordHeader encode_header(const BlockRecord& record);
DecodedBlock decode_block(std::span<const std::byte> bytes);

}  // namespace cachalot::infer
