#include "text/byte_level.h"

#include "text/utf8.h"

namespace cachalot::text {

static constexpr bool stands_for_itself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

static constexpr std::array<char32_t, 256> make_alphabet() {
  std::array<char32_t, 256> table{};
  char32_t next = 0x100;
  for (int b = 0; b < 256; ++b) table[b] = stands_for_itself(b) ? b : next++;
  return table;
}

static constexpr std::array<char32_t, 256> kAlphabet = make_alphabet();
static constexpr char32_t kEnd = 0x100 + 68;
static_assert(kAlphabet[0xAD] == kEnd - 1);

static constexpr std::array<short, kEnd> make_inverse() {
  std::array<short, kEnd> table{};
  for (auto& entry : table) entry = -1;
  for (int b = 0; b < 256; ++b) table[kAlphabet[b]] = static_cast<short>(b);
  return table;
}
static constexpr std::array<short, kEnd> kInverse = make_inverse();

const std::array<char32_t, 256>& byte_alphabet() noexcept { return kAlphabet; }

int byte_of(char32_t character) noexcept { return character < kEnd ? kInverse[character] : -1; }

std::string to_byte_level(std::string_view bytes) {
  std::string token;
  for (const char c : bytes) append_utf8(token, kAlphabet[static_cast<unsigned char>(c)]);
  return token;
}

std::optional<std::string> from_byte_level(std::string_view token) {
  std::string bytes;
  bytes.reserve(token.size());
  for (std::size_t at = 0; at < token.size();) {
    const Utf8Step step = utf8_step(token, at);
    const int byte = step.kind == Utf8Step::Kind::kValid ? byte_of(step.code_point) : -1;
    if (byte < 0) return std::nullopt;
    bytes += static_cast<char>(byte);
    at += step.bytes;
  }
  return bytes;
}

}  // namespace cachalot::text
