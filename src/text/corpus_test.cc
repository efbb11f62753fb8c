#include "text/corpus.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "testing/error_of.h"
#include "testing/fixtures.h"
#include "text/bpe_train.h"
#include "text/testing.h"

namespace cachalot::text {
namespace {

using cachalot::testing::error_of;

using cachalot::testing::TempDir;
using Views = std::vector<std::string_view>;

// Room for `name` files with these texts, and the options that name them.
CorpusOptions files(const TempDir& dir, const std::vector<std::string>& texts,
                    DocumentRule rule = DocumentRule::kFile) {
  CorpusOptions options;
  options.rule = rule;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    options.files.push_back(dir.path() / std::to_string(i));
    testing::write_all(options.files.back(), texts[i]);
  }
  return options;
}

TEST(CorpusTest, CutsDocumentsByEachRule) {
  const TempDir dir;
  EXPECT_EQ(Corpus(files(dir, {"one", "", "two\n\n2"})).documents(), (Views{"one", "two\n\n2"}));
  EXPECT_EQ(
      Corpus(files(dir, {"\n\na\nb\n\nc\n\n\n\nd\r\n\r\ne\n", "f"}, DocumentRule::kBlankLines))
          .documents(),
      (Views{"a\nb", "c", "d", "e", "f"}));
  EXPECT_EQ(
      Corpus(files(dir, {"a<|endoftext|>\nb<|endoftext|>"}, DocumentRule::kMarker)).documents(),
      (Views{"a", "\nb"}));
}

TEST(CorpusTest, RefusesEmptyUnreadableAndInvalidText) {
  const TempDir dir;
  error_of(Code::kConfig, [] { Corpus{CorpusOptions{}}; });
  error_of(Code::kConfig, [&] { Corpus{files(dir, {"", ""})}; });
  error_of(Code::kConfig, [&] { Corpus{files(dir, {"\n\n\n"}, DocumentRule::kBlankLines)}; });
  CorpusOptions missing;
  missing.files = {dir.path() / "missing"};
  EXPECT_NE(error_of(Code::kIo, [&] { Corpus{missing}; }).find("missing"), std::string::npos);
  missing.files = {dir.path()};
  error_of(Code::kIo, [&] { Corpus{missing}; });
  CorpusOptions invalid = files(dir, {"fine", "ab\xFFz"});
  const std::string text = error_of(Code::kFormat, [&] { Corpus{invalid}; });
  EXPECT_NE(text.find("byte 2"), std::string::npos) << text;
  invalid.replace_invalid_utf8 = true;
  EXPECT_EQ(Corpus(invalid).documents().at(1), "ab\uFFFDz");
}

TEST(SplitCorpusTest, TheTailIsHeldOutAtALineOrACharacter) {
  const std::string lines = "0123456\n0123456\n0123456\n0123456\n";  // 32 bytes
  const Views one = {lines};
  CorpusSplit split = split_corpus(one, {.validation_fraction = 0.3});
  EXPECT_EQ(split.train, (Views{std::string_view(lines).substr(0, 24)}));
  EXPECT_EQ(split.validation, (Views{std::string_view(lines).substr(24)}));
  split = split_corpus(one, {.validation_fraction = 0.25});  // the cut lies on a line already
  EXPECT_EQ(split.validation[0].size(), 8u);

  const Views many = {"aaaa", "ééé", "cc"};
  split = split_corpus(many, {.validation_fraction = 0.6});  // 4.8 of 12 bytes: inside an é
  EXPECT_EQ(split.train, Views{"aaaa"});
  split = split_corpus(many, {.validation_fraction = 0.4});  // 7.2: inside the second é
  EXPECT_EQ(split.train, (Views{"aaaa", "éé"}));
  EXPECT_EQ(split.validation, (Views{"é", "cc"}));

  // In doubles 1 - 0.9 is less than a tenth.
  const std::string letters(1000, 'a');
  for (const auto& [held_out, train] : {std::pair{0.9, 100u}, {0.8, 200u}, {0.1, 900u}}) {
    const Views documents = {letters};
    split = split_corpus(documents, {.validation_fraction = held_out});
    ASSERT_EQ(split.train.size(), 1u);
    EXPECT_EQ(split.train[0].size(), train);
  }

  split = split_corpus(many, {.validation_fraction = 0});
  EXPECT_EQ(split.train, many);
  EXPECT_TRUE(split.validation.empty());
  for (const double bad : {-0.1, 1.0, 0.0 / 0.0}) {
    error_of(Code::kConfig, [&] { split_corpus(many, {.validation_fraction = bad}); });
  }
}

TEST(SplitCorpusTest, ByDocumentIsSeededAndWhole) {
  std::vector<std::string> texts(1000);
  Views documents;
  for (std::size_t i = 0; i < texts.size(); ++i) documents.push_back(texts[i] = std::to_string(i));
  const auto split = [&](std::uint64_t seed) {
    return split_corpus(documents, {.validation_fraction = 0.2, .by_document = true, .seed = seed});
  };
  const CorpusSplit a = split(1);
  EXPECT_EQ(a.train.size() + a.validation.size(), 1000u);
  EXPECT_NEAR(static_cast<double>(a.validation.size()), 200, 5 * std::sqrt(1000 * 0.2 * 0.8));
  EXPECT_EQ(a.validation, split(1).validation);
  EXPECT_NE(a.validation, split(2).validation);
}

class EncodeTest : public ::testing::Test {
 protected:
  EncodeTest() {
    for (int i = 0; i < 30000; ++i) text_ += i % 9 == 0 ? "and the whale\n" : "sea 漢 ship ";
    const std::string_view documents[] = {text_};
    ThreadPool pool(1);
    tokenizer_ = std::make_unique<Tokenizer>(train_bpe(documents, {.vocab_size = 300}, pool),
                                             trained_tokenizer_config());
  }
  std::string text_;
  std::unique_ptr<Tokenizer> tokenizer_;
  TempDir dir_;
};

TEST_F(EncodeTest, DocumentsFollowEachOtherWithEosBetween) {
  const Views documents = {"whale", text_, "ship"};
  ThreadPool pool(2);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> reports;
  const auto path = dir_.path() / "x.tokens";
  const TokenFileInfo info = encode_documents(
      *tokenizer_, documents, path, pool,
      [&](std::uint64_t done, std::uint64_t total) { reports.emplace_back(done, total); });
  const TokenFile file(path);
  file.verify();
  EXPECT_EQ(info.tokens, file.info().tokens);
  EXPECT_EQ(info.documents, 3u);
  EXPECT_EQ(info.text_bytes, text_.size() + 9);
  EXPECT_EQ(info.vocab_size, static_cast<std::uint64_t>(tokenizer_->vocab_size()));
  EXPECT_EQ(info.tokenizer, tokenizer_->fingerprint());
  std::vector<std::int32_t> want;
  for (const std::string_view document : documents) {
    tokenizer_->encode(document, want);
    want.push_back(1);
  }
  std::vector<std::int32_t> got(info.tokens);
  file.read(0, got);
  EXPECT_EQ(got, want);
  ASSERT_FALSE(reports.empty());
  EXPECT_EQ(reports.back(), (std::pair{text_.size() + 9, text_.size() + 9}));
}

TEST_F(EncodeTest, TheFileDoesNotDependOnThreads) {
  const Views documents = {text_, "x", text_};
  std::vector<std::string> bytes;
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    const auto path = dir_.path() / std::to_string(threads);
    encode_documents(*tokenizer_, documents, path, pool);
    bytes.push_back(testing::read_all(path));
  }
  EXPECT_EQ(bytes[0], bytes[1]);
  EXPECT_EQ(bytes[0], bytes[2]);
}

TEST_F(EncodeTest, StoppedHalfWayNothingIsLeft) {
  const Views documents = {text_};
  ThreadPool pool(2);
  error_of(Code::kInterrupted, [&] {
    encode_documents(
        *tokenizer_, documents, dir_.path() / "x", pool,
        [](std::uint64_t, std::uint64_t) { throw Error(Code::kInterrupted, "stopped"); });
  });
  EXPECT_TRUE(std::filesystem::is_empty(dir_.path()));
}

TEST_F(EncodeTest, WithoutAnEndTokenThereIsNoFile) {
  const std::string_view documents[] = {text_};
  ThreadPool pool(1);
  const Tokenizer bare(train_bpe(documents, {.vocab_size = 300}, pool));
  error_of(Code::kConfig, [&] { encode_documents(bare, documents, dir_.path() / "x", pool); });
}

}  // namespace
}  // namespace cachalot::text
