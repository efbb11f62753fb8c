// Names of 64-token blocks: a chain of hashes over the token ids from the start of a sequence,
// which begins with the model's identity. Two sequences share a block's key exactly as far as their
// tokens agree.
//
// Threads: values and const functions; nothing shared.
// Errors:  kUsage for an identity that cannot be right.
//
// XXH3-128 is fast and was not made against malice, so the store never believes a key: every block
// carries its tokens, its parent's key and its position, and is compared before use. Keys are made
// with a secret of the store, so that nobody can prepare two prompts whose keys collide.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot::infer {

inline constexpr int kBlockTokens = 64;  // DeepSeek's API counts cached tokens in the same unit

// Whose rows these are. Blocks of different identities may lie in one store and never meet.
struct PrefixIdentity {
  std::string model;     // fingerprint(...) of what the model is made of
  std::string numerics;  // the cache's precision, and whatever else changes a bit of its rows
  std::size_t payload_bytes =
      0;  // of one block: bytes of a token's rows in all layers * kBlockTokens
};

// 32 hexadecimal digits over all parts, their number and lengths included.
std::string fingerprint(std::span<const std::string_view> parts);

struct BlockKey {
  std::array<std::uint8_t, 16> bytes{};
  bool operator==(const BlockKey&) const = default;
};
struct BlockKeyHash {
  std::size_t operator()(const BlockKey& key) const noexcept;
};

using BlockTokens = std::array<std::int32_t, kBlockTokens>;

// What a block must say of itself to be taken for this place of this sequence.
struct BlockPlace {
  BlockKey key;
  BlockKey parent;  // the key before it; for the first block that of the identity
  std::uint32_t position = 0;
  BlockTokens tokens{};
  bool operator==(const BlockPlace&) const = default;
};

using ChainSecret = std::array<std::uint8_t, 192>;
ChainSecret random_secret();  // kIo where the system has no random numbers

class KeyChain {
 public:
  KeyChain(const PrefixIdentity& identity, const ChainSecret& secret);

  const BlockKey& root() const noexcept { return root_; }
  std::size_t payload_bytes() const noexcept { return payload_bytes_; }
  // One place per whole block of `tokens`; tokens after the last whole block have none.
  std::vector<BlockPlace> places(std::span<const int> tokens) const;

 private:
  BlockKey hash(const void* data, std::size_t bytes) const noexcept;

  ChainSecret secret_;
  BlockKey root_;
  std::size_t payload_bytes_;
};

}  // namespace cachalot::infer
