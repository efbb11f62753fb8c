#include "text/conversation_files.h"

#include <exception>
#include <functional>
#include <memory>
#include <optional>

#include "base/error.h"
#include "text/conversation.h"

namespace cachalot::text {

static constexpr std::size_t kMostLine = 16 << 20;

ConversationLines::ConversationLines(std::span<const std::filesystem::path> files)
    : names_(files.begin(), files.end()) {
  if (files.empty()) throw Error(Code::kConfig, "no file of conversations is named");
  files_.reserve(files.size());
  for (std::uint32_t f = 0; f < names_.size(); ++f) {
    const io::MappedFile& file = files_.emplace_back(names_[f]);
    std::string_view rest(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    if (rest.starts_with("\xEF\xBB\xBF")) rest.remove_prefix(3);  // a byte order mark
    for (std::uint32_t number = 1; !rest.empty(); ++number) {
      const std::size_t end = rest.find('\n');
      Line line{rest.substr(0, end), f, number};
      rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
      if (line.text.ends_with('\r')) line.text.remove_suffix(1);
      if (line.text.find_first_not_of(" \t") == std::string_view::npos) continue;
      if (line.text.size() > kMostLine) {
        throw Error(Code::kFormat, cat(where(line), ": the line has ", line.text.size(),
                                       " bytes, but a conversation has at most ", kMostLine,
                                       ". Is it JSON Lines, one object a line?"));
      }
      lines_.push_back(line);
    }
  }
  if (lines_.empty()) {
    throw Error(Code::kConfig,
                cat("there are no conversations: ", names_.size(), " file(s), the first is ",
                    names_[0].string(), ", hold no line. Name files with conversations in them."));
  }
}

std::uint64_t ConversationLines::bytes() const noexcept {
  std::uint64_t sum = 0;
  for (const Line& line : lines_) sum += line.text.size();
  return sum;
}

std::string ConversationLines::where(const Line& line) const {
  return cat(names_[line.file].string(), ":", line.number);
}

namespace {

struct EncodedSample {
  std::vector<std::int32_t> ids;
  std::vector<SampleRun> runs;
  std::uint64_t text_bytes = 0;
  std::uint64_t learnt_bytes = 0;
};

struct EncodedLine {
  std::vector<EncodedSample> samples;
  std::exception_ptr error;
};

class LineEncoder {
 public:
  explicit LineEncoder(const Tokenizer& tokenizer)
      : tokenizer_(tokenizer), bos_(tokenizer.config().bos_token.value_or("")) {
    if (!tokenizer.eos_id() || !tokenizer.config().eos_token) {
      throw Error(Code::kUnsupported,
                  "the tokenizer names no end-of-sentence token, which is to end an answer: "
                  "tokenizer_config.json needs \"eos_token\"");
    }
    eos_ = *tokenizer.config().eos_token;
    try {
      format_ = ChatFormat::of(tokenizer);
    } catch (const Error& e) {
      no_format_ = cat(e.what(), " Lines of \"prompt\" and \"completion\" need no chat format.");
    }
  }

  std::vector<EncodedSample> encode(std::string_view line) const {
    const Conversation conversation = parse_conversation(line);
    if (!conversation.messages.empty() && !format_) throw Error(Code::kUnsupported, no_format_);
    std::vector<EncodedSample> encoded;
    for (const Sample& sample :
         samples_of(conversation, format_ ? &*format_ : nullptr, bos_, eos_)) {
      EncodedSample one = encode(sample);
      // A token is learnt from those before it: one alone teaches nothing.
      if (one.ids.size() >= 2) encoded.push_back(std::move(one));
    }
    return encoded;
  }

 private:
  EncodedSample encode(const Sample& sample) const {
    EncodedSample out;
    for (const SamplePiece& piece : sample) {
      const std::size_t before = out.ids.size();
      tokenizer_.encode(piece.text, out.ids);
      const auto tokens = static_cast<std::uint32_t>(out.ids.size() - before);
      out.text_bytes += piece.text.size();
      if (out.runs.empty() || (!piece.learnt && out.runs.back().learnt > 0)) out.runs.push_back({});
      (piece.learnt ? out.runs.back().learnt : out.runs.back().read) += tokens;
      if (piece.learnt) out.learnt_bytes += piece.text.size() - eos_.size();
    }
    return out;
  }

  const Tokenizer& tokenizer_;
  std::string bos_, eos_;
  std::optional<ChatFormat> format_;
  std::string no_format_;  // why there is none
};

// What is wrong with a line, told with its place.
[[noreturn]] void rethrow_at(const std::string& where, const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const Error& e) {
    throw Error(e.code() == Code::kUsage ? Code::kFormat : e.code(), cat(where, ": ", e.what()));
  }
}

// Lines of a group on all threads. A line that cannot be taken is reported when its turn comes, so
// that it is always the first one.
std::vector<EncodedLine> encode_group(const LineEncoder& encoder,
                                      std::span<const ConversationLines::Line> lines,
                                      ThreadPool& pool) {
  std::vector<EncodedLine> encoded(lines.size());
  auto encode = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      try {
        encoded[i].samples = encoder.encode(lines[i].text);
      } catch (...) {
        encoded[i].error = std::current_exception();
      }
    }
  };
  pool.run(static_cast<std::int64_t>(lines.size()), /*grain=*/1, encode);
  return encoded;
}

