#include "text/char_class.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "text/regex.h"
#include "text/utf8.h"

namespace cachalot::text {

static bool is_white_space(char32_t c) {
  return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

static bool is_cjk(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FA5) || (c >= 0x3040 && c <= 0x30FF);
}

// Asks the regex engine about each character of one page.
static void fill_page(std::uint32_t page, std::uint8_t* out) {
  static const Regex kLetters("\\p{L}"), kMarks("\\p{M}"), kNumbers("\\p{N}"),
      kPuncts("[\\p{P}\\p{S}]");
  RegexScratch scratch;
  for (std::uint32_t i = 0; i < 256; ++i) {
    const char32_t c = page << 8 | i;
    std::uint8_t bits = is_cjk(c) ? kCjk : 0;
    const bool surrogate = c >= 0xD800 && c < 0xE000;
    if (c == '\r' || c == '\n') {
      bits |= kNewline;
    } else if (is_white_space(c)) {
      bits |= kSpace;
    } else if (!surrogate) {
      std::string one;
      append_utf8(one, c);
      std::size_t begin = 0, end = 0;
      const auto is = [&](const Regex& regex) { return regex.find(one, 0, scratch, begin, end); };
      if (is(kLetters)) bits |= kLetter;
      if (is(kMarks)) bits |= kMark;
      if (is(kNumbers)) bits |= kNumber;
      if (is(kPuncts)) bits |= kPunct;
    }
    out[i] = bits;
  }
}

// The pages live as long as the process; this owner keeps leak checkers and readers content.
static std::mutex g_pages_mutex;
static std::vector<std::unique_ptr<std::uint8_t[]>>& page_store() {
  static auto* store = new std::vector<std::unique_ptr<std::uint8_t[]>>;
  return *store;
}

CharClasses::CharClasses() { std::copy_n(make_page(0), 128, ascii_.begin()); }

const CharClasses& CharClasses::instance() {
  static const CharClasses classes;
  return classes;
}

const std::uint8_t* CharClasses::make_page(std::uint32_t page) const {
  const std::lock_guard lock(g_pages_mutex);
  if (const auto* made = pages_[page].load(std::memory_order_acquire)) return made;
  auto bytes = std::make_unique<std::uint8_t[]>(256);
  fill_page(page, bytes.get());
  const std::uint8_t* ready = bytes.get();
  page_store().push_back(std::move(bytes));
  pages_[page].store(ready, std::memory_order_release);
  return ready;
}

}  // namespace cachalot::text
