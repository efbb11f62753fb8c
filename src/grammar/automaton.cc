#include "grammar/automaton.h"

#include <algorithm>
#include <map>
#include <string>

#include "base/error.h"
#include "base/fields_text.h"
#include "grammar/check_grammar.h"
#include "grammar/utf8_ranges.h"

namespace cachalot::grammar {

namespace {

constexpr std::size_t kMaxEdges = 1 << 22;

[[noreturn]] void refuse_size() {
  throw Error(
      Code::kUsage,
      cat("a grammar, pattern or schema becomes a machine of more than ", kMaxNodes, " nodes or ",
          kMaxEdges, " edges, which is too large: ask for fewer repetitions or fewer parts"));
}

// A node while it may still have jumps, which read nothing.
struct RawNode {
  std::vector<Edge> edges;
  std::vector<Call> calls;  // `start` is a rule until all rules have nodes
  std::vector<std::int32_t> jumps;
  bool accepts = false;
  std::int32_t twin = -1;  // none: itself
};

// Every expression is built between two nodes that are there already: it adds ways out of the first
// and into the second, never any other way round, so that alternatives share both.
class Builder {
 public:
  Builder(const Grammar& grammar, const FindToken& find_token)
      : g_(grammar), find_token_(find_token), facts_(check_grammar(grammar)) {}

  Automaton build() {
    rule_start_.assign(static_cast<std::size_t>(g_.rules()), -1);
    const std::int32_t start = build_rule(g_.root());
    for (std::size_t r = 0; r < rule_start_.size(); ++r) {
      const auto rule = static_cast<RuleId>(r);
      if (!facts_.reached[r] || !matches(g_.body(rule))) continue;
      rule_start_[r] = build_rule(g_.body(rule));
    }
    for (RawNode& node : nodes_) {
      for (Call& call : node.calls) call.start = rule_start_[static_cast<std::size_t>(call.start)];
    }
    return without_jumps(start);
  }

 private:
  bool matches(ExprId id) const { return facts_.matches[static_cast<std::size_t>(id)]; }

  std::int32_t add_node() {
    if (nodes_.size() >= kMaxNodes) refuse_size();
    nodes_.emplace_back();
    return static_cast<std::int32_t>(nodes_.size() - 1);
  }
  RawNode& node(std::int32_t id) { return nodes_[static_cast<std::size_t>(id)]; }
  void add_edge(std::int32_t from, ByteRange bytes, std::int32_t to) {
    if (++edges_ > kMaxEdges) refuse_size();
    node(from).edges.push_back({bytes.first, bytes.last, to});
  }
  void add_jump(std::int32_t from, std::int32_t to) {
    if (++edges_ > kMaxEdges) refuse_size();
    node(from).jumps.push_back(to);
  }

  std::int32_t build_rule(ExprId body) {
    const std::int32_t start = add_node(), end = add_node();
    node(end).accepts = true;
    build(body, start, end);
    return start;
  }

  void build(ExprId id, std::int32_t from, std::int32_t to) {
    const Expr& e = g_.at(id);
    switch (e.kind) {
      case Expr::Kind::kText:
        return build_bytes(e.text, from, to);
      case Expr::Kind::kToken:
        return build_token(e.text, from, to);
      case Expr::Kind::kChars:
        return build_chars(e.ranges, from, to);
      case Expr::Kind::kSequence:
        for (std::size_t i = 0; i + 1 < e.parts.size(); ++i) {
          const std::int32_t next = add_node();
          build(e.parts[i], from, next);
          from = next;
        }
        return e.parts.empty() ? add_jump(from, to) : build(e.parts.back(), from, to);
      case Expr::Kind::kChoice:
        for (const ExprId part : e.parts) {
          if (matches(part)) build(part, from, to);
        }
        return;
      case Expr::Kind::kRepeat:
        return build_repeat(e, from, to);
      case Expr::Kind::kRule:
        if (++edges_ > kMaxEdges) refuse_size();
        node(from).calls.push_back({static_cast<std::int32_t>(e.rule), to});
        return;
    }
  }

  void build_bytes(std::string_view bytes, std::int32_t from, std::int32_t to) {
    if (bytes.empty()) return add_jump(from, to);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      const auto byte = static_cast<std::uint8_t>(bytes[i]);
      const std::int32_t next = i + 1 == bytes.size() ? to : add_node();
      add_edge(from, {byte, byte}, next);
      from = next;
    }
  }

  void build_token(const std::string& content, std::int32_t from, std::int32_t to) {
    const std::optional<std::int32_t> id =
        find_token_ ? find_token_(content) : std::optional<std::int32_t>();
    if (!id) {
      throw Error(Code::kUsage, cat("the grammar has the token \"", printable(content),
                                    "\", but the model's vocabulary has no added token of that "
                                    "content"));
    }
    build_bytes(token_bytes(*id), from, to);
  }

