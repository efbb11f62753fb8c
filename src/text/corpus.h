// Text files as documents, cut into a training and a validation part, and encoded into token files.
//
// Owns:    a Corpus its mappings; documents point into them.
// Threads: encoding uses the pool it is given; the result does not depend on its size.
// Errors:  kIo for a file that cannot be read, kFormat for invalid UTF-8 (with its offset), kConfig
//          for an empty corpus or a tokenizer without an end-of-sentence token.
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
#include "text/token_file.h"
#include "text/tokenizer.h"

namespace cachalot::text {

enum class DocumentRule {
  kFile,        // a file is a document
  kBlankLines,  // one or more empty lines stand between documents
  kMarker,      // a marker, such as <|endoftext|>, stands between documents
};

struct CorpusOptions {
  std::vector<std::filesystem::path> files;
  DocumentRule rule = DocumentRule::kFile;
  std::string marker = "<|endoftext|>";
  bool replace_invalid_utf8 = false;  // instead of refusing the file
};

class Corpus {
 public:
  explicit Corpus(const CorpusOptions& options);
  const std::vector<std::string_view>& documents() const noexcept { return documents_; }
  std::uint64_t bytes() const noexcept;  // of all documents

 private:
  std::vector<io::MappedFile> files_;
  std::vector<std::string> repaired_;
  std::vector<std::string_view> documents_;
};

struct SplitOptions {
  double validation_fraction = 0.1;  // in [0, 1)
  bool by_document = false;  // seeded choice of whole documents; else the last bytes of the corpus
  bool at_line_ends = true;  // false: at the very byte (or the next one that begins a character)
  std::uint64_t seed = 0;
};
struct CorpusSplit {
  std::vector<std::string_view> train, validation;
};
// By position, a document that lies across the cut is divided at the next line (or character).
CorpusSplit split_corpus(std::span<const std::string_view> documents, const SplitOptions& options);

// Called now and then from the calling thread; throwing from it stops the work.
using Progress = std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)>;

// Every document's ids in order, each document followed by the end-of-sentence token unless
// `end_documents` is false.
TokenFileInfo encode_documents(const Tokenizer& tokenizer,
                               std::span<const std::string_view> documents,
                               const std::filesystem::path& token_file, ThreadPool& pool,
                               const Progress& progress = {}, bool end_documents = true);

}  // namespace cachalot::text
