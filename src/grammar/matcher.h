// Where one text is in what it is held to (constraint.h).
//
// Threads: one caller. A value: a copy goes on by itself, to look ahead.
// Errors:  kUsage (constraint.h).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "grammar/constraint.h"
#include "grammar/machine.h"

namespace cachalot::grammar {

class Matcher {
 public:
  explicit Matcher(std::shared_ptr<const Constraint> constraint);

  // The grammar holds: `begins_after` has come, or there was none.
  bool has_begun() const noexcept { return begun_; }
  // Tokens that may come next; nullptr: any (but see may_end).
  std::shared_ptr<const TokenMask> allowed();
  bool may_end();   // the text may end here
  bool must_end();  // it may, and no token can follow
  // Takes the next token. False where it is not allowed, and then nothing has changed.
  bool accept(std::int32_t token);
  // The tokens of what is certain to follow, `most` at most, as the tokenizer writes that text by
  // itself. The text may still be cut into tokens in another way.
  std::vector<std::int32_t> forced(std::size_t most);

 private:
  std::shared_ptr<const Constraint> constraint_;
  Machine::Position position_;
  bool begun_;
  std::string last_;  // bytes, before it has begun: as many as may be part of begins_after
};

}  // namespace cachalot::grammar
