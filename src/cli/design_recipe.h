// A design as files: config.json, and the recipe that trains it.
//
// Errors: kIo (a corpus that is not there, a folder that cannot be written), those of the recipe.
#pragma once

#include <string>
#include <vector>

#include "plan/design.h"

namespace cachalot::cli {

// What the text files hold, and how they are read: as bytes where there is little text, since a
// model that sees it in larger pieces sees fewer of them and learns them by heart.
struct Corpus {
  std::vector<std::string> files;
  double bytes = 0;
  double tokens = 0;  // to train on; a tenth is held out
  bool byte_tokens = false;
  int vocabulary = 0;
};
Corpus look_at_corpus(const std::vector<std::string>& files);

void write_design(const std::string& folder, const plan::HardwareProfile& hardware,
                  const plan::DesignRequest& request, const plan::DesignResult& result,
                  const Corpus& corpus);

}  // namespace cachalot::cli