  // Sequences that end alike share the nodes of their ends.
  void build_chars(const std::vector<CharRange>& ranges, std::int32_t from, std::int32_t to) {
    std::map<std::vector<ByteRange>, std::int32_t> nodes_before;
    nodes_before[{}] = to;
    for (const ByteSequence& sequence : utf8_ranges(ranges)) {
      std::int32_t target = to;
      std::vector<ByteRange> rest;
      for (int i = sequence.length - 1; i > 0; --i) {
        const ByteRange bytes = sequence.bytes[static_cast<std::size_t>(i)];
        rest.insert(rest.begin(), bytes);
        const auto [known, is_new] = nodes_before.try_emplace(rest, 0);
        if (is_new) {
          known->second = add_node();
          add_edge(known->second, bytes, target);
        }
        target = known->second;
      }
      add_edge(from, sequence.bytes[0], target);
    }
  }

  void build_repeat(const Expr& e, std::int32_t from, std::int32_t to) {
    const ExprId part = e.parts.front();
    if (!matches(part)) return add_jump(from, to);  // zero times is the only way
    const std::size_t begin = nodes_.size();
    for (int i = 0; i < e.least; ++i) {
      const std::int32_t next = add_node();
      build(part, from, next);
      from = next;
    }
    find_twins(part, begin, e.least);
    if (e.most == kUnbounded) {
      const std::int32_t again = add_node();
      add_jump(from, again);
      build(part, again, again);
      return add_jump(again, to);
    }
    const std::size_t optional = nodes_.size();
    for (int i = e.least; i < e.most; ++i) {
      const std::int32_t next = add_node();
      add_jump(from, to);
      build(part, from, next);
      from = next;
    }
    add_jump(from, to);
    find_twins(part, optional, e.most - e.least);
  }

  // `copies` of a part lie from `begin` on, each with the same nodes in the same order. All that
  // have more than kTwinBytes further ones are as the last of these is; a part that may be empty
  // could be passed without reading.
  void find_twins(ExprId part, std::size_t begin, int copies) {
    const int far = copies - kTwinBytes - 1;
    if (far <= 1 || facts_.empty[static_cast<std::size_t>(part)]) return;
    const std::size_t stride = (nodes_.size() - begin) / static_cast<std::size_t>(copies);
    for (int i = 0; i + 1 < far; ++i) {
      const std::size_t copy = begin + static_cast<std::size_t>(i) * stride;
      const auto shift = static_cast<std::int32_t>(static_cast<std::size_t>(far - 1 - i) * stride);
      for (std::size_t n = copy; n < copy + stride; ++n) {
        RawNode& raw = nodes_[n];
        raw.twin = (raw.twin < 0 ? static_cast<std::int32_t>(n) : raw.twin) + shift;
      }
    }
  }

  // Nodes that something leads to, each with all that its jumps lead to.
  Automaton without_jumps(std::int32_t start) {
    std::vector<std::int32_t> number(nodes_.size(), -1), order;
    const auto numbered = [&](std::int32_t raw) {
      std::int32_t& n = number[static_cast<std::size_t>(raw)];
      if (n < 0) {
        n = static_cast<std::int32_t>(order.size());
        order.push_back(raw);
      }
      return n;
    };
    Automaton automaton;
    automaton.start = numbered(start);
    std::vector<std::int32_t> seen(nodes_.size(), -1);
    std::size_t edges = 0;
    for (std::size_t i = 0; i < order.size(); ++i) {
      Node whole;
      std::vector<std::int32_t> open{order[i]};
      while (!open.empty()) {
        const std::int32_t raw = open.back();
        open.pop_back();
        std::int32_t& seen_for = seen[static_cast<std::size_t>(raw)];
        if (seen_for == static_cast<std::int32_t>(i)) continue;
        seen_for = static_cast<std::int32_t>(i);
        const RawNode& n = node(raw);
        whole.accepts = whole.accepts || n.accepts;
        for (const Edge& e : n.edges) whole.edges.push_back({e.first, e.last, numbered(e.to)});
        for (const Call& c : n.calls) {
          whole.calls.push_back({numbered(c.start), numbered(c.return_to)});
        }
        open.insert(open.end(), n.jumps.begin(), n.jumps.end());
        edges += n.edges.size() + n.calls.size() + n.jumps.size();
        if (edges > kMaxEdges) refuse_size();
      }
      const std::int32_t twin = node(order[i]).twin;
      whole.twin = twin < 0 ? static_cast<std::int32_t>(i) : numbered(twin);
      automaton.nodes.push_back(std::move(whole));
    }
    return automaton;
  }

  const Grammar& g_;
  const FindToken& find_token_;
  const GrammarFacts facts_;
  std::vector<RawNode> nodes_;
  std::vector<std::int32_t> rule_start_;  // by rule
  std::size_t edges_ = 0;
};

}  // namespace

std::string token_bytes(std::int32_t id) {
  std::string bytes(1, static_cast<char>(kTokenMark));
  for (int i = 0; i < 4; ++i) bytes += static_cast<char>(id >> (8 * i) & 0xFF);
  return bytes;
}

Automaton compile(const Grammar& grammar, const FindToken& find_token) {
  return Builder(grammar, find_token).build();
}

}  // namespace cachalot::grammar
