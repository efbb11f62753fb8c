// An automaton at work on a vocabulary: where texts are in it, and which tokens may come next.
//
// The tokens that may follow a state are found by a walk over the vocabulary's tree. Most of them
// follow wherever the rule is used (States::local), so that walk is taken once for all such places:
// inside of a string nearly all tokens go on in any string. Left are those that go past the rule's
// end ("\", \"age\": ") and are looked at for each state by itself.
//
// Owns:    the automaton, its states, and the masks found so far. Where states or masks become too
//          many, all of them are dropped and found again as they are needed; a Position outlives
//          that.
// Threads: any; one at a time gets in.
// Errors:  kUsage (states.h).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/states.h"
#include "grammar/token_mask.h"
#include "grammar/vocabulary.h"

namespace cachalot::grammar {

struct MachineLimits {
  std::size_t states = 1 << 14;  // kept
  std::size_t masks = 512;       // kept; 16 KiB each for DeepSeek-V3's vocabulary
};

class Machine {
 public:
  Machine(Automaton automaton, const Vocabulary& vocabulary, MachineLimits limits = {});

  // Where a text is. A value: copies go on by themselves.
  class Position {
    friend class Machine;
    std::shared_ptr<States> states_;
    States::Id id_ = States::kDead;
  };

  Position start();
  // False where no text goes on with these bytes; the position is then as before.
  bool read(Position& position, std::string_view bytes);
  bool is_complete(Position& position);  // the text may end here
  bool is_end(Position& position);       // and cannot go on
  // Tokens whose bytes can follow.
  std::shared_ptr<const TokenMask> allowed(Position& position);
  // Bytes that follow in any case, `most` at most; empty where the text may end.
  std::string forced(Position& position, std::size_t most);

 private:
  // What is the same wherever a local state stands.
  struct LocalMask {
    std::shared_ptr<const TokenMask> tokens;  // that follow in any case
    std::vector<std::size_t> open;            // roots of trees whose tokens go past what is known
  };
  void renew(Position& position);
  const LocalMask& local_mask(States::Id local);
  void walk(States::Id from, std::size_t begin, std::size_t end, std::size_t depth,
            TokenMask& tokens, std::vector<std::size_t>* open);

  const Automaton automaton_;
  const Vocabulary& vocabulary_;
  const MachineLimits limits_;
  std::mutex mutex_;  // of all below
  std::shared_ptr<States> states_;
  std::unordered_map<States::Id, LocalMask> local_masks_;
  std::unordered_map<States::Id, std::shared_ptr<const TokenMask>> masks_;  // of whole states
  std::vector<States::Id> path_;  // of a walk: the state before each depth
};

}  // namespace cachalot::grammar
