#include "infer/prefix_record.h"

#include <gtest/gtest.h>

#include <string>

#include "infer/prefix_case_test.h"
#include "infer/prefix_context_record.h"

namespace cachalot::infer {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::string block_bytes(std::size_t payload_bytes, std::uint64_t stamp) {
  const KeyChain chain({"model", "bf16", 1}, ChainSecret{});
  const auto tokens = sequence(std::vector<int>{3, 5});
  const auto payload = payload_of(tokens, 1, payload_bytes);
  const auto header = encode_header({chain.places(tokens)[1], stamp, payload});
  std::string bytes(reinterpret_cast<const char*>(header.data()), header.size());
  return bytes.append(reinterpret_cast<const char*>(payload.data()), payload.size());
}

TEST(PrefixRecordTest, RoundTrip) {
  const KeyChain chain({"model", "bf16", 1}, ChainSecret{});
  const auto tokens = sequence(std::vector<int>{3, 5});
  for (const std::size_t size : {1, 7, 240, 241, 5000}) {
    const std::string bytes = block_bytes(size, 77);
    const auto decoded = decode_block(bytes_of(bytes));
    ASSERT_TRUE(decoded.record) << decoded.damage;
    EXPECT_EQ(decoded.record->place, chain.places(tokens)[1]);
    EXPECT_EQ(decoded.record->stamp, 77u);
    const auto want = payload_of(tokens, 1, size);
    EXPECT_TRUE(std::equal(want.begin(), want.end(), decoded.record->payload.begin(),
                           decoded.record->payload.end()));
    EXPECT_EQ(decoded.record->payload.data(), bytes_of(bytes).data() + kRecordHeaderBytes);
  }
}

TEST(PrefixRecordTest, EveryFlippedBitIsSeen) {
  std::string bytes = block_bytes(300, 1);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
      const auto decoded = decode_block(bytes_of(bytes));
      EXPECT_FALSE(decoded.record) << "byte " << i << " bit " << bit;
      EXPECT_FALSE(decoded.damage.empty());
      bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
    }
  }
  EXPECT_TRUE(decode_block(bytes_of(bytes)).record);
}

TEST(PrefixRecordTest, EveryOtherLengthIsSeen) {
  const std::string bytes = block_bytes(300, 1);
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    EXPECT_FALSE(decode_block(bytes_of(bytes.substr(0, n))).record) << n;
  }
  EXPECT_FALSE(decode_block(bytes_of(bytes + "x")).record);
}

ContextRecord context() {
  ContextRecord record;
  record.chain.bytes[3] = 9;
  record.saved = 1000;
  record.expires = 2000;
  record.quota = 1 << 20;
  record.pinned = true;
  record.payload_bytes = 4096;
  record.runs = {{4, 2}, {0, 1}, {7, 1}};
  record.tokens = sequence(std::vector<int>{1, 2, 3, 4});
  return record;
}

TEST(PrefixRecordTest, ContextRoundTripAndEveryFlippedBit) {
  std::string bytes = encode_context(context());
  EXPECT_EQ(decode_context(bytes_of(bytes)).record, context());
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const int bit = 1 << (i % 8);
    bytes[i] = static_cast<char>(bytes[i] ^ bit);
    EXPECT_FALSE(decode_context(bytes_of(bytes)).record) << "byte " << i;
    bytes[i] = static_cast<char>(bytes[i] ^ bit);
    EXPECT_FALSE(decode_context(bytes_of(bytes.substr(0, i))).record) << i;
  }
}

// With a right checksum over wrong numbers: what a careful enemy writes.
TEST(PrefixRecordTest, ContextNumbersMustFitEachOther) {
  const auto refused = [](auto change) {
    ContextRecord record = context();
    change(record);
    return !decode_context(bytes_of(encode_context(record))).record.has_value();
  };
  EXPECT_FALSE(refused([](ContextRecord&) {}));
  EXPECT_TRUE(refused([](ContextRecord& r) { r.runs[0].blocks = 0; }));
  EXPECT_TRUE(refused([](ContextRecord& r) { r.runs[0].blocks = 3; }));
  EXPECT_TRUE(refused([](ContextRecord& r) { r.runs[0].blocks = ~std::uint64_t{0} - 1; }));
  EXPECT_TRUE(refused([](ContextRecord& r) { r.tokens.pop_back(); }));
  EXPECT_TRUE(refused([](ContextRecord& r) { r.runs.pop_back(); }));
  EXPECT_TRUE(refused([](ContextRecord& r) { r.runs.clear(), r.tokens.clear(); }));
}

}  // namespace
}  // namespace cachalot::infer
