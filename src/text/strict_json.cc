#include "text/strict_json.h"

#include "base/error.h"
#include "io/json_object.h"
#include "text/utf8.h"

namespace cachalot::text {

void require_json_text(std::string_view text, const std::string& what) {
  if (const std::size_t bad = first_invalid_utf8(text); bad != text.size()) {
    throw Error(Code::kUsage, cat(what, " is not UTF-8: byte ", bad + 1, " of ", text.size(),
                                  " begins no character"));
  }
  if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos) {
    throw Error(Code::kUsage,
                cat(what, " is not JSON: byte ", nul + 1, " of ", text.size(), " is NUL"));
  }
  try {
    io::refuse_deep_json(text, what);
  } catch (const Error& e) {
    throw Error(Code::kUsage, e.what());
  }
}

std::string shown_text(std::string_view text, int most) {
  std::size_t end = 0;
  for (int i = 0; i < most && end < text.size(); ++i) end += utf8_step(text, end).bytes;
  return io::printable(text.substr(0, end)) + (end < text.size() ? "..." : "");
}

}  // namespace cachalot::text
