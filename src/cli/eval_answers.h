// cachalot eval --conversations: how well a model knows the answers of conversations.
#pragma once

#include <string>

#include "cli/cache_options.h"
#include "cli/session.h"

namespace cachalot::cli {

// Prints its scores, as text or JSON.
void eval_answers(const Session& session, const std::string& file, int context,
                  const CacheOptions& cache, bool json);

}  // namespace cachalot::cli
