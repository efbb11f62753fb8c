// A design as files: config.json, and the recipe that trains it.
//
// Errors: kIo (a corpus that is not there, a folder that cannot be written), those of the recipe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "plan/design.h"

namespace cachalot::cli {

// What the text files hold, and how they are read: as bytes, or by a byte-pair vocabulary learned
// from them, larger for more text.
enum class TokenKind : std::uint8_t { kBytes, kBpe };
struct Corpus {
  std::vector<std::string> files;
  double bytes = 0;
  TokenKind kind = TokenKind::kBytes;
  double tokens = 0;  // to train on; a tenth is held out
  int vocabulary = 0;
};
Corpus look_at_corpus(const std::vector<std::string>& files, TokenKind kind);

void write_design(const std::string& folder, const plan::HardwareProfile& hardware,
                  const plan::DesignRequest& request, const plan::DesignResult& result,
                  const Corpus& corpus);

}  // namespace cachalot::cli
