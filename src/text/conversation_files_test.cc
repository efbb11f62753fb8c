#include "text/conversation_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "testing/error_of.h"
#include "testing/fixtures.h"
#include "text/bpe_train.h"
#include "text/byte_tokenizer.h"
#include "text/testing.h"

namespace cachalot::text {
namespace {

using cachalot::testing::error_of;

using cachalot::testing::TempDir;
using ::testing::HasSubstr;
using Ids = std::vector<std::int32_t>;
using Paths = std::vector<std::filesystem::path>;

class ConversationFilesTest : public ::testing::Test {
 protected:
  // Files "0", "1", ... with these texts.
  Paths files(const std::vector<std::string>& texts) {
    Paths paths;
    for (const std::string& text : texts) {
      paths.push_back(dir_.path() / std::to_string(paths.size()));
      testing::write_all(paths.back(), text);
    }
    return paths;
  }
  EncodedConversations encode(const Tokenizer& tokenizer, const ConversationLines& all,
                              int threads = 2, const Progress& progress = {}) {
    ThreadPool pool(threads);
    return encode_conversations(tokenizer, all, all.lines(), tokens_, samples_, pool, progress);
  }
  EncodedConversations encode(const Tokenizer& tokenizer, const std::string& text) {
    return encode(tokenizer, ConversationLines(files({text})));
  }
  Ids ids() const {
    const TokenFile file(tokens_);
    file.verify();
    Ids all(file.info().tokens);
    file.read(0, all);
    return all;
  }
  SampleTable table() const {
    const TokenFile file(tokens_);
    return SampleTable::read(samples_, file.info().tokens, file.ids_hash());
  }
  TempDir dir_;
  const std::filesystem::path tokens_ = dir_.path() / "x.tokens",
                              samples_ = dir_.path() / "x.samples";
};

std::vector<SampleRun> runs(const SampleTable& table, std::int64_t sample) {
  const auto span = table.runs(sample);
  return {span.begin(), span.end()};
}

Tokenizer bytes() { return Tokenizer(byte_tokenizer(true), byte_tokenizer_config(true)); }

// Of V3's chat format, without merges: a byte is a token, and so are the tokens of the format.
Tokenizer chat_tokenizer() {
  ThreadPool pool(1);
  const std::string_view documents[] = {"ab"};
  return Tokenizer(train_bpe(documents, {.vocab_size = 261}, pool), trained_tokenizer_config());
}

constexpr const char* kTalk =
    R"({"messages": [{"role": "user", "content": "Q1"}, {"role": "assistant", "content": "A1x"},)"
    R"({"role": "user", "content": "Q2"}, {"role": "assistant", "content": "A2"}]})";

TEST_F(ConversationFilesTest, LinesOfFilesInTheirOrder) {
  const ConversationLines all(files({"\xEF\xBB\xBF{1}\r\n\n \t \r\n{2}", "", "{3}\n{4}\n\n"}));
  std::vector<std::string> got;
  for (const auto& line : all.lines()) {
    const std::string where = all.where(line);
    got.push_back(cat(line.text, " ", where.substr(where.rfind('/') + 1)));
  }
  EXPECT_EQ(got, (std::vector<std::string>{"{1} 0:1", "{2} 0:4", "{3} 2:1", "{4} 2:2"}));
  EXPECT_EQ(all.bytes(), 12u);
}

TEST_F(ConversationFilesTest, FilesWithoutLinesAndLongLinesAreRefused) {
  error_of(Code::kConfig, [] { ConversationLines{Paths{}}; });
  EXPECT_THAT(error_of(Code::kConfig,
                       [&] {
                         ConversationLines{files({"\n \r\n", ""})};
                       }),
              HasSubstr("hold no line"));
  EXPECT_THAT(error_of(Code::kIo, [&] { ConversationLines{Paths{dir_.path() / "missing"}}; }),
              HasSubstr("missing"));
  const std::string most(16 << 20, 'x');
  EXPECT_EQ(ConversationLines(files({most + "\r\n"})).lines().size(), 1u);
  EXPECT_THAT(error_of(Code::kFormat, [&] { ConversationLines{files({"1\n" + most + "x"})}; }),
              HasSubstr("0:2: the line has 16777217 bytes"));
}

// Bytes as tokens, 256 the end: "P" 80, "C" 67.
TEST_F(ConversationFilesTest, PromptAndCompletionNeedNoChatFormat) {
  const EncodedConversations got =
      encode(bytes(),
             "{\"prompt\": \"PP\", \"completion\": \"CCC\"}\n"
             "{\"prompt\": \"\", \"completion\": \"\"}\n"  // the end alone teaches nothing
             "{\"prompt\": \"\", \"completion\": \"C\"}\n");
  EXPECT_EQ(ids(), (Ids{80, 80, 67, 67, 67, 256, 67, 256}));
  const SampleTable samples = table();
  ASSERT_EQ(samples.samples(), 2);
  EXPECT_EQ(runs(samples, 0), (std::vector<SampleRun>{{2, 4}}));
  EXPECT_EQ(runs(samples, 1), (std::vector<SampleRun>{{0, 2}}));
  EXPECT_EQ(samples.learnt_bytes(), 4u);  // of text: the end is none
  EXPECT_EQ(got.conversations, 3);
  EXPECT_EQ(got.without_answer, 1);
  EXPECT_EQ(got.tokens.tokens, 8u);
  EXPECT_EQ(got.tokens.documents, 2u);
  const std::uint64_t end_bytes = std::string_view("<｜end▁of▁sentence｜>").size();
  EXPECT_EQ(got.tokens.text_bytes, 6 + 2 * end_bytes);
  EXPECT_EQ(got.tokens.vocab_size, 257u);
  EXPECT_EQ(got.tokens.tokenizer, bytes().fingerprint());
}

TEST_F(ConversationFilesTest, PiecesAreEncodedEachByItself) {
  const Tokenizer tokenizer = chat_tokenizer();
  const EncodedConversations got =
      encode(tokenizer, cat(kTalk, "\n",
                            R"({"messages": [{"role": "user", "content": "Q1"}, )"
                            R"({"role": "assistant", "content": "A1", "weight": 0}]})"
                            "\n"));
  Ids want;
  for (const char* piece :
       {"<｜begin▁of▁sentence｜><｜User｜>Q1<｜Assistant｜>", "A1x<｜end▁of▁sentence｜>",
        "<｜User｜>Q2<｜Assistant｜>", "A2<｜end▁of▁sentence｜>"}) {
    tokenizer.encode(piece, want);
  }
  EXPECT_EQ(ids(), want);
  ASSERT_EQ(table().samples(), 1);
  // BOS, User, Q, 1, Assistant; A, 1, x, end; ...
  EXPECT_EQ(runs(table(), 0), (std::vector<SampleRun>{{5, 4}, {4, 3}}));
  EXPECT_EQ(table().learnt_bytes(), 5u);
  EXPECT_EQ(got.without_answer, 1);
}

// A tokenizer that has joined a word does not join it across an answer's beginning: a server
// encodes the prompt before there is an answer.
TEST_F(ConversationFilesTest, NoTokenLiesAcrossAnAnswersBeginning) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "whale\n";
  const std::string_view documents[] = {text};
  ThreadPool pool(1);
  const Tokenizer tokenizer(train_bpe(documents, {.vocab_size = 300}, pool),
                            trained_tokenizer_config());
  ASSERT_EQ(tokenizer.encode("whale").size(), 1u);
  encode(tokenizer, R"({"prompt": "wh", "completion": "ale"})");
  Ids want = tokenizer.encode("<｜begin▁of▁sentence｜>wh");
  const auto read = static_cast<std::uint32_t>(want.size());
  tokenizer.encode("ale<｜end▁of▁sentence｜>", want);
  EXPECT_EQ(ids(), want);
  EXPECT_EQ(runs(table(), 0),
            (std::vector<SampleRun>{{read, static_cast<std::uint32_t>(want.size()) - read}}));
}

TEST_F(ConversationFilesTest, FilesDoNotDependOnThreads) {
  std::string text;
  for (int i = 0; i < 3000; ++i) {
    text += i % 3 == 0 ? cat(kTalk, "\n")
                       : cat(R"({"prompt": ")", i, R"(", "completion": ")", i * i, "\"}\n");
  }
  const ConversationLines all(files({text, text}));
  const Tokenizer tokenizer = chat_tokenizer();
  std::vector<std::string> got;
  for (const int threads : {1, 2, 3}) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> reports;
    encode(tokenizer, all, threads,
           [&](std::uint64_t done, std::uint64_t total) { reports.emplace_back(done, total); });
    got.push_back(testing::read_all(tokens_) + testing::read_all(samples_));
    ASSERT_FALSE(reports.empty());
    EXPECT_EQ(reports.back(), (std::pair{all.bytes(), all.bytes()}));
  }
  EXPECT_EQ(got[0], got[1]);
  EXPECT_EQ(got[0], got[2]);
}

