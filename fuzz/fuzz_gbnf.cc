// Grammars from strangers, up to a NUL; what is behind it is a text. A grammar is read, or refused
// by an error that can be told to anyone; the text is accepted or not, and where it is, so are its
// beginnings.
// Links: grammar
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "base/fields_text.h"
#include "grammar/accepts.h"
#include "grammar/automaton.h"
#include "grammar/gbnf.h"

using namespace cachalot;  // NOLINT: a fuzzer of one room

static void require(bool truth) {
  if (!truth) std::abort();
}

static void require_tellable(const Error& e) {
  const std::string_view text = e.what();
  require(e.code() == Code::kUsage || e.code() == Code::kUnsupported);
  require(valid_utf8(text));
  require(text.size() < 1000);
  for (const char c : text) require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const std::string_view text = all.substr(0, all.find('\0'));
  const std::string_view written = all.substr(std::min(text.size() + 1, all.size()));
  try {
    const grammar::Automaton automaton =
        grammar::compile(grammar::parse_gbnf(text), [](std::string_view content) {
          return content.size() < 10 ? std::optional<std::int32_t>(1000) : std::nullopt;
        });
    if (written.size() > 12 || !grammar::accepts(automaton, written)) return 0;
    for (std::size_t n = 0; n <= written.size(); ++n) {
      require(grammar::accepts_prefix(automaton, written.substr(0, n)));
    }
  } catch (const Error& e) {
    require_tellable(e);
  }
  return 0;
}
