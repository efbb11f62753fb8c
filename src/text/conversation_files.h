// Files of conversations, encoded into a token file and the samples beside it.
//
// Threads: encoding uses the pool it is given; the result does not depend on its size.
// Errors:  kIo for a file that cannot be read; kFormat for the first line that is no
//          conversation, with file and line; kUnsupported for messages that the tokenizer's chat
//          format has no place for, or a tokenizer without one (or without an end-of-sentence
//          token); kConfig where there is nothing to learn.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/thread_pool.h"
#include "io/mapped_file.h"
#include "text/corpus.h"
#include "text/packed_samples.h"
#include "text/sample_file.h"
#include "text/tokenizer.h"

namespace cachalot::text {

// Lines of files, in their order; mapped, never copied. A byte order mark before a file's first
// line is passed over, and so are lines of spaces; a line ends with "\n" or "\r\n" and has at most
// 16 MiB.
class ConversationLines {
 public:
  explicit ConversationLines(std::span<const std::filesystem::path> files);

  struct Line {
    std::string_view text;
    std::uint32_t file = 0;
    std::uint32_t number = 0;  // in its file, from 1
  };
  std::span<const Line> lines() const noexcept { return lines_; }  // at least one
  std::uint64_t bytes() const noexcept;                            // of all lines
  std::string where(const Line& line) const;                       // "FILE:NUMBER"

 private:
  std::vector<std::filesystem::path> names_;
  std::vector<io::MappedFile> files_;
  std::vector<Line> lines_;
};

struct EncodedConversations {
  TokenFileInfo tokens;  // documents: samples; text_bytes: of all their text
  std::int64_t conversations = 0;
  std::int64_t without_answer = 0;  // conversations that have nothing to learn
};

// `lines`: a run of `all`. Both files are whole or not there; the table is written last.
EncodedConversations encode_conversations(const Tokenizer& tokenizer, const ConversationLines& all,
                                          std::span<const ConversationLines::Line> lines,
                                          const std::filesystem::path& token_file,
                                          const std::filesystem::path& sample_file,
                                          ThreadPool& pool, const Progress& progress = {});

// The same in memory: all of it, to be read once.
struct ConversationTokens {
  SampleTokens samples;
  std::uint64_t learnt_bytes = 0;  // of the answers' text
  std::int64_t conversations = 0;
};
ConversationTokens read_conversations(const Tokenizer& tokenizer, const ConversationLines& all,
                                      ThreadPool& pool, const Progress& progress = {});

}  // namespace cachalot::text
