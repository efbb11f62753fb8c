#include "grammar/constraint.h"

#include "grammar/automaton.h"
#include "grammar/machine.h"

namespace cachalot::grammar {

Constraint::Constraint(std::shared_ptr<const Vocabulary> vocabulary, const Grammar& grammar,
                       std::string begins_after, bool must_begin)
    : vocabulary_(std::move(vocabulary)),
      begins_after_(std::move(begins_after)),
      must_begin_(must_begin),
      machine_(std::make_unique<Machine>(
          compile(grammar, [this](std::string_view t) { return vocabulary_->added_token(t); }),
          *vocabulary_)) {}

Constraint::~Constraint() = default;

}  // namespace cachalot::grammar
