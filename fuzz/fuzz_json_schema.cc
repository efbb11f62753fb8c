// Schemas from strangers: each is refused in words that can be told to anyone, or becomes a grammar
// whose texts are JSON.
// Links: grammar
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"
#include "grammar/automaton.h"
#include "grammar/json_schema.h"
#include "grammar/sample_text_test.h"
#include "text/utf8.h"

using namespace cachalot;  // NOLINT: a fuzzer of one room

static void require(bool truth) {
  if (!truth) std::abort();
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t kCheap = 2000;  // expressions of a grammar that is sampled
  const std::string_view schema(reinterpret_cast<const char*>(data), size);
  grammar::Grammar g;
  try {
    g.set_root(grammar::add_json_schema(g, schema));
    grammar::compile(g);
  } catch (const Error& e) {
    require(e.code() == Code::kUsage || e.code() == Code::kUnsupported);
    require(text::is_valid_utf8(e.what()));
    require(std::string_view(e.what()).size() < 1000);
    return 0;
  }
  if (g.size() > kCheap) return 0;
  const auto text = grammar::SampleText(g).make(static_cast<unsigned>(size), 100);
  require(text.has_value());  // it compiled, so something matches
  require(nlohmann::json::accept(*text));
  return 0;
}
