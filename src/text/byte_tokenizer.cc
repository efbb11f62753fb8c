#include "text/byte_tokenizer.h"

#include "text/byte_level.h"
#include "text/v3_splitter.h"

namespace cachalot::text {

static constexpr const char* kEos = "<｜end▁of▁sentence｜>";
static constexpr std::int32_t kBytes = 256;

TokenizerSpec byte_tokenizer(bool with_eos) {
  TokenizerSpec spec;
  // Without merges the pieces change no id; with them long texts are known to be cut safely.
  spec.patterns = v3_patterns();
  for (std::int32_t byte = 0; byte < kBytes; ++byte) {
    spec.vocab.emplace_back(to_byte_level(std::string(1, static_cast<char>(byte))), byte);
  }
  if (with_eos) {
    spec.vocab.emplace_back(kEos, kBytes);
    spec.added = {{.id = kBytes, .content = kEos, .special = true}};
  }
  return spec;
}

TokenizerConfig byte_tokenizer_config(bool with_eos) {
  TokenizerConfig config;
  if (with_eos) config.eos_token = kEos;
  return config;
}

}  // namespace cachalot::text
