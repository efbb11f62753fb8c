// A design as files: config.json, and the recipe that trains it.
//
// Errors: kIo (a corpus that is not there, a folder that cannot be written), kConfig (recipes of
//         one name), those of the recipe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "plan/design.h"
#include "train/recipe.h"

namespace cachalot::cli {

// What the text files hold, and how they are read: as bytes, or by a byte-pair vocabulary learned
// from them, larger for more text.
enum class TokenKind : std::uint8_t { kBytes, kBpe };
struct Corpus {
  std::vector<std::string> files;
  double bytes = 0;
  TokenKind kind = TokenKind::kBytes;
  double token_bytes = 0;  // of text in a token; 0: no text was named
  double tokens = 0;       // to train on; a tenth is held out
  int vocabulary = 0;
};
// `vocabulary` of a byte-pair vocabulary; 0: by the size of the text.
Corpus look_at_corpus(const std::vector<std::string>& files, TokenKind kind, int vocabulary = 0);

// A recipe made by hand (its sizes, initial weights, tokens, sequence, batch and learning rate),
// judged by the law that chose the design, on the same text and for the same budget.
struct HandMade {
  std::string name;  // of the recipe's file
  train::Recipe recipe;
  plan::DesignRequest request;  // the design's, with the recipe's own tokens, sequence and batch
  plan::TimedDesign timed;
};
HandMade judge(const std::string& recipe_file, const plan::HardwareProfile& hardware,
               const plan::DesignRequest& request, cost::TrainPrecision precision,
               const Corpus& corpus);

// config.json and recipe.toml of the design, NAME.toml of each recipe made by hand. What no part of
// a design says (dropout, weight decay, beta2, warm-up, final rate, precision, what is held out,
// time) follows the same rules in all of them.
void write_design(const std::string& folder, const plan::HardwareProfile& hardware,
                  const plan::DesignRequest& request, const plan::DesignResult& result,
                  const Corpus& corpus, const std::vector<HandMade>& by_hand);

}  // namespace cachalot::cli
