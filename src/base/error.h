// The one exception of this library, its codes, and what they mean to a shell.
//
// Threads: values; nothing shared.
// Errors:  this is them. Thrown at edges (arguments, files, configuration, peers), never in
// kernels.
//          A message says what was met, what was needed and what to do; tests read it.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace cachalot {

enum class Code {
  kUsage,        // wrong flag, key or argument: the caller's command line or recipe
  kConfig,       // a config.json or recipe value that cannot be right
  kFormat,       // a file's bytes break its format
  kIo,           // the operating system refused: missing file, full disk, permission
  kShape,        // tensors that do not fit each other
  kUnsupported,  // valid, but this build or machine cannot do it
  kBusy,         // someone else holds it (a run folder, a port)
  kNumeric,      // NaN, Inf or divergence
  kInterrupted,  // stopped on request
  kInternal,     // a defect of this program
};

class Error : public std::runtime_error {
 public:
  Error(Code code, const std::string& text) : std::runtime_error(text), code_(code) {}
  Code code() const noexcept { return code_; }

 private:
  Code code_;
};

// 2 for a wrong usage, 1 for everything else.
int exit_status(Code code) noexcept;
std::string_view name(Code code) noexcept;

// Text from parts: cat("row ", 3, " of ", n).
template <class... Parts>
std::string cat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// The candidate nearest to `word` by edit distance, or "" when none is near: for "did you mean".
std::string nearest(std::string_view word, const std::string_view* begin,
                    const std::string_view* end);

}  // namespace cachalot
