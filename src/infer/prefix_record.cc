#include "infer/prefix_record.h"

#include <xxhash.h>

#include <cstring>

#include "infer/prefix_bytes.h"

namespace cachalot::infer {

namespace {

constexpr std::uint32_t kMagic = 0x31425043;  // "CPB1"
constexpr std::size_t kHeaderSumAt = kRecordHeaderBytes - sizeof(std::uint64_t);

}  // namespace

RecordHeader encode_header(const BlockRecord& record) {
  ByteWriter out;
  out.put(kMagic);
  out.put(std::uint32_t{kBlockTokens});
  out.put(record.place.position);
  out.put(std::uint32_t{0});
  out.put(record.stamp);
  out.put(record.place.key);
  out.put(record.place.parent);
  out.put(static_cast<std::uint64_t>(record.payload.size()));
  out.put(record.place.tokens);
  out.put(static_cast<std::uint64_t>(XXH3_64bits(record.payload.data(), record.payload.size())));
  out.put(static_cast<std::uint64_t>(XXH3_64bits(out.bytes().data(), kHeaderSumAt)));
  RecordHeader header;
  std::memcpy(header.data(), out.bytes().data(), header.size());
  return header;
}

DecodedBlock decode_block(std::span<const std::byte> bytes) {
  if (bytes.size() < kRecordHeaderBytes) return {{}, "it is shorter than a header"};
  ByteReader in(bytes);
  if (in.take<std::uint32_t>() != kMagic) return {{}, "it does not begin as a block does"};
  const auto tokens = in.take<std::uint32_t>();
  BlockRecord record;
  record.place.position = in.take<std::uint32_t>();
  const auto zero = in.take<std::uint32_t>();
  record.stamp = in.take<std::uint64_t>();
  record.place.key = in.take<BlockKey>();
  record.place.parent = in.take<BlockKey>();
  const auto payload_bytes = in.take<std::uint64_t>();
  record.place.tokens = in.take<BlockTokens>();
  const auto payload_sum = in.take<std::uint64_t>();
  const auto header_sum = in.take<std::uint64_t>();
  if (header_sum != XXH3_64bits(bytes.data(), kHeaderSumAt)) {
    return {{}, "its header does not have its checksum"};
  }
  if (tokens != kBlockTokens || zero != 0) return {{}, "its header says what no store writes"};
  record.payload = in.left();
  if (record.payload.size() != payload_bytes) return {{}, "its payload is cut or too long"};
  if (payload_sum != XXH3_64bits(record.payload.data(), record.payload.size())) {
    return {{}, "its payload does not have its checksum"};
  }
  return {record, {}};
}

}  // namespace cachalot::infer
