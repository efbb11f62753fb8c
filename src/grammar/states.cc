#include "grammar/states.h"

#include <algorithm>
#include <bitset>
#include <unordered_set>

#include "base/error.h"

namespace cachalot::grammar {

namespace {

std::uint64_t both(std::int32_t a, std::int32_t b) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(a)) << 32 |
         static_cast<std::uint32_t>(b);
}

[[noreturn]] void refuse_ambiguity() {
  throw Error(Code::kUsage,
              cat("the grammar, pattern or schema is too ambiguous: a text could be followed in "
                  "more than ",
                  kMaxPlaces, " ways at once, or through more than ", kMaxStates,
                  " states. Give each text one way to be read."));
}

}  // namespace

States::States(const Automaton& automaton) : a_(automaton) {
  frames_.resize(2);  // kBottom and kUnknown
  find_classes();
}

// A class begins at each byte where some edge begins or has just ended.
void States::find_classes() {
  std::bitset<257> begins;
  begins.set(0);
  for (const Node& n : a_.nodes) {
    for (const Edge& e : n.edges) {
      begins.set(e.first);
      begins.set(std::size_t{e.last} + 1);
    }
  }
  std::size_t classes = 0;
  for (std::size_t b = 0; b < 256; ++b) {
    if (b > 0 && begins[b]) ++classes;
    class_of_[b] = static_cast<std::uint8_t>(classes);
  }
  classes_ = classes + 1;
}

States::StackId States::push(std::int32_t return_to, StackId below) {
  const auto [known, is_new] =
      stack_ids_.try_emplace(both(return_to, below), static_cast<StackId>(frames_.size()));
  if (is_new) frames_.push_back({return_to, below, frame(below).depth + 1});
  return known->second;
}

States::Id States::start() { return enter({{a_.start, kBottom}}); }

States::Id States::find_next(Id state, std::uint8_t byte) {
  std::vector<Place> open;
  for (const Place& place : at(state).places) {
    for (const Edge& e : node(place.node).edges) {
      if (e.first <= byte && byte <= e.last) open.push_back({e.to, place.stack});
    }
  }
  const Id next = open.empty() ? kDead : enter(std::move(open));
  table_[static_cast<std::size_t>(state) * classes_ + class_of_[byte]] = next;
  return next;
}

States::Id States::enter(std::vector<Place> open) {
  State state;
  std::unordered_set<std::uint64_t> seen;
  while (!open.empty()) {
    const Place place = open.back();
    open.pop_back();
    if (!seen.insert(both(place.node, place.stack)).second) continue;
    if (seen.size() > kMaxPlaces) refuse_ambiguity();
    const Node& n = node(place.node);
    if (!n.edges.empty()) state.places.push_back(place);
    if (n.accepts) {
      if (place.stack == kBottom) {
        state.complete = true;
      } else if (place.stack == kUnknown) {
        state.unknown = true;
      } else {
        open.push_back({frame(place.stack).return_to, frame(place.stack).below});
      }
    }
    for (const Call& c : n.calls) {
      const bool is_last = node(c.return_to).only_accepts();
      open.push_back({c.start, is_last ? place.stack : push(c.return_to, place.stack)});
    }
  }
  std::sort(state.places.begin(), state.places.end());
  return intern(std::move(state));
}

States::Id States::intern(State state) {
  std::uint64_t hash = (state.complete ? 1u : 0u) + (state.unknown ? 2u : 0u);
  for (const Place& place : state.places) {
    hash = (hash ^ both(place.node, place.stack)) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 29;
  }
  const auto [first, last] = ids_.equal_range(hash);
  for (auto it = first; it != last; ++it) {
    const State& other = at(it->second);
    if (other.places == state.places && other.complete == state.complete &&
        other.unknown == state.unknown) {
      return it->second;
    }
  }
  places_ += state.places.size();
  if (size() >= kMaxStates) refuse_ambiguity();
  const auto id = static_cast<Id>(states_.size());
  states_.push_back(std::move(state));
  table_.resize(states_.size() * classes_, kNotFound);
  ids_.emplace(hash, id);
  return id;
}

// What the stacks of all places begin with.
States::StackId States::common_stack(const State& state) const {
  StackId common = state.places.front().stack;
  for (const Place& place : state.places) {
    StackId other = place.stack;
    while (other != common) {
      StackId& deeper = frame(other).depth >= frame(common).depth ? other : common;
      deeper = frame(deeper).below;
    }
  }
  return common;
}

States::StackId States::above(StackId stack, StackId common) {
  std::vector<std::int32_t> returns;
  for (; stack != common; stack = frame(stack).below) {
    returns.push_back(node(frame(stack).return_to).twin);
  }
  StackId copy = common == kBottom ? kBottom : kUnknown;
  for (std::size_t i = returns.size(); i-- > 0;) copy = push(returns[i], copy);
  return copy;
}

States::Id States::local(Id id) {
  if (at(id).local != kNotFound) return at(id).local;
  State state;
  state.complete = at(id).complete;
  // Where the text may end, all of the stacks matters.
  const StackId common = at(id).complete || at(id).places.empty() ? kBottom : common_stack(at(id));
  for (const Place& place : at(id).places) {
    state.places.push_back({node(place.node).twin, above(place.stack, common)});
  }
  std::sort(state.places.begin(), state.places.end());
  const auto last = std::unique(state.places.begin(), state.places.end());
  state.places.erase(last, state.places.end());
  const Id local = intern(std::move(state));
  states_[static_cast<std::size_t>(id)].local = local;
  return local;
}

int States::forced(Id state) const {
  if (is_complete(state)) return -1;
  int byte = -1;
  for (const Place& place : at(state).places) {
    for (const Edge& e : node(place.node).edges) {
      if (e.first != e.last || (byte >= 0 && byte != e.first)) return -1;
      byte = e.first;
    }
  }
  return byte;
}

States::Portable States::to_portable(Id id) const {
  Portable portable{.places = {}, .complete = at(id).complete};
  for (const Place& place : at(id).places) {
    std::vector<std::int32_t> returns;
    for (StackId s = place.stack; s != kBottom; s = frame(s).below) {
      returns.push_back(frame(s).return_to);
    }
    portable.places.emplace_back(place.node, std::move(returns));
  }
  return portable;
}

States::Id States::from_portable(const Portable& portable) {
  State state;
  state.complete = portable.complete;
  for (const auto& [node, returns] : portable.places) {
    StackId stack = kBottom;
    for (std::size_t i = returns.size(); i-- > 0;) stack = push(returns[i], stack);
    state.places.push_back({node, stack});
  }
  std::sort(state.places.begin(), state.places.end());
  return intern(std::move(state));
}

}  // namespace cachalot::grammar
