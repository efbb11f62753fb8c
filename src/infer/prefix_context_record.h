// How a named context lies on disk: what it is, its tokens, and which files of kept blocks hold
// them. Hostile bytes until decoded. Little-endian, in this order:
//
//   u32       magic "CPC1"
//   u32       zero
//   u8[16]    root key of the identity it was saved under
//   i64       saved, seconds since 1970
//   i64       expires, seconds since 1970; 0: never
//   i64       quota
//   u64       pinned: 0 or 1
//   u64       bytes of a block's payload
//   u32, u32  runs, tokens
//   runs      u64 segment, u64 blocks
//   tokens    i32
//   u64       XXH3-64 of all before
//
// Threads: plain functions.
// Errors:  damage is a return value, in words; nothing throws. Numbers are checked before anything
//          is allocated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "infer/prefix_key.h"

namespace cachalot::infer {

// Consecutive blocks of the context that lie in one file; segment 0 is a hole where blocks were
// damaged.
struct ContextRun {
  std::uint64_t segment = 0;
  std::uint64_t blocks = 0;
  bool operator==(const ContextRun&) const = default;
};

struct ContextRecord {
  BlockKey chain;  // root of the identity it was saved under
  std::int64_t saved = 0;
  std::int64_t expires = 0;
  std::int64_t quota = 0;
  bool pinned = false;
  std::uint64_t payload_bytes = 0;
  std::vector<ContextRun> runs;
  std::vector<int> tokens;  // whole blocks, as many as the runs hold
  bool operator==(const ContextRecord&) const = default;
};

struct DecodedContext {
  std::optional<ContextRecord> record;
  std::string_view damage;
};

// One further block at the end of `runs`.
void append_block(std::vector<ContextRun>& runs, std::uint64_t segment);
// What a record takes on disk, at most: it lies in a log, in a table, and for a while in the table
// that replaces it.
std::uint64_t record_bytes(std::size_t runs, std::size_t tokens);

std::string encode_context(const ContextRecord& record);
DecodedContext decode_context(std::span<const std::byte> bytes);

}  // namespace cachalot::infer