TEST_F(ConversationFilesTest, ARunOfLinesIsEncodedAlone) {
  const ConversationLines all(
      files({"{\"prompt\": \"\", \"completion\": \"a\"}\n"
             "{\"prompt\": \"\", \"completion\": \"b\"}\n"
             "not taken\n"}));
  ThreadPool pool(1);
  encode_conversations(bytes(), all, all.lines().subspan(1, 1), tokens_, samples_, pool);
  EXPECT_EQ(ids(), (Ids{'b', 256}));
}

TEST_F(ConversationFilesTest, TheFirstBadLineIsNamed) {
  std::string text;
  for (int i = 0; i < 20; ++i) text += "{\"prompt\": \"\", \"completion\": \"a\"}\n";
  text += "{\"promt\": \"\"}\n{\n";
  EXPECT_THAT(error_of(Code::kFormat, [&] { encode(bytes(), text); }),
              ::testing::AllOf(HasSubstr("0:21: "), HasSubstr("did you mean \"prompt\"")));
  const char* call = R"({"messages": [{"role": "assistant", "content": "", "tool_calls":)"
                     R"([{"id": "a", "function": {"name": "f", "arguments": "{}"}}]}]})";
  // The format that is written beside trained tokenizers has no calls.
  EXPECT_THAT(error_of(Code::kUnsupported, [&] { encode(chat_tokenizer(), call); }),
              ::testing::AllOf(HasSubstr("0:1: "), HasSubstr("no calls of tools")));
  EXPECT_THAT(error_of(Code::kUnsupported, [&] { encode(bytes(), kTalk); }),
              ::testing::AllOf(HasSubstr("0:1: "), HasSubstr("need no chat format")));
  EXPECT_FALSE(std::filesystem::exists(tokens_));
  EXPECT_FALSE(std::filesystem::exists(samples_));
}

TEST_F(ConversationFilesTest, WithoutAnEndOrAnAnswerThereIsNoFile) {
  const Tokenizer endless(byte_tokenizer(false), byte_tokenizer_config(false));
  EXPECT_THAT(error_of(Code::kUnsupported,
                       [&] { encode(endless, R"({"prompt": "", "completion": "a"})"); }),
              HasSubstr("eos_token"));
  EXPECT_THAT(
      error_of(
          Code::kConfig,
          [&] { encode(chat_tokenizer(), R"({"messages": [{"role": "user", "content": "Q"}]})"); }),
      HasSubstr("none of 1 conversation(s)"));
  error_of(Code::kInterrupted, [&] {
    const ConversationLines all(files({R"({"prompt": "", "completion": "a"})"}));
    encode(bytes(), all, 2,
           [](std::uint64_t, std::uint64_t) { throw Error(Code::kInterrupted, "stopped"); });
  });
  EXPECT_FALSE(std::filesystem::exists(tokens_));
  EXPECT_FALSE(std::filesystem::exists(samples_));
}

}  // namespace
}  // namespace cachalot::text
