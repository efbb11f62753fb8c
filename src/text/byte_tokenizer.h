// A tokenizer whose tokens are bytes: ids 0 to 255 are the bytes themselves, 256 is the
// end-of-sentence token where one is wanted.
//
// It is written as a byte-level BPE without merges, so that whatever reads tokenizer.json reads it.
// There is no BOS and no chat format: a model of bytes learns from what its text holds.
#pragma once

#include "text/spec.h"

namespace cachalot::text {

TokenizerSpec byte_tokenizer(bool with_eos);
TokenizerConfig byte_tokenizer_config(bool with_eos);

}  // namespace cachalot::text
