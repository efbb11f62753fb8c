// The byte alphabet of GPT-2's BPE: each of the 256 bytes is written as one printable character, so
// that tokens of arbitrary bytes fit in a JSON string. Printable Latin-1 stays itself; the 68 other
// bytes become U+0100, U+0101, ... in rising order.
//
// Threads: constant tables.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace cachalot::text {

// The character of each byte.
const std::array<char32_t, 256>& byte_alphabet() noexcept;
// The byte a character stands for, or -1.
int byte_of(char32_t character) noexcept;

// "Ġthe" from " the", and back; nullopt when some character stands for no byte.
std::string to_byte_level(std::string_view bytes);
std::optional<std::string> from_byte_level(std::string_view token);

}  // namespace cachalot::text
