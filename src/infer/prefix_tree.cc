#include "infer/prefix_tree.h"

#include "infer/prefix_record.h"

namespace cachalot::infer {

struct PrefixTree::Node {
  BlockPtr block;
  Node* parent = nullptr;
  std::uint64_t on_disk = kNotOnDisk;
  std::uint32_t children = 0;
  std::uint32_t pins = 0;   // of this block or one below it
  Recency::iterator place;  // in recency_ while pins == 0
};

PrefixTree::PrefixTree(std::size_t budget_bytes)
    : budget_(budget_bytes), nodes_(std::make_unique<Nodes>()) {}
PrefixTree::~PrefixTree() = default;

std::size_t PrefixTree::bytes_of(const Block& block) noexcept {
  // The slot of a payload holds its record as it lies on disk; the map's link and bucket, the
  // list's link and the allocator's heads are about 160 bytes.
  return record_slot_bytes(block.payload.size()) + sizeof(Block) + sizeof(Node) + 160;
}

PrefixTree::Node* PrefixTree::lookup(const BlockPlace& place) {
  const auto found = nodes_->find(place.key);
  if (found == nodes_->end() || !(found->second.block->place == place)) return nullptr;
  return &found->second;
}

PrefixTree::Found PrefixTree::find(const BlockPlace& place) const {
  const std::lock_guard lock(mutex_);
  const auto found = nodes_->find(place.key);
  if (found == nodes_->end() || !(found->second.block->place == place)) return {};
  return {found->second.block, found->second.on_disk};
}

PrefixTree::Insert PrefixTree::insert(const BlockPtr& block, std::uint64_t on_disk) {
  const std::size_t bytes = bytes_of(*block);
  std::vector<BlockPtr> evicted;  // freed after the lock: a payload may be megabytes
  const std::lock_guard lock(mutex_);
  if (nodes_->contains(block->place.key)) return Insert::kPresent;
  Node* parent = nullptr;
  if (block->place.position > 0) {
    const auto found = nodes_->find(block->place.parent);
    if (found == nodes_->end()) return Insert::kNoParent;
    parent = &found->second;
  }
  if (!make_room(bytes, parent, evicted)) return Insert::kNoRoom;
  Node& node = (*nodes_)[block->place.key];  // nodes never move in the map
  node.block = block;
  node.parent = parent;
  node.on_disk = on_disk;
  // Right behind its parent: as recent as it, and never before it.
  auto where = recency_.begin();
  if (parent != nullptr) {
    ++parent->children;
    if (parent->pins == 0) where = std::next(parent->place);
  }
  node.place = recency_.insert(where, &node);
  size_.bytes += bytes;
  ++size_.blocks;
  return Insert::kInserted;
}

bool PrefixTree::make_room(std::size_t bytes, const Node* parent, std::vector<BlockPtr>& evicted) {
  // What cannot fit even alone beside the pinned blocks should not empty the tree first.
  if (bytes > budget_ || size_.pinned_bytes > budget_ - bytes) return false;
  while (size_.bytes > budget_ - bytes) {
    // The last has no child: a child would stand behind it, and a pinned child would have pinned
    // it.
    if (recency_.empty() || recency_.back() == parent) return false;
    evicted.push_back(evict(*recency_.back()));
  }
  return true;
}

BlockPtr PrefixTree::evict(Node& node) {
  BlockPtr block = std::move(node.block);
  if (node.parent != nullptr) --node.parent->children;
  size_.bytes -= bytes_of(*block);
  --size_.blocks;
  ++size_.evicted;
  recency_.erase(node.place);
  nodes_->erase(block->place.key);
  return block;
}

void PrefixTree::set_on_disk(const BlockKey& key, std::uint64_t stamp) {
  const std::lock_guard lock(mutex_);
  const auto found = nodes_->find(key);
  if (found != nodes_->end()) found->second.on_disk = stamp;
}

void PrefixTree::move_to_front(Node& node) {
  recency_.splice(recency_.begin(), recency_, node.place);
}

void PrefixTree::touch(std::span<const BlockPlace> path) {
  const std::lock_guard lock(mutex_);
  for (std::size_t i = path.size();
       i-- > 0;) {  // the deepest first, so that each ends before its children
    Node* node = lookup(path[i]);
    if (node != nullptr && node->pins == 0) move_to_front(*node);
  }
}

std::size_t PrefixTree::pin(std::span<const BlockPlace> path) {
  const std::lock_guard lock(mutex_);
  std::size_t pinned = 0;
  for (; pinned < path.size(); ++pinned) {
    Node* node = lookup(path[pinned]);
    if (node == nullptr) break;
    if (node->pins++ == 0) {
      recency_.erase(node->place);
      size_.pinned_bytes += bytes_of(*node->block);
    }
  }
  return pinned;
}

void PrefixTree::unpin(std::span<const BlockPlace> path) {
  const std::lock_guard lock(mutex_);
  for (std::size_t i = path.size(); i-- > 0;) {
    Node* node = lookup(path[i]);  // pinned blocks are never evicted
    if (--node->pins == 0) {
      node->place = recency_.insert(recency_.begin(), node);
      size_.pinned_bytes -= bytes_of(*node->block);
    }
  }
}

PrefixTree::Size PrefixTree::size() const {
  const std::lock_guard lock(mutex_);
  return size_;
}

}  // namespace cachalot::infer
