// The nearest of some words, where the caller says what is near (base/error.h has it for errors).
//
// Threads: any. Errors: none.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace cachalot {

// The candidate nearest to `word`, at most `most` edits from it, or "".
std::string nearest_within(std::size_t most, std::string_view word, const std::string_view* begin,
                           const std::string_view* end);

}  // namespace cachalot
