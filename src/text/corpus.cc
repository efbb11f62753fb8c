#include "text/corpus.h"

#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/rng.h"
#include "text/utf8.h"

namespace cachalot::text {

static std::string_view as_text(const io::MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

// Adds what lies between runs of empty lines; the line ends at both ends of a document go.
static void cut_at_blank_lines(std::string_view text, std::vector<std::string_view>& out) {
  const auto line_end = [&](std::size_t at) {  // length of the line end at `at`, 0 if there is none
    if (at < text.size() && text[at] == '\n') return std::size_t{1};
    return std::size_t{text.substr(at, 2) == "\r\n" ? 2u : 0u};
  };
  std::size_t begin = 0, at = 0;
  while (at < text.size()) {
    const std::size_t first = line_end(at);
    if (first == 0 || line_end(at + first) == 0) {
      at += std::max<std::size_t>(first, 1);
      continue;
    }
    out.push_back(text.substr(begin, at - begin));
    while (const std::size_t length = line_end(at)) at += length;
    begin = at;
  }
  std::string_view last = text.substr(begin);
  while (!last.empty() && (last.back() == '\n' || last.back() == '\r')) last.remove_suffix(1);
  out.push_back(last);
}

static void cut_at_marker(std::string_view text, std::string_view marker,
                          std::vector<std::string_view>& out) {
  for (;;) {
    const std::size_t at = text.find(marker);
    out.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return;
    text.remove_prefix(at + marker.size());
  }
}

Corpus::Corpus(const CorpusOptions& options) {
  if (options.files.empty()) throw Error(Code::kConfig, "the corpus names no text file");
  if (options.rule == DocumentRule::kMarker && options.marker.empty()) {
    throw Error(Code::kConfig, "documents divided by a marker need a marker that is not empty");
  }
  files_.reserve(options.files.size());
  repaired_.reserve(options.files.size());
  for (const auto& path : options.files) {
    files_.emplace_back(path);
    std::string_view text = as_text(files_.back());
    if (!is_valid_utf8(text)) {
      if (!options.replace_invalid_utf8) {
        throw Error(
            Code::kFormat,
            cat(path.string(), ": not UTF-8 at byte ", first_invalid_utf8(text),
                ". Convert it (iconv -t UTF-8; with -c what is no character is left out)."));
      }
      text = repaired_.emplace_back(replace_invalid_utf8(text));
    }
    std::vector<std::string_view> cut;
    switch (options.rule) {
      case DocumentRule::kFile:
        cut = {text};
        break;
      case DocumentRule::kBlankLines:
        cut_at_blank_lines(text, cut);
        break;
      case DocumentRule::kMarker:
        cut_at_marker(text, options.marker, cut);
        break;
    }
    for (const std::string_view document : cut) {
      if (!document.empty()) documents_.push_back(document);
    }
  }
  if (documents_.empty()) {
    throw Error(Code::kConfig,
                cat("the corpus is empty: ", options.files.size(), " file(s), the first is ",
                    options.files[0].string(), ", hold no text. Name files with text in them."));
  }
}

std::uint64_t Corpus::bytes() const noexcept {
  std::uint64_t sum = 0;
  for (const std::string_view document : documents_) sum += document.size();
  return sum;
}

// Where to divide a document near `at`: behind the next newline, if one is near and asked for, else
// between characters.
static std::size_t cut_point(std::string_view text, std::size_t at, bool at_line_ends) {
  if (at == 0) return 0;
  if (at_line_ends) {
    const std::size_t newline = text.substr(0, at + 4096).find('\n', at - 1);
    // Not where that leaves nothing: a text of one line is cut between characters.
    if (newline != std::string_view::npos && newline + 1 < text.size()) return newline + 1;
  }
  while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) ++at;
  return at;
}

// In doubles 1 - 0.9 is a little less than a tenth: what would be a whole number but for that is
// one.
static std::uint64_t training_bytes(std::uint64_t total, double held_out) {
  constexpr double kRounding = 4e-16;
  const double bytes = static_cast<double>(total) * (1.0 - held_out);
  const double whole = std::round(bytes);
  const bool is_whole = std::abs(bytes - whole) <= kRounding * static_cast<double>(total);
  return static_cast<std::uint64_t>(is_whole ? whole : bytes);
}

static CorpusSplit split_by_document(std::span<const std::string_view> documents,
                                     const SplitOptions& options) {
  CorpusSplit split;
  const Rng rng(options.seed, /*stream=*/0x5B1175);
  for (std::size_t i = 0; i < documents.size(); ++i) {
    (rng.uniform(i) < options.validation_fraction ? split.validation : split.train)
        .push_back(documents[i]);
  }
  return split;
}

CorpusSplit split_corpus(std::span<const std::string_view> documents, const SplitOptions& options) {
  if (!(options.validation_fraction >= 0 && options.validation_fraction < 1)) {
    throw Error(Code::kConfig, cat("the validation fraction is ", options.validation_fraction,
                                   ", it must be at least 0 and below 1"));
  }
  if (options.by_document) return split_by_document(documents, options);
  std::uint64_t total = 0;
  for (const std::string_view document : documents) total += document.size();
  std::uint64_t train_left =
      options.validation_fraction == 0 ? total : training_bytes(total, options.validation_fraction);
  CorpusSplit split;
  for (const std::string_view document : documents) {
    const std::size_t cut = document.size() <= train_left
                                ? document.size()
                                : cut_point(document, train_left, options.at_line_ends);
    if (cut > 0) split.train.push_back(document.substr(0, cut));
    if (cut < document.size()) split.validation.push_back(document.substr(cut));
    train_left -= std::min<std::uint64_t>(train_left, document.size());
  }
  return split;
}

namespace {

// A stretch of a document that one thread encodes.
struct Part {
  std::string_view text;
  std::uint64_t document_bytes;  // of the document that ends with this part, else 0
};

class GroupEncoder {
 public:
  // `eos` stands behind each document, if it is a token.
  GroupEncoder(const Tokenizer& tokenizer, std::optional<std::int32_t> eos, ThreadPool& pool,
               TokenFileWriter& writer)
      : tokenizer_(tokenizer), eos_(eos), pool_(pool), writer_(writer) {}

