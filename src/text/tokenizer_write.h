// Writes tokenizer.json and tokenizer_config.json as the Hugging Face libraries read them.
//
// Errors: kIo. Each file is whole or not there.
#pragma once

#include <filesystem>
#include <string>

#include "text/spec.h"

namespace cachalot::text {

std::string tokenizer_json(const TokenizerSpec& spec);
std::string tokenizer_config_json(const TokenizerConfig& config);

// Both files, into a folder that exists.
void write_tokenizer(const std::filesystem::path& folder, const TokenizerSpec& spec,
                     const TokenizerConfig& config);

}  // namespace cachalot::text
