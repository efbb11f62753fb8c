#include "text/byte_tokenizer.h"

#include <gtest/gtest.h>

#include "testing/fixtures.h"
#include "text/tokenizer.h"
#include "text/tokenizer_write.h"

namespace cachalot::text {
namespace {

TEST(ByteTokenizer, IdsAreTheBytes) {
  for (const bool eos : {false, true}) {
    const testing::TempDir folder;
    write_tokenizer(folder.path(), byte_tokenizer(eos), byte_tokenizer_config(eos));
    const Tokenizer t = Tokenizer::load(folder.path());
    EXPECT_EQ(eos ? 257 : 256, t.vocab_size());
    EXPECT_EQ(eos ? std::optional<std::int32_t>(256) : std::nullopt, t.eos_id());
    EXPECT_FALSE(t.bos_id());
    const std::string text =
        "To be, or not  to be:\n\tthat's 1234 \xE2\x80\x94 \xF0\x9F\x90\x8B\n\n";
    std::vector<std::int32_t> want;
    for (const char c : text) want.push_back(static_cast<unsigned char>(c));
    EXPECT_EQ(want, t.encode(text));
    EXPECT_EQ(text, t.decode(want));
    std::string all;
    std::vector<std::int32_t> ids;
    for (int b = 0; b < 256; ++b) {
      all += static_cast<char>(b);
      ids.push_back(b);
    }
    EXPECT_EQ(all, t.decode_bytes(ids));
  }
}

TEST(ByteTokenizer, EosIsATokenOnlyWhereItIsWanted) {
  const Tokenizer with(byte_tokenizer(true), byte_tokenizer_config(true));
  const Tokenizer without(byte_tokenizer(false), byte_tokenizer_config(false));
  const std::string eos = "<｜end▁of▁sentence｜>";
  EXPECT_EQ((std::vector<std::int32_t>{256}), with.encode(eos));
  EXPECT_EQ(eos.size(), without.encode(eos).size());
}

}  // namespace
}  // namespace cachalot::text
