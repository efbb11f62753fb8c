// The part of the prefix store in RAM: a radix tree whose edges are blocks of 64 tokens, under a
// budget of bytes.
//
// A node is reached by its key, the hash of all tokens up to its end, so going down the tree is one
// probe per block. The tree is closed upwards: a block is in it only while its parent is, and the
// least recently used leaf goes first.
//
// Owns:    a share of each block it holds; a BlockPtr keeps its block alive after the eviction.
// Threads: any; one lock, held for pointer work only, never while payloads are copied or read.
// Errors:  none; no room is a return value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "infer/prefix_key.h"

namespace cachalot::infer {

struct Block {
  BlockPlace place;
  std::span<const std::byte> payload;
  std::shared_ptr<const void> owner;  // of the payload's memory
};
using BlockPtr = std::shared_ptr<const Block>;

// What is known of a block's copy on disk.
inline constexpr std::uint64_t kNotOnDisk = 0;
inline constexpr std::uint64_t kOnItsWay = ~std::uint64_t{0};

class PrefixTree {
 public:
  explicit PrefixTree(std::size_t budget_bytes);
  ~PrefixTree();
  PrefixTree(const PrefixTree&) = delete;
  PrefixTree& operator=(const PrefixTree&) = delete;

  struct Found {
    BlockPtr block;                      // null: not here, or another chain has its key
    std::uint64_t on_disk = kNotOnDisk;  // the stamp of its record, or one of the two above
  };
  Found find(const BlockPlace& place) const;

  enum class Insert { kInserted, kPresent, kNoParent, kNoRoom };
  // Evicts what it must, but nothing pinned and nothing above the new block.
  Insert insert(const BlockPtr& block, std::uint64_t on_disk);
  void set_on_disk(const BlockKey& key, std::uint64_t stamp);  // nothing where the block has gone

  // A path from a first block on: all of it has been used now.
  void touch(std::span<const BlockPlace> path);
  // Keeps the part of the path that is here from eviction; returns its length in blocks.
  std::size_t pin(std::span<const BlockPlace> path);
  void unpin(std::span<const BlockPlace> path);  // exactly what pin counted

  struct Size {
    std::size_t bytes = 0;
    std::size_t blocks = 0;
    std::size_t pinned_bytes = 0;
    std::uint64_t evicted = 0;
  };
  Size size() const;
  // What a block counts against the budget: its payload and what holds it.
  static std::size_t bytes_of(const Block& block) noexcept;

 private:
  struct Node;
  using Recency =
      std::list<Node*>;  // most recent first; no pinned node, and no node before its parent
  using Nodes = std::unordered_map<BlockKey, Node, BlockKeyHash>;

  Node* lookup(const BlockPlace& place);
  bool make_room(std::size_t bytes, const Node* parent, std::vector<BlockPtr>& evicted);
  BlockPtr evict(Node& node);
  void move_to_front(Node& node);

  const std::size_t budget_;
  mutable std::mutex mutex_;
  std::unique_ptr<Nodes> nodes_;
  Recency recency_;
  Size size_;
};

}  // namespace cachalot::infer
