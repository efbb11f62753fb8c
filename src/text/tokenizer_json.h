// Reads tokenizer.json and tokenizer_config.json of Hugging Face folders.
//
// Threads: pure functions.
// Errors:  kFormat (not JSON, a missing or lying field), kUnsupported (valid, but a model,
//          normaliser, pre-tokenizer or option this reader does not have); the message names file
//          and field. Fuzzed: fuzz/fuzz_tokenizer.cc.
#pragma once

#include <string>
#include <string_view>

#include "text/spec.h"

namespace cachalot::text {

TokenizerSpec parse_tokenizer_json(std::string_view json, const std::string& file_name);
TokenizerConfig parse_tokenizer_config(std::string_view json, const std::string& file_name);

}  // namespace cachalot::text