// The first lines, as many as are in memory together.
std::span<const ConversationLines::Line> first_group(
    std::span<const ConversationLines::Line> lines) {
  constexpr std::uint64_t kGroupBytes = 8 << 20;
  constexpr std::size_t kGroupLines = 1 << 14;
  std::uint64_t bytes = 0;
  std::size_t count = 0;
  while (count < lines.size() && count < kGroupLines && bytes < kGroupBytes) {
    bytes += lines[count++].text.size();
  }
  return lines.first(count);
}

// Hears the samples of each line in their order, and that the line is done.
struct SampleHearer {
  std::function<void(const EncodedSample&)> sample;
  EncodedConversations counts;
};

void hear_samples(const Tokenizer& tokenizer, const ConversationLines& all,
                  std::span<const ConversationLines::Line> lines, ThreadPool& pool,
                  const Progress& progress, SampleHearer& hearer) {
  const LineEncoder encoder(tokenizer);
  std::uint64_t done = 0, total = 0;
  for (const ConversationLines::Line& line : lines) total += line.text.size();
  std::int64_t samples = 0;
  for (auto rest = lines; !rest.empty();) {
    const auto group = first_group(rest);
    rest = rest.subspan(group.size());
    const std::vector<EncodedLine> encoded = encode_group(encoder, group, pool);
    for (std::size_t i = 0; i < group.size(); ++i) {
      if (encoded[i].error) rethrow_at(all.where(group[i]), encoded[i].error);
      for (const EncodedSample& sample : encoded[i].samples) hearer.sample(sample);
      samples += std::ssize(encoded[i].samples);
      ++hearer.counts.conversations;
      if (encoded[i].samples.empty()) ++hearer.counts.without_answer;
      done += group[i].text.size();
    }
    if (progress) progress(done, total);
  }
  if (samples > 0) return;
  throw Error(Code::kConfig,
              cat("none of ", lines.size(), " conversation(s) has anything to learn: they need ",
                  "answers of the role \"assistant\" whose \"weight\" is not 0"));
}

}  // namespace

EncodedConversations encode_conversations(const Tokenizer& tokenizer, const ConversationLines& all,
                                          std::span<const ConversationLines::Line> lines,
                                          const std::filesystem::path& token_file,
                                          const std::filesystem::path& sample_file,
                                          ThreadPool& pool, const Progress& progress) {
  TokenFileWriter writer(token_file, tokenizer.vocab_size(), tokenizer.fingerprint());
  SampleTable table;
  SampleHearer hearer;
  hearer.sample = [&](const EncodedSample& sample) {
    writer.append(sample.ids);
    writer.count_document(sample.text_bytes);
    table.add(sample.runs);
    table.count_learnt_bytes(sample.learnt_bytes);
  };
  hear_samples(tokenizer, all, lines, pool, progress, hearer);
  hearer.counts.tokens = writer.commit();
  table.write(sample_file, TokenFile(token_file).ids_hash());
  return hearer.counts;
}

ConversationTokens read_conversations(const Tokenizer& tokenizer, const ConversationLines& all,
                                      ThreadPool& pool, const Progress& progress) {
  ConversationTokens read;
  SampleHearer hearer;
  hearer.sample = [&](const EncodedSample& sample) {
    SampleTokens& to = read.samples;
    to.tokens.insert(to.tokens.end(), sample.ids.begin(), sample.ids.end());
    for (const SampleRun& run : sample.runs) {
      to.learnt.insert(to.learnt.end(), run.read, 0);
      to.learnt.insert(to.learnt.end(), run.learnt, 1);
    }
    to.lengths.push_back(static_cast<std::int32_t>(sample.ids.size()));
    read.learnt_bytes += sample.learnt_bytes;
  };
  hear_samples(tokenizer, all, all.lines(), pool, progress, hearer);
  read.conversations = hearer.counts.conversations;
  return read;
}

}  // namespace cachalot::text
