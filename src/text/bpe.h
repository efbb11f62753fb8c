// Byte-pair merging of one piece: the pair of the lowest rank is joined first, the leftmost of
// equal ones, until no adjacent pair is in the table.
//
// Owns:    the merge table: a flat hash from (left, right) to (rank, joined token).
// Threads: read-only after construction; BpeCache belongs to one thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace cachalot::text {

struct Merge {
  std::int32_t left, right, joined;
};

class Bpe {
 public:
  // `byte_tokens[b]` is the token of the lone byte b; merges in falling priority.
  Bpe(const std::array<std::int32_t, 256>& byte_tokens, std::span<const Merge> merges);

  // Appends the tokens of one piece.
  void encode(std::string_view piece, std::vector<std::int32_t>& out) const;

 private:
  struct Slot {
    std::uint64_t key;
    std::int32_t rank;
    std::int32_t joined;
  };
  static constexpr std::uint64_t kFree = ~std::uint64_t{0};
  static constexpr std::int32_t kNoRank = 0x7FFFFFFF;
  const Slot* find(std::int32_t left, std::int32_t right) const noexcept;
  std::int32_t rank(std::int32_t left, std::int32_t right) const noexcept {
    const Slot* slot = find(left, right);
    return slot != nullptr ? slot->rank : kNoRank;
  }
  std::size_t merge_short(std::int32_t* tokens, std::size_t n) const;
  std::size_t merge_long(std::vector<std::int32_t>& tokens, std::size_t from) const;

  std::array<std::int32_t, 256> byte_tokens_;
  std::vector<Slot> slots_;
  std::uint64_t mask_ = 0;
};

// Remembers the tokens of recent pieces. Bounded: a new piece takes the slot of an older one.
class BpeCache {
 public:
  BpeCache();
  // Appends the tokens of `piece`, from memory or from `encode(piece, out)`.
  template <class Encode>
  void get(std::string_view piece, std::vector<std::int32_t>& out, Encode&& encode) {
    Entry* entry = find(piece);
    if (entry != nullptr && entry->length == piece.size() && same(*entry, piece)) {
      out.insert(out.end(), entry->tokens, entry->tokens + entry->count);
      return;
    }
    const std::size_t before = out.size();
    encode(piece, out);
    if (entry != nullptr) keep(*entry, piece, std::span(out).subspan(before));
  }

 private:
  static constexpr std::size_t kMaxBytes = 30, kMaxTokens = 8, kEntries = 1 << 15;
  struct alignas(64) Entry {
    std::int32_t tokens[kMaxTokens];
    char bytes[kMaxBytes];
    std::uint8_t length;  // 0: free
    std::uint8_t count;
  };
  Entry* find(std::string_view piece) noexcept;  // nullptr: too long to keep
  static bool same(const Entry& entry, std::string_view piece) noexcept;
  static void keep(Entry& entry, std::string_view piece,
                   std::span<const std::int32_t> tokens) noexcept;
  std::vector<Entry> entries_;
};

}  // namespace cachalot::text
