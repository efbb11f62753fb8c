// A request and its answer as the routes see them, whatever carries them.
//
// Owns:    values; a Reply keeps its connection alive.
// Threads: Reply: any thread, one at a time (an answer has one author).
// Errors:  none: a client that has gone is a return value.
// Source:  RFC 9110 (semantics), RFC 9112 (HTTP/1.1)
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cachalot::serve {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;  // "GET", as sent
  std::string path;    // percent-decoded, without the query
  std::string body;
  std::string authorization, content_type;  // header values; empty: absent
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body = {};
  HttpHeaders headers = {};  // further ones
  // Of an answer in pieces: sent where nothing else was for HttpConfig::ping_seconds, so that who
  // is in between does not take a long wait for the end. Empty: nothing is.
  std::string ping = {};
};

class Reply {
 public:
  virtual ~Reply() = default;  // of one that was never answered: the client gets status 500

  virtual void send(HttpResponse response) = 0;
  // Or piece by piece: the head's body is left out.
  virtual void begin(HttpResponse head) = 0;
  // False where nobody reads any more: the client has gone, or is HttpConfig::max_unread behind.
  virtual bool write(std::string piece) = 0;
  virtual void end() = 0;
  // Called once if the client goes before the answer has ended; at once if it has gone. On a thread
  // of the server; it must not throw.
  virtual void when_gone(std::function<void()> call) = 0;
};

// Runs on a thread of the server, and answers now or later. What it throws is a defect: status 500.
using HttpHandler = std::function<void(HttpRequest, std::shared_ptr<Reply>)>;

}  // namespace cachalot::serve
