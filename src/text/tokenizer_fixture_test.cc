// tests/fixtures/tokenizer: ids, texts, chats and partial decodes of the real DeepSeek-V3
// tokenizer.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "testing/fixtures.h"
#include "text/testing.h"
#include "text/tokenizer.h"

namespace cachalot::text {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

std::string stream(const Tokenizer& tokenizer, const Ids& ids, bool skip_special) {
  StreamDecoder decoder(tokenizer, skip_special);
  std::string text;
  for (const std::int32_t id : ids) {
    const std::string piece = decoder.push(id);
    EXPECT_TRUE(is_valid_utf8(piece)) << "half a character after id " << id;
    text += piece;
  }
  return text + decoder.flush();
}

class TokenizerFixtureTest : public ::testing::Test {
 protected:
  void SetUp() override {
    tokenizer_ = testing::deepseek_v3();
    ASSERT_NE(tokenizer_, nullptr);
    const auto folders =
        cachalot::testing::fixture_folders(cachalot::testing::FixtureKind::kTokenizer);
    ASSERT_FALSE(folders.empty());
    for (const auto& folder : folders) {
      files_.push_back(json::parse(testing::read_all(folder / "cases.json")));
    }
  }
  const Tokenizer* tokenizer_ = nullptr;
  std::vector<json> files_;
};

TEST_F(TokenizerFixtureTest, EncodesAndDecodesEveryCase) {
  for (const json& file : files_) {
    ASSERT_FALSE(file.at("cases").empty());
    for (const json& item : file.at("cases")) {
      const auto text = item.at("text").get<std::string>();
      const auto ids = item.at("ids").get<Ids>();
      const auto decoded = item.at("decoded").get<std::string>();
      EXPECT_EQ(tokenizer_->encode(text), ids) << text;
      EXPECT_EQ(tokenizer_->decode(ids), decoded);
      EXPECT_EQ(stream(*tokenizer_, ids, false), decoded);
      const auto bare = item.value("decoded_skip_special", decoded);
      EXPECT_EQ(tokenizer_->decode(ids, true), bare);
      EXPECT_EQ(stream(*tokenizer_, ids, true), bare);
    }
  }
}

TEST_F(TokenizerFixtureTest, InvalidUtf8BecomesReplacementCharacters) {
  for (const json& file : files_) {
    for (const json& item : file.value("invalid_utf8", json::array())) {
      const std::string bytes = from_hex(item.at("hex"));
      EXPECT_EQ(replace_invalid_utf8(bytes), item.at("replaced_text").get<std::string>());
      EXPECT_EQ(tokenizer_->encode(bytes), item.at("ids").get<Ids>()) << item.at("hex");
    }
  }
}

TEST_F(TokenizerFixtureTest, PartialCharactersDecodeToTheirBytes) {
  for (const json& file : files_) {
    for (const json& item : file.value("partial_decode", json::array())) {
      const auto ids = item.at("ids").get<Ids>();
      const auto text = item.at("decoded_replacement").get<std::string>();
      EXPECT_EQ(tokenizer_->decode_bytes(ids), from_hex(item.at("bytes_hex")));
      EXPECT_EQ(tokenizer_->decode(ids), text);
      EXPECT_EQ(stream(*tokenizer_, ids, false), text);
    }
  }
}

TEST_F(TokenizerFixtureTest, ChatTextsEncode) {
  for (const json& file : files_) {
    for (const json& item : file.value("chat", json::array())) {
      EXPECT_EQ(tokenizer_->encode(item.at("text").get<std::string>()), item.at("ids").get<Ids>());
    }
  }
}

TEST_F(TokenizerFixtureTest, KnowsItsSpecialTokens) {
  EXPECT_EQ(tokenizer_->vocab_size(), 128815);
  EXPECT_EQ(tokenizer_->bos_id(), 0);
  EXPECT_EQ(tokenizer_->eos_id(), 1);
  EXPECT_EQ(tokenizer_->token_to_id("<｜User｜>"), 128803);
  EXPECT_EQ(tokenizer_->token_to_id("Ġthe").has_value(), true);
  EXPECT_FALSE(tokenizer_->is_special(128803));
  EXPECT_TRUE(tokenizer_->is_special(1));
  EXPECT_TRUE(tokenizer_->config().add_bos_token);
}

TEST_F(TokenizerFixtureTest, PartsEncodeLikeTheWhole) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    std::string text;
    for (int i = 0; i < 40; ++i) {
      text += testing::random_text(seed * 100 + i, 20);
      text += i % 3 == 0 ? "\nword" : i % 3 == 1 ? " \n\n  <｜User｜>" : "!\n\n<";
    }
    Ids joined;
    const auto parts = tokenizer_->parts(text, 64);
    EXPECT_GT(parts.size(), 5u);
    for (const std::string_view part : parts) tokenizer_->encode(part, joined);
    EXPECT_EQ(joined, tokenizer_->encode(text)) << seed;
  }
}

TEST_F(TokenizerFixtureTest, RandomTextRoundTrips) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const std::string text = testing::random_text(seed, 200);
    EXPECT_EQ(tokenizer_->decode(tokenizer_->encode(text)), text);
  }
}

}  // namespace
}  // namespace cachalot::text
