// The model a recipe asks for: its config, and where its first weights come from.
//
// Errors:  kConfig / kFormat from a config.json or folder the recipe names.
#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"
#include "model/parameters.h"
#include "train/recipe.h"

namespace cachalot::train {

// Of the tokenizer that the data is cut with. The recipe's own vocab_size wins where it is set and
// not smaller; the model's beginning and end of a text are the tokenizer's, unless the model is one
// that goes on with its own tokenizer (init_from alone, or a data.tokenizer that is the same).
struct TokenizerFacts {
  int vocab_size = 0;
  int bos = -1;  // -1: it has none
  int eos = -1;
  bool known = false;  // there is a tokenizer, so bos and eos say something
};
// Of `init_from` an MTP layer that its files lack is left out. kConfig where sequences are longer
// than the model's context.
model::Config model_config(const Recipe& recipe, const TokenizerFacts& tokenizer);

// The tokens that end a text of the model: those of its config, and of a model that goes on with
// its own tokenizer also those that only the generation_config.json of `init_from` names.
std::vector<std::int32_t> end_tokens(const Recipe& recipe, const model::Config& config);

// Fresh weights: from `model.init_from`, or drawn with the recipe's seed, init_std and
// init_embedding_mean.
void initialise(const Context& ctx, const Recipe& recipe, model::Parameters& parameters);

}  // namespace cachalot::train
