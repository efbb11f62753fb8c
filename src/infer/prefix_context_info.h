// What a caller says and learns about named contexts.
//
// Threads: values.
// Errors:  kUsage for a name that cannot be one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace cachalot::infer {

struct ContextLife {
  std::int64_t ttl_seconds = 0;  // from the save on; 0: for ever
  std::int64_t quota_bytes = 0;  // the payload it may keep; 0: what the store allows
};

struct SavedContext {
  enum class Outcome {
    kSaved,
    kNothing,    // no whole block of it is in the store
    kOverQuota,  // more than its own quota; nothing was changed
    kFull,       // more than is left for all contexts; nothing was changed
  };
  Outcome outcome = Outcome::kNothing;
  std::int64_t tokens = 0;  // kept, or that would have been
  std::int64_t bytes = 0;   // of their payload
  std::string text;  // for a person, where the outcome is not kSaved: met, needed, what to do
};

struct ContextInfo {
  std::string name;
  std::int64_t tokens = 0;
  std::int64_t missing = 0;  // tokens of blocks that were damaged; saving it again brings them back
  std::int64_t bytes = 0;    // of its payload; parts may be shared with other contexts
  std::int64_t quota = 0;
  std::int64_t saved = 0;    // seconds since 1970
  std::int64_t expires = 0;  // 0: never
  bool pinned = false;
  bool usable = false;  // saved by the model, numerics and code that have the store open now
};

void check_context_name(std::string_view name);  // kUsage

}  // namespace cachalot::infer
