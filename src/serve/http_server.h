// HTTP/1.1 over TCP or TLS, for thousands of open streams on few threads (Boost.Beast on Asio).
//
// Requests are read whole, within limits of bytes and time, before the handler sees them. Answers
// that a handler writes piece by piece are sent in chunks; a client that does not take them is
// given up after write_timeout or when it is max_unread bytes behind, so no client holds memory
// without end. Connections are kept open for further requests, pipelined ones wait for their turn.
//
// Owns:    its sockets and threads.
// Threads: all members: any thread. The handler runs on the server's threads, several at once.
// Errors:  the constructor: kBusy (the port is taken), kIo (no such address, not allowed,
// unreadable
//          files), kFormat (certificate or key), kUsage (limits).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "serve/http.h"

namespace cachalot::serve {

struct HttpConfig {
  std::string host = "127.0.0.1";  // name or address to listen on
  std::uint16_t port = 8080;       // 0: one that is free
  std::string tls_cert, tls_key;   // PEM files, chain first; empty: no TLS
  int threads = 2;
  int max_connections = 1024;  // further ones get status 503
  std::size_t max_header = std::size_t{32} << 10;
  std::size_t max_body = std::size_t{16} << 20;
  std::size_t max_unread = std::size_t{1} << 20;  // of one answer written in pieces
  double read_timeout = 30;   // seconds a request may take to arrive, longer for a long body
  double write_timeout = 30;  // seconds in which a client takes nothing of what is ready for it
  double idle_timeout = 75;   // seconds between two requests of a connection
  double ping_seconds = 15;   // of silence in an answer that comes in pieces
};

class HttpServer {
 public:
  HttpServer(const HttpConfig& config, HttpHandler handler);  // listens
  ~HttpServer();                                              // closes all connections
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  std::uint16_t port() const noexcept;
  std::string address() const;  // "http://127.0.0.1:8080", with the host as it was given

  // Takes no further connections, closes those without a request; answers under way go on.
  void close();
  int connections() const;
  int answering() const;  // requests that have no whole answer yet
  // True once no answer is under way; false after `seconds`.
  bool wait_answered(double seconds);

  struct Shared;

 private:
  std::shared_ptr<Shared> shared_;
};

}  // namespace cachalot::serve
