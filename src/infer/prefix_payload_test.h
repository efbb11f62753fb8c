// Payloads that follow from the tokens before them, so that a test can tell a right block from a
// wrong one without having kept it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "infer/prefix_key.h"

namespace cachalot::infer {

inline std::uint64_t mix(std::uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// What the latent rows are to a model: a function of all tokens up to the end of the block.
inline void fill_payload(std::span<const int> tokens, int block, std::span<std::byte> out) {
  std::uint64_t state = 0;
  for (const int token : tokens.first((static_cast<std::size_t>(block) + 1) * kBlockTokens)) {
    state = mix(state ^ static_cast<std::uint32_t>(token));
  }
  for (std::size_t i = 0; i < out.size(); i += 8) {
    const std::uint64_t word = mix(state + i);
    std::memcpy(out.data() + i, &word, out.size() - i < 8 ? out.size() - i : 8);
  }
}

inline std::vector<std::byte> payload_of(std::span<const int> tokens, int block,
                                         std::size_t bytes) {
  std::vector<std::byte> payload(bytes);
  fill_payload(tokens, block, payload);
  return payload;
}

// A sequence of whole blocks; block i of two sequences is the same where their choices up to i are.
inline std::vector<int> sequence(std::span<const int> choices) {
  std::vector<int> tokens;
  for (const int choice : choices) {
    for (int i = 0; i < kBlockTokens; ++i) tokens.push_back(choice * 1000 + i);
  }
  return tokens;
}

}  // namespace cachalot::infer
