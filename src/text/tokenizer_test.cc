#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/thread_pool.h"
#include "testing/fixtures.h"
#include "text/byte_level.h"
#include "text/testing.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_write.h"

namespace cachalot::text {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;

// 256 bytes with their own value as id, "he" 256, "hel" 257, " h" 258.
json small() {
  json vocab;
  for (int b = 0; b < 256; ++b) vocab[to_byte_level(std::string(1, static_cast<char>(b)))] = b;
  vocab["he"] = 256;
  vocab["hel"] = 257;
  vocab["Ġh"] = 258;
  const json gpt2 = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  return {{"normalizer", nullptr},
          {"pre_tokenizer", gpt2},
          {"added_tokens", json::array()},
          {"model",
           {{"type", "BPE"},
            {"vocab", vocab},
            {"merges", json::array({"h e", json::array({"he", "l"}), "Ġ h"})}}}};
}

Tokenizer open(const json& file) { return Tokenizer::parse(file.dump(), "t.json"); }

void add(json& file, const char* content, int id, const json& flags = json::object()) {
  json token = {{"id", id}, {"content", content}, {"special", true}, {"normalized", false}};
  token.update(flags);
  file["added_tokens"].push_back(token);
}

std::string refused(const json& file, Code code) {
  try {
    open(file);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_EQ(std::string(e.what()).find("t.json"), 0u) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "accepted";
  return "";
}

TEST(TokenizerTest, ReadsBothFormsOfMerges) {
  const Tokenizer t = open(small());
  EXPECT_EQ(t.encode("hello"), (Ids{257, 'l', 'o'}));
  EXPECT_EQ(t.encode(" he"), (Ids{' ', 256}));  // "h e" comes before "Ġ h"
  EXPECT_EQ(t.encode(""), Ids{});
  EXPECT_EQ(t.vocab_size(), 259);
}

TEST(TokenizerTest, IgnoreMergesTakesAWholePiece) {
  json file = small();
  file["model"]["vocab"]["hexe"] = 259;
  EXPECT_EQ(open(file).encode("hexe"), (Ids{256, 'x', 'e'}));
  file["model"]["ignore_merges"] = true;
  EXPECT_EQ(open(file).encode("hexe"), Ids{259});
}

// One that is found only as a word of its own is no piece of the vocabulary.
TEST(TokenizerTest, IgnoreMergesTakesNoAddedToken) {
  json file = small();
  add(file, "ab", 300, {{"single_word", true}});
  file["model"]["ignore_merges"] = true;
  const Tokenizer t = open(file);
  EXPECT_EQ(t.encode("ab1"), (Ids{'a', 'b', '1'}));
  EXPECT_EQ(t.encode("ab"), Ids{300});
  EXPECT_EQ(t.encode_plain("ab"), (Ids{'a', 'b'}));
}

TEST(TokenizerTest, AddedTokensAreCutOutFirst) {
  json file = small();
  add(file, "<a>", 300);
  add(file, "<a><b>", 301);
  add(file, "he", 256, {{"special", false}, {"normalized", true}});
  const Tokenizer t = open(file);
  EXPECT_EQ(t.encode("<a>x<a><b><a"), (Ids{300, 'x', 301, '<', 'a'}));
  EXPECT_EQ(t.encode("hel"), (Ids{256, 'l'}));  // cut before merging could see "hel"
  EXPECT_EQ(t.encode_plain("<a>hel"), (Ids{'<', 'a', '>', 257}));
  EXPECT_EQ(t.decode(Ids{300, 'x', 256}), "<a>xhe");
  EXPECT_EQ(t.decode(Ids{300, 'x', 256}, true), "xhe");
  EXPECT_EQ(t.vocab_size(), 302);
  EXPECT_FALSE(t.has(299));
}

TEST(TokenizerTest, AnAddedTokenIsItsTextNotTheByteAlphabet) {
  json file = small();
  add(file, "Ġx", 300);  // reads like the bytes " x", and is not
  add(file, "Ġh", 258);  // in the vocabulary too: there it is the bytes " h"
  file["model"]["ignore_merges"] = true;
  const Tokenizer t = open(file);
  EXPECT_EQ(t.encode("Ġx"), Ids{300});
  EXPECT_EQ(t.decode(Ids{300}), "Ġx");
  EXPECT_EQ(t.encode(" x"), (Ids{' ', 'x'}));
  EXPECT_EQ(t.encode(" h"), Ids{258});
  EXPECT_EQ(t.decode(Ids{258}), " h");
}

TEST(TokenizerTest, TokensThatAreNotNormalisedGoFirst) {
  json file = small();
  add(file, "ab", 300, {{"normalized", true}});
  add(file, "bc", 301);
  EXPECT_EQ(open(file).encode("abc"), (Ids{'a', 301}));
}

TEST(TokenizerTest, FlagsOfAddedTokens) {
  json file = small();
  add(file, "<l>", 300, {{"lstrip", true}});
  add(file, "<r>", 301, {{"rstrip", true}});
  add(file, "who", 302, {{"single_word", true}});
  const Tokenizer t = open(file);
  EXPECT_EQ(t.encode("a \u00a0<l> b"), (Ids{'a', 300, ' ', 'b'}));
  EXPECT_EQ(t.encode("a <r> \n<l>b"), (Ids{'a', ' ', 301, 300, 'b'}));
  EXPECT_EQ(t.encode("who"), Ids{302});
  EXPECT_EQ(t.encode(" who?"), (Ids{' ', 302, '?'}));
  EXPECT_EQ(t.encode("whom"), (Ids{'w', 'h', 'o', 'm'}));
  EXPECT_EQ(t.encode("\u00e9who").back(), 'o');
  EXPECT_EQ(t.encode("_who").back(), 'o');
}

// The `tokenizers` library looks for tokens in the whole text and lets them swallow white space
// then: one may begin, and lie, in what the one before it swallowed, and the rest is text again.
TEST(TokenizerTest, ATokenInWhatAnotherSwallowedIsFound) {
  json file = small();
  add(file, "<r>", 300, {{"rstrip", true}});
  add(file, "\n", 301);
  add(file, " b", 302);
  add(file, " <l>", 303, {{"lstrip", true}});
  add(file, "\t", 304, {{"lstrip", true}});
  add(file, "\tn", 305, {{"normalized", true}});
  const Tokenizer t = open(file);
  EXPECT_EQ(t.encode("<r> b"), (Ids{300, 302}));
  EXPECT_EQ(t.encode("<r>  bc"), (Ids{300, 302, 'c'}));
  EXPECT_EQ(t.encode("<r> c"), (Ids{300, 'c'}));
  EXPECT_EQ(t.encode("<r>\n\n"), (Ids{300, 301, 301}));
  EXPECT_EQ(t.encode("a<r> \n x"), (Ids{'a', 300, 301, ' ', 'x'}));
  EXPECT_EQ(t.encode("<r>  <l>\n<r>"), (Ids{300, 303, 301, 300}));
  EXPECT_EQ(t.encode("<r> \t"), (Ids{300, 304}));
}

// A word character is `\w` of the Rust crate regex: Alphabetic, marks, decimal digits, connectors
// and the two joiners.
TEST(TokenizerTest, WholeWordsAreThoseOfTheRustCrate) {
  json file = small();
  add(file, "who", 300, {{"single_word", true}});
  const Tokenizer t = open(file);
  const auto found = [&](const std::string& text) {
    const Ids ids = t.encode(text);
    return std::find(ids.begin(), ids.end(), 300) != ids.end();
  };
  for (const char* word :
       {"a", "7", "_", "\u00e9", "\u0663", "\u2167", "\u24d0", "\u0301", "\u20dd", "\u203f",
        "\uff3f", "\u200c", "\u200d", "\U0001f170", "\u4e00"}) {
    EXPECT_FALSE(found(cat(word, "who"))) << word;
    EXPECT_FALSE(found(cat("who", word))) << word;
  }
  for (const char* other : {" ", "\n", "-", "\u00b2", "\u00bd", "\u2460", "\u200b", "\u00ad",
                            "\u2019", "\u20ac", "\U0001f600"}) {
    EXPECT_TRUE(found(cat(other, "who"))) << other;
    EXPECT_TRUE(found(cat("who", other))) << other;
  }
  EXPECT_TRUE(found("awho \u00b2who\u00b2"));
}

TEST(TokenizerTest, StreamNeverEmitsHalfACharacter) {
  const Tokenizer t = open(small());
  const std::string text = "a\u00e9\u20ac\U0001F600z";
  StreamDecoder decoder(t);
  std::string out;
  for (const char c : text) {
    const std::string piece = decoder.push(static_cast<unsigned char>(c));
    EXPECT_TRUE(is_valid_utf8(piece));
    out += piece;
  }
  EXPECT_EQ(out, text);
  EXPECT_EQ(decoder.push(0xF0), "");
  EXPECT_EQ(decoder.push(0x9F), "");
  EXPECT_EQ(decoder.flush(), "\uFFFD");
  EXPECT_EQ(decoder.flush(), "");
  EXPECT_EQ(decoder.push(0xE2), "");
  EXPECT_EQ(decoder.push('x'), "\uFFFDx");  // what can no longer become a character
  EXPECT_EQ(decoder.push(0xFF), "\uFFFD");
}

TEST(TokenizerTest, AnIdThatDoesNotExistIsAnError) {
  const Tokenizer t = open(small());
  StreamDecoder decoder(t);
  for (const std::int32_t id : {-1, 259, 1 << 30}) {
    EXPECT_THROW(t.decode(Ids{id}), Error);
    EXPECT_THROW(decoder.push(id), Error);
    EXPECT_FALSE(t.is_special(id));
  }
}

TEST(TokenizerTest, RefusesWhatItCannotDo) {
  const std::vector<std::pair<const char*, json>> cases = {
      {"normalizer", {{"type", "NFC"}}},
      {"normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}}}}},
      {"model/type", "WordPiece"},
      {"model/byte_fallback", true},
      {"model/dropout", 0.1},
      {"model/end_of_word_suffix", "</w>"},
      {"pre_tokenizer", nullptr},
      {"pre_tokenizer", {{"type", "Metaspace"}}},
      {"pre_tokenizer/add_prefix_space", true},
      {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", json::array()}}},
      {"pre_tokenizer",
       {{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Isolated"}}},
  };
  for (const auto& [where, value] : cases) {
    json file = small();
    file[json::json_pointer(std::string("/") + where)] = value;
    refused(file, Code::kUnsupported);
  }
  json file = small();
  file["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Removed"}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}}}}};
  EXPECT_NE(refused(file, Code::kUnsupported).find("Removed"), std::string::npos);
}

TEST(TokenizerTest, RefusesWhatLies) {
  const std::vector<std::pair<const char*, json>> cases = {
      {"model/vocab/he", -1},
      {"model/vocab/he", 1.5},
      {"model/vocab/he", 5},  // two tokens with one id
      {"model/vocab/he", 4000000000000},
      {"model/merges/0", "h"},
      {"model/merges/0", "h e l"},
      {"model/merges/0", {"h", "e", "l"}},
      {"model/merges/0", "h x"},  // "hx" is no token
      {"model/merges", 3},
      {"model/vocab", json::array()},
      {"added_tokens", {{{"id", 7}}}},
      {"added_tokens", {{{"id", 7}, {"content", "new"}}}},  // id 7 is taken
      {"added_tokens", {{{"id", 9}, {"content", "he"}}}},   // "he" is 256
      {"added_tokens", {{{"id", 300}, {"content", ""}}}},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", "no"}}},
  };
  for (const auto& [where, value] : cases) {
    json file = small();
    file[json::json_pointer(std::string("/") + where)] = value;
    refused(file, Code::kFormat);
  }
  json file = small();
  file["model"]["vocab"].erase("a");
  EXPECT_NE(refused(file, Code::kFormat).find("byte 97"), std::string::npos);
  for (const char* text : {"", "{", "[]", "null", "{}", "{\"model\": 3}"}) {
    EXPECT_THROW(Tokenizer::parse(text, "t.json"), Error) << text;
  }
}

TEST(TokenizerTest, LoadsAFolderWithItsConfig) {
  const cachalot::testing::TempDir dir;
  try {
    Tokenizer::load(dir.path());
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kIo);
  }
  json file = small();
  add(file, "<s>", 300);
  testing::write_all(dir.path() / "tokenizer.json", file.dump());
  EXPECT_EQ(Tokenizer::load(dir.path()).eos_id(), std::nullopt);
  const auto config = dir.path() / "tokenizer_config.json";
  testing::write_all(config, R"({"bos_token": "<s>", "eos_token": {"content": "he"},
      "add_bos_token": true, "chat_template": [{"name": "default", "template": "T"}]})");
  const Tokenizer t = Tokenizer::load(dir.path());
  EXPECT_EQ(t.bos_id(), 300);
  EXPECT_EQ(t.eos_id(), 256);
  EXPECT_EQ(t.pad_id(), std::nullopt);
  EXPECT_EQ(t.config().chat_template, "T");
  testing::write_all(config, R"({"bos_token": "<missing>"})");
  EXPECT_THROW(Tokenizer::load(dir.path()), Error);
}

TEST(TokenizerTest, WhatIsWrittenReadsBackTheSame) {
  json file = small();
  add(file, "<x>", 300, {{"rstrip", true}});
  const TokenizerSpec spec = parse_tokenizer_json(file.dump(), "t.json");
  const std::string written = tokenizer_json(spec);
  EXPECT_EQ(tokenizer_json(parse_tokenizer_json(written, "w.json")), written);
  const Tokenizer a = open(file), b = Tokenizer::parse(written, "w.json");
  EXPECT_EQ(a.fingerprint(), b.fingerprint());
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const std::string text = "hello <x> " + testing::random_text(seed, 50);
    EXPECT_EQ(a.encode(text), b.encode(text));
  }
  file["added_tokens"][0]["special"] = false;
  EXPECT_NE(open(file).fingerprint(), a.fingerprint());
}

TEST(TokenizerTest, ManyThreadsEncodeAtOnce) {
  const Tokenizer t = open(small());
  std::vector<Ids> got(64);
  auto encode = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) got[i] = t.encode(testing::random_text(i % 8, 400));
  };
  ThreadPool pool(4);
  pool.run(64, 1, encode);
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], got[i % 8]);
}

}  // namespace
}  // namespace cachalot::text
