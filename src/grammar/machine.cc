#include "grammar/machine.h"

namespace cachalot::grammar {

Machine::Machine(Automaton automaton, const Vocabulary& vocabulary, MachineLimits limits)
    : automaton_(std::move(automaton)),
      vocabulary_(vocabulary),
      limits_(limits),
      states_(std::make_shared<States>(automaton_)) {}

// Brings a position into the states of now, after they have become too many if they have.
void Machine::renew(Position& position) {
  if (states_->size() > limits_.states) {
    states_ = std::make_shared<States>(automaton_);
    local_masks_.clear();
    masks_.clear();
  }
  if (local_masks_.size() + masks_.size() > limits_.masks) {
    local_masks_.clear();
    masks_.clear();
  }
  if (position.states_ == states_) return;
  if (position.states_ == nullptr) {
    position.id_ = states_->start();
  } else {
    position.id_ = states_->from_portable(position.states_->to_portable(position.id_));
  }
  position.states_ = states_;
}

Machine::Position Machine::start() {
  const std::lock_guard lock(mutex_);
  Position position;
  renew(position);
  return position;
}

bool Machine::read(Position& position, std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  renew(position);
  States::Id id = position.id_;
  for (const char byte : bytes) {
    id = states_->next(id, static_cast<std::uint8_t>(byte));
    if (id == States::kDead) return false;
  }
  position.id_ = id;
  return true;
}

bool Machine::is_complete(Position& position) {
  const std::lock_guard lock(mutex_);
  renew(position);
  return states_->is_complete(position.id_);
}

bool Machine::is_end(Position& position) {
  const std::lock_guard lock(mutex_);
  renew(position);
  return states_->is_end(position.id_);
}

std::string Machine::forced(Position& position, std::size_t most) {
  const std::lock_guard lock(mutex_);
  renew(position);
  std::string bytes;
  for (States::Id id = position.id_; bytes.size() < most;) {
    const int byte = states_->forced(id);
    if (byte < 0) break;
    bytes += static_cast<char>(byte);
    id = states_->next(id, static_cast<std::uint8_t>(byte));
  }
  return bytes;
}

// Nodes [begin, end) of the tree, the first of which has this depth and is read after `from`. Where
// `open` is given, `from` is a local state, and trees with tokens that cannot be told are listed.
void Machine::walk(States::Id from, std::size_t begin, std::size_t end, std::size_t depth,
                   TokenMask& tokens, std::vector<std::size_t>* open) {
  const auto tree = vocabulary_.tree();
  States& states = *states_;
  path_.assign(static_cast<std::size_t>(vocabulary_.longest()) + 1, States::kDead);
  path_[depth] = from;
  // Up to this depth the bytes went past the end of what a local state knows.
  std::size_t unknown_from = static_cast<std::size_t>(vocabulary_.longest()) + 1;
  if (open != nullptr && states.is_unknown(from)) unknown_from = depth;
  for (std::size_t i = begin; i < end;) {
    const Vocabulary::TreeNode& node = tree[i];
    const auto d = static_cast<std::size_t>(node.depth);
    if (d < unknown_from && open != nullptr) {
      unknown_from = static_cast<std::size_t>(vocabulary_.longest()) + 1;
    }
    const States::Id next = states.next(path_[d], node.byte);
    if (next == States::kDead) {
      if (d >= unknown_from) open->push_back(i);
      i = static_cast<std::size_t>(node.skip);
      continue;
    }
    path_[d + 1] = next;
    for (const std::int32_t token : vocabulary_.tokens_at(i)) tokens.set(token);
    if (open != nullptr && d + 1 < unknown_from && states.is_unknown(next)) unknown_from = d + 1;
    ++i;
  }
}

const Machine::LocalMask& Machine::local_mask(States::Id local) {
  const auto known = local_masks_.find(local);
  if (known != local_masks_.end()) return known->second;
  LocalMask mask;
  TokenMask tokens(vocabulary_.size());
  walk(local, 0, vocabulary_.tree().size(), 0, tokens, &mask.open);
  mask.tokens = std::make_shared<const TokenMask>(std::move(tokens));
  return local_masks_.emplace(local, std::move(mask)).first->second;
}

std::shared_ptr<const TokenMask> Machine::allowed(Position& position) {
  const std::lock_guard lock(mutex_);
  renew(position);
  const auto known = masks_.find(position.id_);
  if (known != masks_.end()) return known->second;
  const LocalMask& local = local_mask(states_->local(position.id_));
  if (local.open.empty()) return local.tokens;
  TokenMask tokens = *local.tokens;
  for (const std::size_t root : local.open) {
    const Vocabulary::TreeNode& node = vocabulary_.tree()[root];
    const auto end = static_cast<std::size_t>(node.skip);
    // The bytes before this node are those of any token of its tree.
    const auto depth = static_cast<std::size_t>(node.depth);
    const std::string_view bytes =
        vocabulary_.bytes(vocabulary_.tokens_between(root, end).front()).substr(0, depth);
    States::Id id = position.id_;
    for (std::size_t i = 0; i < bytes.size() && id != States::kDead; ++i) {
      id = states_->next(id, static_cast<std::uint8_t>(bytes[i]));
    }
    if (id != States::kDead) walk(id, root, end, depth, tokens, nullptr);
  }
  const auto mask = std::make_shared<const TokenMask>(std::move(tokens));
  masks_.emplace(position.id_, mask);
  return mask;
}

}  // namespace cachalot::grammar
