// The text of HTTP messages, where it is simpler to write than to build.
//
// Threads: pure functions.
// Errors:  none.
// Source:  RFC 9112, sections 3 (request target), 4 to 7
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "serve/http.h"

namespace cachalot::serve {

inline constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

// The path of a request target, percent-decoded, without query and authority; nullopt where it is
// none (no '/' in front, a broken %XX, a NUL or other control character).
std::optional<std::string> request_path(std::string_view target);

struct HeadOptions {
  std::optional<std::size_t>
      length;  // none: the body comes in chunks, or until the connection ends
  bool keep_alive = true;
  bool http10 = false;
};
// Status line and header, with the empty line. Values of headers are ours or were checked.
std::string response_head(const HttpResponse& response, const HeadOptions& options);

// An error, with Retry-After where the client should come again.
HttpResponse error_response(int status, std::string body, HttpHeaders headers = {});

void append_piece(std::string& out, std::string_view piece, bool chunked);

}  // namespace cachalot::serve