  void add(Part part) {
    parts_.push_back(part);
    bytes_ += part.text.size();
  }
  bool full() const { return bytes_ >= kGroupBytes || parts_.size() >= kGroupParts; }
  // Encodes on all threads, writes in order; returns the bytes of text done.
  std::uint64_t flush() {
    std::vector<std::vector<std::int32_t>> ids(parts_.size());
    auto encode = [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        tokenizer_.encode(parts_[i].text, ids[i]);
        if (parts_[i].document_bytes != 0 && eos_) ids[i].push_back(*eos_);
      }
    };
    pool_.run(static_cast<std::int64_t>(parts_.size()), /*grain=*/1, encode);
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      writer_.append(ids[i]);
      if (parts_[i].document_bytes != 0) writer_.count_document(parts_[i].document_bytes);
    }
    parts_.clear();
    return std::exchange(bytes_, 0);
  }

 private:
  static constexpr std::uint64_t kGroupBytes = 8 << 20;
  static constexpr std::size_t kGroupParts = 1 << 14;
  const Tokenizer& tokenizer_;
  std::optional<std::int32_t> eos_;
  ThreadPool& pool_;
  TokenFileWriter& writer_;
  std::vector<Part> parts_;
  std::uint64_t bytes_ = 0;
};

}  // namespace

TokenFileInfo encode_documents(const Tokenizer& tokenizer,
                               std::span<const std::string_view> documents,
                               const std::filesystem::path& token_file, ThreadPool& pool,
                               const Progress& progress, bool end_documents) {
  if (end_documents && !tokenizer.eos_id()) {
    throw Error(Code::kConfig,
                "the tokenizer names no end-of-sentence token to put between documents: "
                "tokenizer_config.json needs \"eos_token\"");
  }
  std::uint64_t done = 0, total = 0;
  for (const std::string_view document : documents) total += document.size();
  TokenFileWriter writer(token_file, tokenizer.vocab_size(), tokenizer.fingerprint());
  GroupEncoder group(tokenizer, end_documents ? tokenizer.eos_id() : std::nullopt, pool, writer);
  const auto flush = [&] {
    done += group.flush();
    if (progress) progress(done, total);
  };
  constexpr std::size_t kPartBytes = 128 << 10;
  for (const std::string_view document : documents) {
    const auto parts = tokenizer.parts(document, kPartBytes);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      group.add({parts[i], i + 1 == parts.size() ? document.size() : 0});
      if (group.full()) flush();
    }
  }
  flush();
  return writer.commit();
}

}  // namespace cachalot::text
