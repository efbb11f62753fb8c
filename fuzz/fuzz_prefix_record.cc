// Any bytes as a record of the prefix store: damage in words, or a record that encodes to the same
// bytes. Checksums are also put right, so that what lies behind them is reached.
// Links: infer
#include <xxhash.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "infer/prefix_context_record.h"
#include "infer/prefix_record.h"

namespace {

using namespace cachalot::infer;  // NOLINT: a fuzzer of one room

void require(bool truth) {
  if (!truth) std::abort();
}

void put_sum(std::string& bytes, std::size_t at, std::string_view over) {
  const std::uint64_t sum = XXH3_64bits(over.data(), over.size());
  std::memcpy(bytes.data() + at, &sum, sizeof sum);
}

void use_block(const std::string& bytes) {
  const auto decoded = decode_block(std::as_bytes(std::span(bytes)));
  require(decoded.record.has_value() == decoded.damage.empty());
  if (!decoded.record) return;
  const auto header = encode_header(*decoded.record);
  require(std::memcmp(header.data(), bytes.data(), header.size()) == 0);
  require(decoded.record->payload.size() == bytes.size() - header.size());
  int sum = 0;  // reads all of it, so that a view past the end is seen
  for (const std::byte byte : decoded.record->payload) sum += static_cast<int>(byte);
  require(sum >= 0);
}

void use_context(const std::string& bytes) {
  const auto decoded = decode_context(std::as_bytes(std::span(bytes)));
  require(decoded.record.has_value() == decoded.damage.empty());
  if (!decoded.record) return;
  require(encode_context(*decoded.record) == bytes);
  std::uint64_t blocks = 0;
  for (const ContextRun& run : decoded.record->runs) blocks += run.blocks;
  require(blocks * kBlockTokens == decoded.record->tokens.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  use_block(bytes);
  use_context(bytes);
  if (size >= sizeof(std::uint64_t)) {
    std::string summed = bytes;
    const std::size_t body = size - sizeof(std::uint64_t);
    put_sum(summed, body, std::string_view(summed).substr(0, body));
    use_context(summed);
  }
  if (size >= kRecordHeaderBytes) {
    std::string summed = bytes;
    const std::size_t sums = kRecordHeaderBytes - 2 * sizeof(std::uint64_t);
    put_sum(summed, sums, std::string_view(summed).substr(kRecordHeaderBytes));
    put_sum(summed, sums + 8, std::string_view(summed).substr(0, sums + 8));
    use_block(summed);
  }
  return 0;
}
