// One connection of the HTTP server: reads a request, lets it be answered, reads the next.
//
// Owns:    its socket. It lives as long as an operation or a Reply of it.
// Threads: all of its state is touched on its strand alone; Reply's members post there.
// Errors:  none: a connection that breaks ends.
#pragma once

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "serve/http_server.h"

namespace cachalot::serve {

class Connection {
 public:
  virtual ~Connection() = default;
  virtual void start() = 0;
  // Any thread: closes it if no request is under way, else after the answer.
  virtual void close_when_idle() = 0;
  virtual void close_now() = 0;
};

// What the connections of a server share.
struct HttpServer::Shared {
  Shared(const HttpConfig& c, HttpHandler h) : config(c), handler(std::move(h)) {}

  HttpConfig config;
  HttpHandler handler;
  boost::asio::io_context io;
  std::optional<boost::asio::ssl::context> tls;
  std::optional<boost::asio::ip::tcp::acceptor> acceptor;
  std::uint16_t port = 0;
  std::atomic<bool> closing = false;  // no further requests
  std::atomic<bool> ended = false;    // no threads any more

  mutable std::mutex mutex;  // of all below
  std::condition_variable answered;
  std::unordered_map<const Connection*, std::weak_ptr<Connection>> connections;
  int answering = 0;

  std::vector<std::thread> threads;
  std::optional<boost::asio::executor_work_guard<boost::asio::io_context::executor_type>> work;

  std::vector<std::shared_ptr<Connection>> all() const;  // that are there now
  int count() const;
  void start(const std::shared_ptr<Connection>& connection);
  void began_answer();
  void ended_answer();
  void forget(const Connection* connection);
};

std::shared_ptr<Connection> make_connection(const std::shared_ptr<HttpServer::Shared>& shared,
                                            boost::asio::ip::tcp::socket socket);

}  // namespace cachalot::serve
