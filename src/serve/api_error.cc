#include "serve/api_error.h"

namespace cachalot::serve {

int http_status(Code code) noexcept {
  switch (code) {
    case Code::kUsage:
    case Code::kUnsupported:
      return 400;
    case Code::kBusy:
    case Code::kInterrupted:
      return 503;
    case Code::kConfig:
    case Code::kFormat:
    case Code::kIo:
    case Code::kShape:
    case Code::kNumeric:
    case Code::kInternal:
      return 500;
  }
  return 500;
}

static const char* type_of(int status) noexcept {
  switch (status) {
    case 400:
    case 404:
    case 405:
    case 413:
    case 415:
    case 417:
    case 431:
      return "invalid_request_error";
    case 401:
      return "authentication_error";
    case 503:
      return "overloaded_error";
    default:
      return "server_error";
  }
}

Json error_json(int status, std::string_view message, std::string_view param,
                std::string_view slug) {
  const auto text_or_null = [](std::string_view text) {
    return text.empty() ? Json() : Json(text);
  };
  return {{"error",
           {{"message", message},
            {"type", type_of(status)},
            {"param", text_or_null(param)},
            {"code", text_or_null(slug)}}}};
}

ErrorReply error_reply(const std::exception& error) {
  const auto* known = dynamic_cast<const Error*>(&error);
  if (known == nullptr) {
    return {500, error_json(500, "internal error: the server's log says more")};
  }
  const bool missing = dynamic_cast<const NotFound*>(known) != nullptr;
  const int status = missing ? 404 : http_status(known->code());
  if (status == 500) {
    return {500, error_json(500, cat("internal error (", name(known->code()),
                                     "): the server's log says more"))};
  }
  const auto* api = dynamic_cast<const ApiError*>(&error);
  if (api == nullptr) return {status, error_json(status, error.what())};
  return {status, error_json(status, error.what(), api->param(), api->slug())};
}

}  // namespace cachalot::serve
