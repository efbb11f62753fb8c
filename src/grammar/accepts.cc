#include "grammar/accepts.h"

#include <set>
#include <utility>
#include <vector>

#include "base/error.h"

namespace cachalot::grammar {

namespace {

constexpr std::size_t kMaxPlaces = 1'000'000;

// A node, and where the rules that are open return to, the innermost last.
using Place = std::pair<std::int32_t, std::vector<std::int32_t>>;

class Places {
 public:
  explicit Places(const Automaton& automaton) : a_(automaton) { enter({a_.start, {}}); }

  void read(std::uint8_t byte) {
    std::set<Place> before;
    std::swap(before, places_);
    is_complete_ = false;
    for (const Place& place : before) {
      for (const Edge& e : node(place.first).edges) {
        if (e.first <= byte && byte <= e.last) enter({e.to, place.second});
      }
    }
  }
  bool empty() const { return places_.empty(); }
  bool is_complete() const { return is_complete_; }

 private:
  const Node& node(std::int32_t id) const { return a_.nodes[static_cast<std::size_t>(id)]; }

  void enter(Place first) {
    std::vector<Place> open{std::move(first)};
    while (!open.empty()) {
      const auto [it, is_new] = places_.insert(std::move(open.back()));
      open.pop_back();
      if (!is_new) continue;
      if (places_.size() > kMaxPlaces) {
        throw Error(Code::kUsage, "the grammar is too ambiguous to be followed");
      }
      const Node& n = node(it->first);
      const std::vector<std::int32_t>& stack = it->second;
      if (n.accepts && stack.empty()) is_complete_ = true;
      if (n.accepts && !stack.empty()) {
        open.emplace_back(stack.back(), std::vector(stack.begin(), stack.end() - 1));
      }
      for (const Call& c : n.calls) {
        std::vector<std::int32_t> deeper = stack;
        if (!node(c.return_to).only_accepts()) deeper.push_back(c.return_to);
        open.emplace_back(c.start, std::move(deeper));
      }
    }
  }

  const Automaton& a_;
  std::set<Place> places_;
  bool is_complete_ = false;
};

Places after(const Automaton& automaton, std::string_view bytes) {
  Places places(automaton);
  for (const char byte : bytes) places.read(static_cast<std::uint8_t>(byte));
  return places;
}

}  // namespace

bool accepts(const Automaton& automaton, std::string_view bytes) {
  return after(automaton, bytes).is_complete();
}

bool accepts_prefix(const Automaton& automaton, std::string_view bytes) {
  return !after(automaton, bytes).empty();
}

}  // namespace cachalot::grammar
