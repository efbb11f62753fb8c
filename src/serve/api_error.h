// What a client is told when its request cannot be answered, and with which HTTP status.
//
// Threads: values.
// Source:  the error object of the OpenAI API, https://platform.openai.com/docs/guides/error-codes
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"

namespace cachalot::serve {

using Json = nlohmann::ordered_json;

// An Error that knows which member of the request is at fault.
class ApiError : public Error {
 public:
  // `param`: "messages", "temperature"...; empty: none. `slug`: a word for programs
  // ("context_length_exceeded"); empty: none.
  ApiError(Code code, const std::string& text, std::string param, std::string slug = "")
      : Error(code, text), param_(std::move(param)), slug_(std::move(slug)) {}
  const std::string& param() const noexcept { return param_; }
  const std::string& slug() const noexcept { return slug_; }

 private:
  std::string param_, slug_;
};

// Something asked for by name that is not here: status 404.
class NotFound : public ApiError {
 public:
  NotFound(const std::string& text, std::string param, std::string slug)
      : ApiError(Code::kUsage, text, std::move(param), std::move(slug)) {}
};

// 400 for what the client can mend (kUsage, kUnsupported), 503 for kBusy and kInterrupted, 500 for
// the rest: a format, a file or a number that is wrong behind an answer is the server's own.
int http_status(Code code) noexcept;

// {"error": {"message", "type", "param", "code"}}; type is "invalid_request_error" for 400, 404,
// 405, 413, 415, 417 and 431, "authentication_error" for 401, "overloaded_error" for 503, else
// "server_error".
Json error_json(int status, std::string_view message, std::string_view param = {},
                std::string_view slug = {});
// Of anything caught: what an Error of status 400 or 503 says. The text of every other exception
// may name files and memory of this machine: it is logged by the caller, and strangers are told its
// kind only.
struct ErrorReply {
  int status = 500;
  Json body;
};
ErrorReply error_reply(const std::exception& error);

}  // namespace cachalot::serve
