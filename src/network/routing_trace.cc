#include "network/routing_trace.h"

#include <algorithm>
#include <charconv>
#include <span>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/fields_text.h"

namespace cachalot::network {

namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 30;
constexpr std::string_view kFirstWord = "cachalot-routing";

class Lines {
 public:
  Lines(std::string_view text, const std::string& file) : rest_(text), file_(file) {}

  // The next line's words; false at the end. Comments and empty lines are passed over.
  bool next(std::vector<std::string_view>& words) {
    while (!rest_.empty()) {
      ++number_;
      const std::size_t end = std::min(rest_.find('\n'), rest_.size());
      std::string_view line = rest_.substr(0, end);
      rest_.remove_prefix(std::min(end + 1, rest_.size()));
      line = line.substr(0, line.find('#'));
      words.clear();
      for (std::size_t at = 0; at < line.size();) {
        if (line[at] == ' ' || line[at] == '\t' || line[at] == '\r') {
          ++at;
          continue;
        }
        const std::size_t stop = std::min(line.find_first_of(" \t\r", at), line.size());
        words.push_back(line.substr(at, stop - at));
        at = stop;
      }
      if (!words.empty()) return true;
    }
    return false;
  }

  [[noreturn]] void fail(const std::string& text) const {
    throw Error(Code::kFormat, cat(file_, ":", number_, ": ", text));
  }

  int integer(std::string_view word, int low, int high, const std::string& what) const {
    int value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size() || value < low || value > high) {
      fail(cat(what, " is `", printable(word), "`; it must be a whole number, ", low, " to ", high,
               "."));
    }
    return value;
  }

 private:
  std::string_view rest_;
  const std::string& file_;
  std::int64_t number_ = 0;
};

int header(Lines& lines, std::string_view key, int high) {
  std::vector<std::string_view> words;
  if (!lines.next(words)) lines.fail(cat("the file ends before the line `", key, " N`."));
  if (words.size() != 2 || words[0] != key) {
    lines.fail(cat("here stands `", printable(words[0]), "`, where `", key, " N` must stand."));
  }
  return lines.integer(words[1], 1, high, std::string(key));
}

}  // namespace

RoutingTrace parse_routing_trace(std::string_view text, const std::string& file_name) {
  Lines lines(text, file_name);
  std::vector<std::string_view> words;
  if (!lines.next(words) || words.size() != 2 || words[0] != kFirstWord || words[1] != "1") {
    lines.fail(cat("a routing trace begins with the line `", kFirstWord, " 1`."));
  }
  RoutingTrace trace;
  trace.ranks = header(lines, "ranks", kMostRanks);
  trace.experts = header(lines, "experts", kMostExperts);
  trace.topk = header(lines, "topk", kMostTopk);
  if (trace.topk > trace.experts) {
    lines.fail(cat("topk ", trace.topk, " is more than the ", trace.experts, " experts."));
  }
  const auto topk = static_cast<std::size_t>(trace.topk);
  std::vector<std::uint16_t> sorted;
  while (lines.next(words)) {
    if (words.size() != topk + 1) {
      lines.fail(cat("a token has its rank and ", topk, " experts, ", topk + 1,
                     " numbers; here are ", words.size(), "."));
    }
    trace.rank_of.push_back(
        static_cast<std::uint16_t>(lines.integer(words[0], 0, trace.ranks - 1, "the rank")));
    for (std::size_t i = 1; i <= topk; ++i) {
      trace.chosen.push_back(
          static_cast<std::uint16_t>(lines.integer(words[i], 0, trace.experts - 1, "an expert")));
    }
    sorted.assign(trace.chosen.end() - trace.topk, trace.chosen.end());
    std::sort(sorted.begin(), sorted.end());
    const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
    if (twice != sorted.end()) lines.fail(cat("expert ", *twice, " stands here twice."));
  }
  if (trace.rank_of.empty()) lines.fail("there are no tokens.");
  return trace;
}

RoutingTrace load_routing_trace(const std::filesystem::path& file) {
  return parse_routing_trace(read_file(file, kMostBytes), file.string());
}

std::string to_text(const RoutingTrace& trace) {
  std::string text = cat(kFirstWord, " 1\nranks ", trace.ranks, "\nexperts ", trace.experts,
                         "\ntopk ", trace.topk, "\n");
  for (std::size_t t = 0; t < trace.rank_of.size(); ++t) {
    text += std::to_string(trace.rank_of[t]);
    for (std::size_t i = 0; i < static_cast<std::size_t>(trace.topk); ++i) {
      text += " " + std::to_string(trace.chosen[t * static_cast<std::size_t>(trace.topk) + i]);
    }
    text += "\n";
  }
  return text;
}

}  // namespace cachalot::network
