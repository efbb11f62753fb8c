// tokenizer.json from a stranger, and text for it: the input is the JSON up to the first NUL byte,
// then the text. Also as tokenizer_config.json, as a chat template and as messages.
// Links: text
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "text/chat.h"
#include "text/tokenizer.h"
#include "text/tokenizer_json.h"
#include "text/utf8.h"

using namespace cachalot::text;

// Whatever is not an Error is a defect.
template <class F>
static void tried(F&& run) {
  try {
    run();
  } catch (const cachalot::Error&) {
  }
}

static void check(bool holds) {
  if (!holds) std::abort();
}

static void use(const Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.encode(text);
  StreamDecoder stream(tokenizer);
  std::string streamed;
  for (const std::int32_t id : ids) {
    check(tokenizer.has(id));
    streamed += stream.push(id);
    check(is_valid_utf8(streamed));
  }
  check(streamed + stream.flush() == tokenizer.decode(ids));
  const auto plain = tokenizer.encode_plain(text);
  check(tokenizer.decode_bytes(plain) == replace_invalid_utf8(text));
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const std::size_t zero = all.find('\0');
  const std::string_view json = all.substr(0, zero);
  std::string_view text =
      zero == std::string_view::npos ? "it's 12 o'clock\n" : all.substr(zero + 1);
  text = text.substr(0, 512);
  tried([&] { use(Tokenizer::parse(json, "fuzz"), text); });
  tried([&] { (void)parse_tokenizer_config(json, "fuzz"); });
  tried([&] { (void)ChatFormat::recognise(json, "fuzz"); });
  tried([&] { (void)ChatFormat::v3().render(parse_messages(json), {}, "", ""); });
  return 0;
}
