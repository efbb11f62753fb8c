#include "infer/prefix_context_record.h"

#include <xxhash.h>

#include "infer/prefix_bytes.h"

namespace cachalot::infer {

static constexpr std::uint32_t kMagic = 0x31435043;  // "CPC1"

void append_block(std::vector<ContextRun>& runs, std::uint64_t segment) {
  if (runs.empty() || runs.back().segment != segment) runs.push_back({segment, 0});
  ++runs.back().blocks;
}

std::uint64_t record_bytes(std::size_t runs, std::size_t tokens) {
  constexpr std::uint64_t kCopies = 3;
  constexpr std::uint64_t kHeadAndName = 256;
  return kCopies * (kHeadAndName + runs * sizeof(ContextRun) + tokens * sizeof(int));
}

std::string encode_context(const ContextRecord& record) {
  ByteWriter out;
  out.put(kMagic);
  out.put(std::uint32_t{0});
  out.put(record.chain);
  out.put(record.saved);
  out.put(record.expires);
  out.put(record.quota);
  out.put(std::uint64_t{record.pinned});
  out.put(record.payload_bytes);
  out.put(static_cast<std::uint32_t>(record.runs.size()));
  out.put(static_cast<std::uint32_t>(record.tokens.size()));
  for (const ContextRun& run : record.runs) out.put(run);
  out.put_bytes(record.tokens.data(), record.tokens.size() * sizeof(int));
  out.put(static_cast<std::uint64_t>(XXH3_64bits(out.bytes().data(), out.bytes().size())));
  return out.take();
}

DecodedContext decode_context(std::span<const std::byte> bytes) {
  if (bytes.size() < sizeof(std::uint64_t)) return {{}, "it is shorter than its checksum"};
  const auto body = bytes.first(bytes.size() - sizeof(std::uint64_t));
  ByteReader in(body);
  ContextRecord record;
  const auto magic = in.take<std::uint32_t>();
  const auto zero = in.take<std::uint32_t>();
  record.chain = in.take<BlockKey>();
  record.saved = in.take<std::int64_t>();
  record.expires = in.take<std::int64_t>();
  record.quota = in.take<std::int64_t>();
  const auto pinned = in.take<std::uint64_t>();
  record.payload_bytes = in.take<std::uint64_t>();
  const auto runs = in.take<std::uint32_t>();
  const auto tokens = in.take<std::uint32_t>();
  if (!in.ok()) return {{}, "it is shorter than its head"};
  if (magic != kMagic || zero != 0 || pinned > 1) return {{}, "its head says what no store writes"};
  const std::uint64_t needed =
      std::uint64_t{runs} * sizeof(ContextRun) + std::uint64_t{tokens} * sizeof(int);
  if (needed != in.left().size()) return {{}, "its length does not fit its numbers"};
  record.pinned = pinned == 1;
  std::uint64_t blocks = 0;
  record.runs.reserve(runs);
  for (std::uint32_t i = 0; i < runs; ++i) {
    record.runs.push_back(in.take<ContextRun>());
    // Bounded one by one, so that the sum cannot wrap.
    if (record.runs.back().blocks == 0 || record.runs.back().blocks > tokens) {
      return {{}, "its runs are not those of its tokens"};
    }
    blocks += record.runs.back().blocks;
  }
  if (tokens == 0 || blocks * kBlockTokens != tokens) {
    return {{}, "its runs are not those of its tokens"};
  }
  record.tokens.resize(tokens);
  in.take_bytes(record.tokens.data(), record.tokens.size() * sizeof(int));
  ByteReader end(bytes.last(sizeof(std::uint64_t)));
  if (end.take<std::uint64_t>() != XXH3_64bits(body.data(), body.size())) {
    return {{}, "it does not have its checksum"};
  }
  return {std::move(record), {}};
}

}  // namespace cachalot::infer
