#include "text/bpe.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <queue>

namespace cachalot::text {

static std::uint64_t pair_key(std::int32_t left, std::int32_t right) noexcept {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}
static std::uint64_t mix(std::uint64_t key) noexcept {
  key *= 0x9E3779B97F4A7C15u;
  return key ^ key >> 29;
}

Bpe::Bpe(const std::array<std::int32_t, 256>& byte_tokens, std::span<const Merge> merges)
    : byte_tokens_(byte_tokens) {
  const std::size_t size = std::bit_ceil(std::max<std::size_t>(merges.size() * 2, 16));
  slots_.assign(size, {kFree, 0, 0});
  mask_ = size - 1;
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const std::uint64_t key = pair_key(merges[i].left, merges[i].right);
    std::uint64_t at = mix(key) & mask_;
    while (slots_[at].key != kFree && slots_[at].key != key) at = (at + 1) & mask_;
    slots_[at] = {key, static_cast<std::int32_t>(i), merges[i].joined};
  }
}

const Bpe::Slot* Bpe::find(std::int32_t left, std::int32_t right) const noexcept {
  const std::uint64_t key = pair_key(left, right);
  for (std::uint64_t at = mix(key) & mask_;; at = (at + 1) & mask_) {
    if (slots_[at].key == key) return &slots_[at];
    if (slots_[at].key == kFree) return nullptr;
  }
}

// Words are short: looking through all ranks for the lowest beats a heap.
static constexpr std::size_t kShort = 96;

void Bpe::encode(std::string_view piece, std::vector<std::int32_t>& out) const {
  const std::size_t from = out.size();
  out.resize(from + piece.size());
  for (std::size_t i = 0; i < piece.size(); ++i) {
    out[from + i] = byte_tokens_[static_cast<unsigned char>(piece[i])];
  }
  const std::size_t left =
      piece.size() <= kShort ? merge_short(out.data() + from, piece.size()) : merge_long(out, from);
  out.resize(from + left);
}

std::size_t Bpe::merge_short(std::int32_t* tokens, std::size_t n) const {
  std::int32_t ranks[kShort];  // of the pair (i, i + 1)
  for (std::size_t i = 0; i + 1 < n; ++i) ranks[i] = rank(tokens[i], tokens[i + 1]);
  while (n > 1) {
    const std::size_t best = std::min_element(ranks, ranks + n - 1) - ranks;
    if (ranks[best] == kNoRank) break;
    tokens[best] = find(tokens[best], tokens[best + 1])->joined;
    std::copy(tokens + best + 2, tokens + n, tokens + best + 1);
    // Pair best+1 now begins at the joined token: its rank is set below.
    std::copy(ranks + best + 1, ranks + n - 1, ranks + best);
    --n;
    if (best + 1 < n) ranks[best] = rank(tokens[best], tokens[best + 1]);
    if (best > 0) ranks[best - 1] = rank(tokens[best - 1], tokens[best]);
  }
  return n;
}

// A long piece (a megabyte of one letter, say) would cost n^2 there; here n log n, with a heap of
// pairs over a linked list. An entry whose pair has changed since is skipped.
std::size_t Bpe::merge_long(std::vector<std::int32_t>& out, std::size_t from) const {
  struct Link {
    std::int32_t token;
    std::int64_t before, behind;
  };
  struct Candidate {
    std::int32_t rank;
    std::int64_t left;
    std::int32_t left_token, right_token;
    bool operator<(const Candidate& other) const {  // the queue's top is its largest
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  const auto n = static_cast<std::int64_t>(out.size() - from);
  std::vector<Link> links(n);
  std::priority_queue<Candidate> queue;
  const auto consider = [&](std::int64_t left) {
    if (left < 0 || links[left].behind >= n) return;
    const std::int32_t a = links[left].token, b = links[links[left].behind].token;
    if (const std::int32_t r = rank(a, b); r != kNoRank) queue.push({r, left, a, b});
  };
  for (std::int64_t i = 0; i < n; ++i) links[i] = {out[from + i], i - 1, i + 1};
  for (std::int64_t i = 0; i + 1 < n; ++i) consider(i);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Link& left = links[top.left];
    if (left.token != top.left_token || left.behind >= n ||
        links[left.behind].token != top.right_token) {
      continue;
    }
    Link& right = links[left.behind];
    left.token = find(top.left_token, top.right_token)->joined;
    left.behind = right.behind;
    right.token = -1;  // gone: no candidate names it any more
    if (left.behind < n) links[left.behind].before = top.left;
    consider(left.before);
    consider(top.left);
  }
  std::size_t count = 0;
  for (std::int64_t i = 0; i < n; i = links[i].behind) out[from + count++] = links[i].token;
  return count;
}

BpeCache::BpeCache() : entries_(kEntries) {}

BpeCache::Entry* BpeCache::find(std::string_view piece) noexcept {
  if (piece.size() > kMaxBytes) return nullptr;
  return &entries_[XXH3_64bits(piece.data(), piece.size()) & (kEntries - 1)];
}

bool BpeCache::same(const Entry& entry, std::string_view piece) noexcept {
  return std::memcmp(entry.bytes, piece.data(), piece.size()) == 0;
}

void BpeCache::keep(Entry& entry, std::string_view piece,
                    std::span<const std::int32_t> tokens) noexcept {
  if (tokens.size() > kMaxTokens) return;
  std::copy(tokens.begin(), tokens.end(), entry.tokens);
  std::copy(piece.begin(), piece.end(), entry.bytes);
  entry.length = static_cast<std::uint8_t>(piece.size());
  entry.count = static_cast<std::uint8_t>(tokens.size());
}

}  // namespace cachalot::text
