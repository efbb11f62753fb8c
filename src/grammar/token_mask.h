// A set of tokens, one bit each.
//
// Threads: values. Errors: none.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace cachalot::grammar {

class TokenMask {
 public:
  explicit TokenMask(int size = 0) : words_((static_cast<std::size_t>(size) + 63) / 64) {}
  bool has(std::int32_t token) const noexcept {
    const auto t = static_cast<std::size_t>(token);
    return t / 64 < words_.size() && (words_[t / 64] >> (t % 64) & 1) != 0;
  }
  void set(std::int32_t token) noexcept {
    const auto t = static_cast<std::size_t>(token);
    words_[t / 64] |= std::uint64_t{1} << (t % 64);
  }
  int count() const noexcept {
    int bits = 0;
    for (const std::uint64_t word : words_) bits += std::popcount(word);
    return bits;
  }
  bool operator==(const TokenMask&) const = default;

 private:
  std::vector<std::uint64_t> words_;
};

}  // namespace cachalot::grammar
