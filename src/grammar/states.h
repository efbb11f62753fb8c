// The places that an automaton can be in after some bytes, as numbers: a state is the set of its
// nodes and of the rules that are open there, the same set is the same number, and what follows a
// state by a byte is found once.
//
// A rule's stack is a list that grows at its end and shares its beginning with others, so a state
// knows what it does not depend on: the part of the stacks that all its places have in common.
// local() is the state without that part, and with nodes for their twins. What it does with
// kTwinBytes bytes, until the part would be needed (is_unknown()), holds wherever the rule is used,
// which is why it pays to ask it instead.
//
// Owns:    states and stacks, until it is destroyed; borrows the automaton.
// Threads: one at a time.
// Errors:  kUsage where there would be more than kMaxStates states, or more than kMaxPlaces places
//          in one.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "grammar/automaton.h"

namespace cachalot::grammar {

inline constexpr std::size_t kMaxStates = 1 << 16;
inline constexpr std::size_t kMaxPlaces = 2'000;

class States {
 public:
  using Id = std::int32_t;
  static constexpr Id kDead = -1;  // no text goes on from here

  explicit States(const Automaton& automaton);

  Id start();
  Id next(Id state, std::uint8_t byte) {
    const Id known = table_[static_cast<std::size_t>(state) * classes_ + class_of_[byte]];
    return known != kNotFound ? known : find_next(state, byte);
  }
  // The text may end here.
  bool is_complete(Id state) const { return at(state).complete; }
  // Of a local state: the rule it is in may end here, and what follows is not known to it.
  bool is_unknown(Id state) const { return at(state).unknown; }
  // Nothing can follow.
  bool is_end(Id state) const { return at(state).places.empty(); }
  Id local(Id state);
  // The one byte that can follow, where there is one and the text cannot end; else -1.
  int forced(Id state) const;
  // States, and what takes about as much memory as one.
  std::size_t size() const noexcept { return states_.size() + (places_ + frames_.size()) / 8; }

  // A state apart from any States: to go on in another one.
  struct Portable {
    std::vector<std::pair<std::int32_t, std::vector<std::int32_t>>> places;
    bool complete = false;
  };
  Portable to_portable(Id state) const;
  Id from_portable(const Portable& state);

 private:
  static constexpr Id kNotFound = -2;
  using StackId = std::int32_t;
  static constexpr StackId kBottom = 0;   // no rule is open
  static constexpr StackId kUnknown = 1;  // rules that a local state knows nothing of
  struct Frame {
    std::int32_t return_to = 0;
    StackId below = kBottom;
    std::int32_t depth = 0;
  };
  struct Place {
    std::int32_t node = 0;
    StackId stack = kBottom;
    auto operator<=>(const Place&) const = default;
  };
  struct State {
    std::vector<Place> places;  // ascending; their nodes read something
    bool complete = false;
    bool unknown = false;
    Id local = kNotFound;
  };

  const State& at(Id id) const { return states_[static_cast<std::size_t>(id)]; }
  const Node& node(std::int32_t id) const { return a_.nodes[static_cast<std::size_t>(id)]; }
  const Frame& frame(StackId id) const { return frames_[static_cast<std::size_t>(id)]; }
  StackId push(std::int32_t return_to, StackId below);
  void find_classes();
  Id find_next(Id state, std::uint8_t byte);
  // The state of these places and of all that they come to without reading anything.
  Id enter(std::vector<Place> open);
  Id intern(State state);
  StackId common_stack(const State& state) const;
  StackId above(StackId stack, StackId common);

  const Automaton& a_;
  std::array<std::uint8_t, 256> class_of_{};  // bytes that no edge tells apart
  std::size_t classes_ = 0;
  std::vector<Frame> frames_;
  std::unordered_map<std::uint64_t, StackId> stack_ids_;
  std::vector<State> states_;
  std::size_t places_ = 0;  // in all states
  std::vector<Id> table_;   // [states, classes]
  std::unordered_multimap<std::uint64_t, Id> ids_;
};

}  // namespace cachalot::grammar
