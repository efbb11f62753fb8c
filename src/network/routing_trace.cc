#include "network/routing_trace.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <span>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/fields_text.h"
#include "network/routing_trace_text.h"

namespace cachalot::network {

namespace {

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

  std::int64_t integer(std::string_view word, std::int64_t low, std::int64_t high,
                       const std::string& what) const {
    std::int64_t value = 0;
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
  return static_cast<int>(lines.integer(words[1], 1, high, std::string(key)));
}

// `pass P layer L`, before the tokens of that exchange.
void begin_exchange(const Lines& lines, const std::vector<std::string_view>& words,
                    RoutingTrace& trace) {
  if (words.size() != 4 || words[2] != "layer") {
    lines.fail("an exchange begins with a line `pass P layer L`.");
  }
  if (trace.exchanges.empty() && trace.tokens() > 0) {
    lines.fail(cat("this line begins the first exchange, but ", trace.tokens(),
                   " tokens stand before it: of which pass and layer? Begin them with such a line, "
                   "too."));
  }
  RoutingExchange next;
  next.pass = lines.integer(words[1], 0, kMostPasses, "the pass");
  next.layer = static_cast<int>(lines.integer(words[3], 0, kMostLayers, "the layer"));
  next.begin = next.end = trace.tokens();
  if (!trace.exchanges.empty()) {
    const RoutingExchange& last = trace.exchanges.back();
    if (last.tokens() == 0) lines.fail("the exchange before this line has no tokens.");
    if (next.pass < last.pass) {
      lines.fail(cat("pass ", next.pass, " comes after pass ", last.pass, "; passes ascend."));
    }
  }
  trace.exchanges.push_back(next);
}

std::string layers_of(const RoutingTrace& trace) {
  std::set<int> layers;
  for (const RoutingExchange& e : trace.exchanges) layers.insert(e.layer);
  std::string list;
  for (const int layer : layers) list += cat(list.empty() ? "" : ", ", layer);
  return list;
}

}  // namespace

RoutingTrace parse_routing_trace(std::string_view text, const std::string& file_name) {
  Lines lines(text, file_name);
  std::vector<std::string_view> words;
  if (!lines.next(words) || words.size() != 2 || words[0] != kTraceFirstWord || words[1] != "1") {
    lines.fail(cat("a routing trace begins with the line `", kTraceFirstWord, " 1`."));
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
    if (words[0] == "pass") {
      begin_exchange(lines, words, trace);
      continue;
    }
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
    if (!trace.exchanges.empty()) trace.exchanges.back().end = trace.tokens();
  }
  if (trace.rank_of.empty()) lines.fail("there are no tokens.");
  if (!trace.exchanges.empty() && trace.exchanges.back().tokens() == 0) {
    lines.fail("the last exchange has no tokens.");
  }
  return trace;
}

RoutingTrace load_routing_trace(const std::filesystem::path& file) {
  return parse_routing_trace(read_file(file, static_cast<std::uint64_t>(kMostTraceBytes)),
                             file.string());
}

std::string to_text(const RoutingTrace& trace) {
  std::string text = trace_head(trace.ranks, trace.experts, trace.topk);
  auto next = trace.exchanges.begin();
  const auto topk = static_cast<std::size_t>(trace.topk);
  for (std::size_t t = 0; t < trace.rank_of.size(); ++t) {
    if (next != trace.exchanges.end() && next->begin == static_cast<std::int64_t>(t)) {
      append_exchange(text, next->pass, next->layer);
      ++next;
    }
    append_token(text, trace.rank_of[t],
                 std::span<const std::uint16_t>(trace.chosen).subspan(t * topk, topk));
  }
  return text;
}

RoutingTrace of_layer(const RoutingTrace& trace, int layer) {
  const int wanted =
      layer == -1 && !trace.exchanges.empty() ? trace.exchanges.front().layer : layer;
  RoutingTrace part;
  part.ranks = trace.ranks;
  part.experts = trace.experts;
  part.topk = trace.topk;
  const auto topk = static_cast<std::ptrdiff_t>(trace.topk);
  for (const RoutingExchange& e : trace.exchanges) {
    if (e.layer != wanted) continue;
    const std::int64_t begin = part.tokens();
    part.rank_of.insert(part.rank_of.end(), trace.rank_of.begin() + e.begin,
                        trace.rank_of.begin() + e.end);
    part.chosen.insert(part.chosen.end(), trace.chosen.begin() + e.begin * topk,
                       trace.chosen.begin() + e.end * topk);
    part.exchanges.push_back({e.pass, e.layer, begin, part.tokens()});
  }
  if (part.exchanges.empty()) {
    throw Error(Code::kUsage, trace.exchanges.empty()
                                  ? cat("the routing trace says nothing of layers, so layer ",
                                        wanted, " cannot be taken from it: leave the layer out")
                                  : cat("the routing trace has nothing of layer ", wanted,
                                        "; it has layers: ", layers_of(trace)));
  }
  return part;
}

RoutingExchange largest_exchange(const RoutingTrace& trace, std::int64_t pass) {
  const RoutingExchange* best = nullptr;
  for (const RoutingExchange& e : trace.exchanges) {
    if (pass != -1 && e.pass != pass) continue;
    if (best == nullptr || e.tokens() > best->tokens()) best = &e;
  }
  if (best != nullptr) return *best;
  throw Error(Code::kUsage,
              trace.exchanges.empty()
                  ? cat("the routing trace says nothing of passes, so pass ", pass,
                        " cannot be taken from it: leave the pass out")
                  : cat("the routing trace has no pass ", pass, "; its ", trace.exchanges.size(),
                        " exchanges are of passes ", trace.exchanges.front().pass, " to ",
                        trace.exchanges.back().pass));
}

RoutingTrace only(const RoutingTrace& trace, const RoutingExchange& exchange) {
  RoutingTrace part;
  part.ranks = trace.ranks;
  part.experts = trace.experts;
  part.topk = trace.topk;
  const auto topk = static_cast<std::ptrdiff_t>(trace.topk);
  part.rank_of.assign(trace.rank_of.begin() + exchange.begin, trace.rank_of.begin() + exchange.end);
  part.chosen.assign(trace.chosen.begin() + exchange.begin * topk,
                     trace.chosen.begin() + exchange.end * topk);
  return part;
}

}  // namespace cachalot::network
