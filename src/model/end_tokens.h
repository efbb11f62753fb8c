// The tokens that end a text, of a model folder: config.json has them, and the
// generation_config.json of a chat model more, with which only its answers end.
//
// Threads: reads a file; nothing shared.
// Errors:  kIo, and kFormat for a generation_config.json that is no JSON object or whose
//          eos_token_id is neither a token id nor a list of them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "model/config.h"

namespace cachalot::model {

// Those of `config`, which is the folder's, then what only its generation_config.json names.
std::vector<std::int32_t> end_tokens(const Config& config, const std::filesystem::path& folder);

}  // namespace cachalot::model
