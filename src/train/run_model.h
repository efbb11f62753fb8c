// The model a recipe asks for: its config, and where its first weights come from.
//
// Errors:  kConfig / kFormat from a config.json or folder the recipe names.
#pragma once

#include "model/config.h"
#include "model/parameters.h"
#include "train/recipe.h"

namespace cachalot::train {

// `vocab_size`, `bos`, `eos`: of the tokenizer. The recipe's own vocab_size wins where it is set
// and not smaller.
struct TokenizerFacts {
  int vocab_size = 0;
  int bos = -1;
  int eos = -1;
};
model::Config model_config(const Recipe& recipe, const TokenizerFacts& tokenizer);

// Fresh weights: from `model.init_from`, or drawn with the recipe's seed and init_std.
void initialise(const Context& ctx, const Recipe& recipe, model::Parameters& parameters);

}  // namespace cachalot::train
