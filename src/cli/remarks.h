// What is odd about a model without being wrong, said on standard error.
#pragma once

#include <string>
#include <vector>

namespace cachalot::cli {

// One warning for each: keys of a config.json that look misspelt, an MTP layer that is promised and
// not there (model/config.h, model/weights.h).
void say_remarks(const std::vector<std::string>& remarks);

}  // namespace cachalot::cli
