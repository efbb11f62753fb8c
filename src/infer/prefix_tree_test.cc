#include "infer/prefix_tree.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <thread>

#include "base/rng.h"
#include "infer/prefix_case_test.h"

namespace cachalot::infer {
namespace {

using Insert = PrefixTree::Insert;

const KeyChain& chain() {
  static const KeyChain kChain({"model", "bf16", 1000}, ChainSecret{});
  return kChain;
}

std::vector<BlockPtr> blocks(std::vector<int> choices) {
  return blocks_of(chain(), sequence(choices));
}
std::vector<BlockPlace> path(std::vector<int> choices) { return chain().places(sequence(choices)); }
std::size_t one() { return PrefixTree::bytes_of(*blocks({1})[0]); }

TEST(PrefixTreeTest, FindsWhatWasPutIn) {
  PrefixTree tree(1 << 20);
  const auto ab = blocks({1, 2});
  EXPECT_FALSE(tree.find(ab[0]->place).block);
  EXPECT_EQ(tree.insert(ab[1], 5), Insert::kNoParent);
  EXPECT_EQ(tree.insert(ab[0], kNotOnDisk), Insert::kInserted);
  EXPECT_EQ(tree.insert(ab[1], 5), Insert::kInserted);
  EXPECT_EQ(tree.insert(ab[1], 6), Insert::kPresent);
  EXPECT_EQ(tree.find(ab[1]->place).block, ab[1]);
  EXPECT_EQ(tree.find(ab[1]->place).on_disk, 5u);
  tree.set_on_disk(ab[1]->place.key, 9);
  EXPECT_EQ(tree.find(ab[1]->place).on_disk, 9u);
  EXPECT_FALSE(tree.find(path({1, 3})[1]).block);
  // The right key is not enough.
  BlockPlace forged = ab[1]->place;
  forged.tokens[63] ^= 1;
  EXPECT_FALSE(tree.find(forged).block);
  EXPECT_EQ(tree.size().blocks, 2u);
  EXPECT_EQ(tree.size().bytes, 2 * one());
}

TEST(PrefixTreeTest, TheLeastRecentLeafGoesFirst) {
  PrefixTree tree(4 * one());
  for (const auto& b : blocks({1, 2})) tree.insert(b, 0);
  for (const auto& b : blocks({3, 4})) tree.insert(b, 0);
  tree.touch(path({1, 2}));
  EXPECT_EQ(tree.insert(blocks({5})[0], 0), Insert::kInserted);
  EXPECT_TRUE(tree.find(path({3})[0]).block);  // a leaf goes before what is above it
  EXPECT_FALSE(tree.find(path({3, 4})[1]).block);
  EXPECT_EQ(tree.insert(blocks({6})[0], 0), Insert::kInserted);
  EXPECT_FALSE(tree.find(path({3})[0]).block);
  EXPECT_TRUE(tree.find(path({1, 2})[1]).block);
  EXPECT_EQ(tree.size().evicted, 2u);
}

TEST(PrefixTreeTest, NeverEvictsAboveTheNewBlock) {
  PrefixTree tree(3 * one());
  const auto all = blocks({1, 2, 3, 4});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(tree.insert(all[i], 0), Insert::kInserted);
  EXPECT_EQ(tree.insert(all[3], 0), Insert::kNoRoom);
  EXPECT_EQ(tree.size().blocks, 3u);
  EXPECT_EQ(PrefixTree(one() - 1).insert(all[0], 0), Insert::kNoRoom);
  EXPECT_EQ(PrefixTree(0).insert(all[0], 0), Insert::kNoRoom);
}

TEST(PrefixTreeTest, PinnedPathsStay) {
  PrefixTree tree(3 * one());
  for (const auto& b : blocks({1, 2, 3})) tree.insert(b, 0);
  EXPECT_EQ(tree.pin(path({1, 2, 9})), 2u);
  EXPECT_EQ(tree.size().pinned_bytes, 2 * one());
  EXPECT_EQ(tree.insert(blocks({4})[0], 0), Insert::kInserted);  // in the place of 3
  EXPECT_EQ(tree.insert(blocks({5})[0], 0), Insert::kInserted);  // in the place of 4
  EXPECT_EQ(tree.insert(blocks({5, 6})[1], 0), Insert::kNoRoom);
  EXPECT_EQ(tree.pin(path({1})), 1u);  // a second pin
  tree.unpin(path({1, 2}));
  EXPECT_EQ(tree.size().pinned_bytes, one());
  tree.touch(path({5}));
  EXPECT_EQ(tree.insert(blocks({5, 6})[1], 0), Insert::kInserted);  // in the place of 2
  EXPECT_TRUE(tree.find(path({1})[0]).block);
  tree.unpin(path({1}));
  EXPECT_EQ(tree.size().pinned_bytes, 0u);
}

// Random operations; after each, what must always hold, from the outside.
TEST(PrefixTreeTest, HoldsItsInvariants) {
  const Rng rng(7);
  std::uint64_t at = 0;
  const auto below = [&](std::uint64_t n) { return static_cast<int>(rng.below(at++, n)); };
  for (const std::size_t room : {1, 3, 10, 40}) {
    PrefixTree tree(room * one() + one() / 2);
    std::vector<std::vector<BlockPlace>> pins;
    std::map<std::vector<int>, BlockPtr> made;  // every path ever put in
    for (int step = 0; step < 3000; ++step) {
      std::vector<int> choices;
      for (int n = 1 + below(5); n > 0; --n) choices.push_back(below(3));
      const auto places = path(choices);
      switch (below(5)) {
        case 0:
        case 1:
          for (const BlockPtr& b : blocks(choices)) {
            tree.insert(b, 0);
            made[{choices.begin(), choices.begin() + b->place.position + 1}] = b;
          }
          break;
        case 2:
          tree.touch(places);
          break;
        case 3:
          pins.push_back({places.begin(), places.begin() + static_cast<long>(tree.pin(places))});
          break;
        default:
          if (pins.empty()) break;
          std::swap(pins.back(), pins[static_cast<std::size_t>(below(pins.size()))]);
          tree.unpin(pins.back());
          pins.pop_back();
      }
      std::size_t here = 0;
      std::set<std::size_t> pinned;
      for (const auto& [choice, block] : made) {
        const auto found = tree.find(block->place).block;
        if (!found) continue;
        ++here;
        EXPECT_TRUE(std::equal(found->payload.begin(), found->payload.end(), block->payload.begin(),
                               block->payload.end()));
        if (choice.size() > 1) {  // closed upwards
          EXPECT_TRUE(tree.find(made.at({choice.begin(), choice.end() - 1})->place).block);
        }
      }
      for (const auto& pin : pins) {
        for (const BlockPlace& place : pin) {
          EXPECT_TRUE(tree.find(place).block);
          std::size_t word;
          std::memcpy(&word, place.key.bytes.data(), sizeof word);
          pinned.insert(word);
        }
      }
      EXPECT_EQ(tree.size().blocks, here);
      EXPECT_EQ(tree.size().bytes, here * one());
      EXPECT_LE(tree.size().blocks, room);
      EXPECT_EQ(tree.size().pinned_bytes, pinned.size() * one());
    }
  }
}

TEST(PrefixTreeTest, ManyThreads) {
  PrefixTree tree(8 * one());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const Rng rng(static_cast<std::uint64_t>(t));
      for (std::uint64_t i = 0; i < 300; ++i) {
        const std::vector<int> choices{static_cast<int>(rng.below(3 * i, 4)),
                                       static_cast<int>(rng.below(3 * i + 1, 4))};
        const auto places = path(choices);
        for (const BlockPtr& b : blocks(choices)) tree.insert(b, 0);
        const std::size_t pinned = tree.pin(places);
        for (std::size_t k = 0; k < pinned; ++k) EXPECT_TRUE(tree.find(places[k]).block);
        tree.touch(places);
        tree.unpin(std::span(places).first(pinned));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(tree.size().pinned_bytes, 0u);
  EXPECT_LE(tree.size().blocks, 8u);
}

}  // namespace
}  // namespace cachalot::infer
