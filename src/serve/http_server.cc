#include "serve/http_server.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <chrono>
#include <filesystem>

#include "base/error.h"
#include "serve/api_error.h"
#include "serve/http_connection.h"
#include "serve/http_text.h"
#include "serve/json_body.h"

namespace cachalot::serve {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

void check(const HttpConfig& c) {
  const auto need = [](bool ok, std::string_view what, auto met, std::string_view needed) {
    if (!ok) throw Error(Code::kUsage, cat(what, " is ", met, ", but it must be ", needed));
  };
  need(c.threads >= 1 && c.threads <= 64, "the number of HTTP threads", c.threads, "1 to 64");
  need(c.max_connections >= 1, "max_connections", c.max_connections, "at least 1");
  need(c.max_header >= 1024, "max_header", c.max_header, "at least 1024 bytes");
  need(c.read_timeout > 0, "the read timeout", c.read_timeout, "above 0 seconds");
  need(c.write_timeout > 0, "the write timeout", c.write_timeout, "above 0 seconds");
  need(c.ping_seconds > 0, "the ping's interval", c.ping_seconds, "above 0 seconds");
  need(c.idle_timeout > 0, "the idle timeout", c.idle_timeout, "above 0 seconds");
  if (c.tls_cert.empty() != c.tls_key.empty()) {
    throw Error(Code::kUsage, "TLS needs a certificate and its key: give --tls-cert and --tls-key");
  }
}

void load_tls(asio::ssl::context& tls, const HttpConfig& c) {
  using context = asio::ssl::context;
  tls.set_options(context::default_workarounds | context::no_sslv2 | context::no_sslv3 |
                  context::no_tlsv1 | context::no_tlsv1_1);
  const auto need = [](const ErrorCode& error, const std::string& file, std::string_view what) {
    if (!error) return;
    const bool there = std::filesystem::exists(file);
    throw Error(there ? Code::kFormat : Code::kIo,
                cat(file, there ? cat(" cannot be used as ", what, ": ") : " cannot be read: ",
                    there ? error.message() : "no such file", "; a PEM file is needed"));
  };
  ErrorCode error;
  tls.use_certificate_chain_file(c.tls_cert, error);
  need(error, c.tls_cert, "a certificate chain");
  tls.use_private_key_file(c.tls_key, context::pem, error);
  need(error, c.tls_key, "the key of that certificate");
}

tcp::acceptor listen(asio::io_context& io, const HttpConfig& c) {
  ErrorCode error;
  tcp::resolver resolver(io);
  const auto found =
      resolver.resolve(c.host, std::to_string(c.port),
                       tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error || found.empty()) {
    throw Error(Code::kIo, cat("the host '", shown_text(c.host),
                               "' to listen on is not known: ", error.message(),
                               "; 127.0.0.1 is this machine alone, 0.0.0.0 all its "
                               "addresses"));
  }
  const tcp::endpoint where = found.begin()->endpoint();
  tcp::acceptor acceptor(asio::make_strand(io));
  acceptor.open(where.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(where, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (!error) return acceptor;
  const bool taken = error == asio::error::address_in_use;
  throw Error(
      taken ? Code::kBusy : Code::kIo,
      cat("port ", c.port, " of ", shown_text(c.host), " cannot be listened on: ", error.message(),
          "; choose another with --port", taken ? ", or stop who uses it" : ""));
}

// Too many connections: said at once, without reading.
void turn_away(tcp::socket socket, bool tls) {
  if (tls) return;
  const HttpResponse response{
      .status = 503,
      .body = error_json(503, "too many connections: try again later").dump(),
      .headers = {{"Retry-After", "1"}}};
  const std::string text =
      response_head(response, {.length = response.body.size(), .keep_alive = false}) +
      response.body;
  ErrorCode ignored;
  socket.non_blocking(true, ignored);
  socket.send(asio::buffer(text), 0, ignored);
  socket.shutdown(tcp::socket::shutdown_send, ignored);
}

void accept_next(const std::shared_ptr<HttpServer::Shared>& shared) {
  shared->acceptor->async_accept(
      asio::make_strand(shared->io), [shared](const ErrorCode& error, tcp::socket socket) {
        if (error == asio::error::operation_aborted || shared->closing) return;
        if (error) {
          // Mostly too many open files: some will be closed.
          spdlog::warn("a connection could not be taken: {}", error.message());
          auto timer = std::make_shared<asio::steady_timer>(shared->acceptor->get_executor(),
                                                            std::chrono::milliseconds(100));
          timer->async_wait([shared, timer](const ErrorCode&) { accept_next(shared); });
          return;
        }
        if (shared->count() < shared->config.max_connections) {  // nobody else adds any
          ErrorCode ignored;
          socket.set_option(tcp::no_delay(true), ignored);
          shared->start(make_connection(shared, std::move(socket)));
        } else {
          turn_away(std::move(socket), shared->tls.has_value());
        }
        accept_next(shared);
      });
}

}  // namespace

std::vector<std::shared_ptr<Connection>> HttpServer::Shared::all() const {
  std::vector<std::shared_ptr<Connection>> there;
  const std::lock_guard lock(mutex);
  for (const auto& [key, connection] : connections) {
    if (auto alive = connection.lock()) there.push_back(std::move(alive));
  }
  return there;
}
void HttpServer::Shared::start(const std::shared_ptr<Connection>& connection) {
  {
    const std::lock_guard lock(mutex);
    connections.emplace(connection.get(), connection);
  }
  connection->start();
}
int HttpServer::Shared::count() const {
  const std::lock_guard lock(mutex);
  return static_cast<int>(connections.size());
}

void HttpServer::Shared::began_answer() {
  const std::lock_guard lock(mutex);
  ++answering;
}
void HttpServer::Shared::ended_answer() {
  const std::lock_guard lock(mutex);
  --answering;
  answered.notify_all();
}
void HttpServer::Shared::forget(const Connection* connection) {
  const std::lock_guard lock(mutex);
  connections.erase(connection);
}

HttpServer::HttpServer(const HttpConfig& config, HttpHandler handler)
    : shared_((check(config), std::make_shared<Shared>(config, std::move(handler)))) {
  if (!config.tls_cert.empty()) {
    shared_->tls.emplace(asio::ssl::context::tls_server);
    load_tls(*shared_->tls, config);
  }
  shared_->acceptor.emplace(listen(shared_->io, config));
  shared_->port = shared_->acceptor->local_endpoint().port();
  // Answers under way need the threads when nobody is listened to any more.
  shared_->work.emplace(asio::make_work_guard(shared_->io));
  accept_next(shared_);
  for (int i = 0; i < config.threads; ++i) {
    shared_->threads.emplace_back([shared = shared_.get()] { shared->io.run(); });
  }
}

HttpServer::~HttpServer() {
  close();
  for (const auto& connection : shared_->all()) connection->close_now();
  shared_->work.reset();
  for (std::thread& thread : shared_->threads) thread.join();
  shared_->ended = true;
}

std::uint16_t HttpServer::port() const noexcept { return shared_->port; }

std::string HttpServer::address() const {
  const std::string& host = shared_->config.host;
  const bool v6 = host.find(':') != std::string::npos;
  return fmt::format("{}://{}{}{}:{}", shared_->tls ? "https" : "http", v6 ? "[" : "", host,
                     v6 ? "]" : "", shared_->port);
}

void HttpServer::close() {
  if (shared_->closing.exchange(true)) return;
  asio::post(shared_->acceptor->get_executor(), [shared = shared_] {
    ErrorCode ignored;
    shared->acceptor->close(ignored);
  });
  for (const auto& connection : shared_->all()) connection->close_when_idle();
}

int HttpServer::connections() const { return shared_->count(); }

int HttpServer::answering() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->answering;
}

bool HttpServer::wait_answered(double seconds) {
  std::unique_lock lock(shared_->mutex);
  return shared_->answered.wait_for(lock, std::chrono::duration<double>(seconds),
                                    [&] { return shared_->answering == 0; });
}

}  // namespace cachalot::serve
