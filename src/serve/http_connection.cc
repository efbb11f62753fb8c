#include "serve/http_connection.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <array>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <chrono>

#include "serve/api_error.h"
#include "serve/http_text.h"
#include "serve/json_body.h"

namespace cachalot::serve {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using ErrorCode = beast::error_code;
using Tls = beast::ssl_stream<beast::tcp_stream>;

constexpr double kSlowestUpload = 100e3;  // bytes/s of a body that is not too slow
constexpr std::size_t kReadAhead = 16384;
constexpr double kLingerSeconds = 2;  // for a client to read the last answer before the reset

std::chrono::milliseconds in(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1e3));
}

// What a Reply, on any thread, shares with the connection's strand.
struct Progress {
  std::atomic<bool> gone = false;
  std::atomic<std::size_t> unread = 0;  // bytes written by the author and not taken by the client
};

// What a Reply asks of its connection; each call is one post to the strand.
class Answering {
 public:
  virtual ~Answering() = default;
  virtual void post_send(HttpResponse response) = 0;
  virtual void post_begin(HttpResponse head) = 0;
  virtual void post_piece(std::string piece) = 0;
  virtual void post_end() = 0;
  virtual void post_when_gone(std::function<void()> call) = 0;
  virtual void post_give_up() = 0;
};

class ReplyTo final : public Reply {
 public:
  ReplyTo(std::shared_ptr<Answering> connection, std::shared_ptr<Progress> progress,
          std::size_t max_unread)
      : connection_(std::move(connection)),
        progress_(std::move(progress)),
        max_unread_(max_unread) {}
  ReplyTo(const ReplyTo&) = delete;
  ReplyTo& operator=(const ReplyTo&) = delete;
  ~ReplyTo() override {
    if (begun_ && !ended_) connection_->post_give_up();  // half an answer must not look whole
    if (begun_) return;
    connection_->post_send(
        {.status = 500, .body = error_json(500, "this request was not answered").dump()});
  }

  void send(HttpResponse response) override {
    begun_ = ended_ = true;
    connection_->post_send(std::move(response));
  }
  void begin(HttpResponse head) override {
    begun_ = true;
    connection_->post_begin(std::move(head));
  }
  bool write(std::string piece) override {
    if (progress_->gone) return false;
    if (piece.empty()) return true;
    const std::size_t unread = progress_->unread += piece.size();
    if (unread > max_unread_) {
      progress_->gone = true;
      connection_->post_give_up();
      return false;
    }
    connection_->post_piece(std::move(piece));
    return true;
  }
  void end() override {
    ended_ = true;
    connection_->post_end();
  }
  void when_gone(std::function<void()> call) override {
    connection_->post_when_gone(std::move(call));
  }

 private:
  const std::shared_ptr<Answering> connection_;
  const std::shared_ptr<Progress> progress_;
  const std::size_t max_unread_;
  bool begun_ = false, ended_ = false;
};

template <class Stream>
class ConnectionOf final : public Connection,
                           public Answering,
                           public std::enable_shared_from_this<ConnectionOf<Stream>> {
 public:
  template <class... Args>
  explicit ConnectionOf(std::shared_ptr<HttpServer::Shared> shared, Args&&... args)
      : shared_(std::move(shared)), stream_(std::forward<Args>(args)...) {}
  ConnectionOf(const ConnectionOf&) = delete;
  ConnectionOf& operator=(const ConnectionOf&) = delete;
  ~ConnectionOf() override {
    if (answering_) shared_->ended_answer();
    shared_->forget(this);
  }

  void start() override {
    post([self = this->shared_from_this()] {
      if constexpr (std::is_same_v<Stream, Tls>) {
        self->expires(self->config().read_timeout);
        self->stream_.async_handshake(asio::ssl::stream_base::server, [self](ErrorCode error) {
          if (!error) self->read_request();
        });
      } else {
        self->read_request();
      }
    });
  }
  void close_when_idle() override {
    post([self = this->shared_from_this()] {
      if (!self->answering_) self->close();
    });
  }
  void close_now() override {
    post([self = this->shared_from_this()] { self->client_gone(); });
  }

  void post_send(HttpResponse response) override {
    post([self = this->shared_from_this(), response = std::move(response)]() mutable {
      self->begin(response, response.body.size());
      if (!self->head_) self->ready_ += response.body;
      self->end();
    });
  }
  void post_begin(HttpResponse head) override {
    post([self = this->shared_from_this(), head = std::move(head)] {
      self->begin(head, std::nullopt);
      self->ping_ = head.ping;
      self->flush();
      self->wait_to_ping();
    });
  }
  void post_piece(std::string piece) override {
    post([self = this->shared_from_this(), piece = std::move(piece)] {
      if (!self->answering_) return;
      self->pieces_ += piece.size();
      if (!self->head_) append_piece(self->ready_, piece, self->chunked_);
      self->flush();
    });
  }
  void post_end() override {
    post([self = this->shared_from_this()] {
      if (self->chunked_ && !self->head_) self->ready_ += kLastChunk;
      self->end();
    });
  }
  void post_when_gone(std::function<void()> call) override {
    post([self = this->shared_from_this(), call = std::move(call)] {
      if (!self->answering_) return;
      if (self->progress_->gone) return call();
      self->on_gone_ = call;
    });
  }
  void post_give_up() override { close_now(); }

 private:
  const HttpConfig& config() const { return shared_->config; }
  beast::tcp_stream& tcp() { return beast::get_lowest_layer(stream_); }
  void expires(double seconds) { tcp().expires_after(in(seconds)); }
  template <class Call>
  void post(Call call) {
    if (shared_->ended) return;  // nobody runs it any more
    asio::post(tcp().get_executor(), std::move(call));
  }

  // ---- reading

  void read_request() {
    if (shared_->closing) return shut_down();
    parser_.emplace();
    parser_->header_limit(static_cast<std::uint32_t>(config().max_header));
    parser_->body_limit(config().max_body);
    expires(first_ ? config().read_timeout : config().idle_timeout);
    http::async_read_header(stream_, buffer_, *parser_,
                            [self = this->shared_from_this()](ErrorCode error, std::size_t) {
                              self->on_header(error);
                            });
  }

  void on_header(ErrorCode error) {
    if (error) return refuse(error);
    const auto& head = parser_->get();
    const auto length = parser_->content_length();
    expires(config().read_timeout + (length ? static_cast<double>(*length) / kSlowestUpload : 0));
    const auto expect = head[http::field::expect];
    if (expect.empty() || head.version() < 11) return read_body();
    if (!beast::iequals(expect, "100-continue")) {
      return refuse(417, cat("Expect: ", shown_text(std::string(expect)),
                             " is not known here; 100-continue is"));
    }
    asio::async_write(stream_, asio::buffer(kContinue),
                      [self = this->shared_from_this()](ErrorCode failed, std::size_t) {
                        if (!failed) self->read_body();
                      });
  }

  void read_body() {
    http::async_read(stream_, buffer_, *parser_,
                     [self = this->shared_from_this()](ErrorCode error, std::size_t) {
                       self->on_request(error);
                     });
  }

  void on_request(ErrorCode error) {
    if (error) return refuse(error);
    first_ = false;
    auto message = parser_->release();
    begin_answer(message.method() == http::verb::head, message.version() < 11,
                 message.keep_alive());
    auto path = request_path(std::string_view(message.target().data(), message.target().size()));
    auto reply =
        std::make_shared<ReplyTo>(this->shared_from_this(), progress_, config().max_unread);
    if (!path) {
      return reply->send(
          {.status = 400, .body = error_json(400, "the request's path is not well formed").dump()});
    }
    const auto field = [&](http::field name) { return std::string(message[name]); };
    HttpRequest request{.method = std::string(message.method_string()),
                        .path = std::move(*path),
                        .body = std::move(message.body()),
                        .authorization = field(http::field::authorization),
                        .content_type = field(http::field::content_type)};
    try {
      shared_->handler(std::move(request), std::move(reply));  // unanswered: status 500
    } catch (const std::exception& e) {
      spdlog::error("a request could not be answered: {}", e.what());
    }
    watch();
  }

  // ---- what cannot be read

  void refuse(ErrorCode error) {
    if (error == http::error::body_limit) {
      return refuse(413, cat("the body is larger than the ", config().max_body,
                             " bytes that are taken (--max-body)"));
    }
    if (error == http::error::header_limit) {
      return refuse(
          431, cat("the header is larger than the ", config().max_header, " bytes that are taken"));
    }
    const bool malformed = error.category() == http::make_error_code(http::error{}).category();
    if (malformed && error != http::error::end_of_stream && error != http::error::partial_message) {
      return refuse(400, cat("this is no HTTP request: ", error.message()));
    }
    close();  // after a timeout the socket is closed already: there is no way to say it
  }
  void refuse(int status, const std::string& message) {
    begin_answer(/*head=*/false, /*http10=*/false, /*keep_alive=*/false);
    post_send({.status = status, .body = error_json(status, message).dump()});
  }

  // ---- answering

  void begin_answer(bool head, bool http10, bool keep_alive) {
    answering_ = true;
    shared_->began_answer();
    head_ = head;
    http10_ = http10;
    keep_alive_ = keep_alive;
    chunked_ = begun_ = ended_ = false;
    ready_.clear();
    pieces_ = 0;
    progress_ = std::make_shared<Progress>();
  }

  void begin(const HttpResponse& response, std::optional<std::size_t> length) {
    if (!answering_ || begun_) return;
    begun_ = true;
    chunked_ = !length && !http10_;
    if (shared_->closing || (!length && http10_)) keep_alive_ = false;
    ready_ +=
        response_head(response, {.length = length, .keep_alive = keep_alive_, .http10 = http10_});
  }

  void end() {
    if (!answering_) return;
    ended_ = true;
    flush();
  }

  void flush() {
    if (!answering_ || writing_) return;
    if (taken_ == flying_.size()) {
      flying_ = std::move(ready_);
      ready_.clear();
      taken_ = 0;
      flying_pieces_ = std::exchange(pieces_, 0);
    }
    if (flying_.empty()) {
      if (ended_) answered();
      return;
    }
    writing_ = true;
    expires(config().write_timeout);
    // Some, not all: a slow client is one that takes nothing, not one that takes long for much.
    stream_.async_write_some(asio::buffer(flying_.data() + taken_, flying_.size() - taken_),
                             [self = this->shared_from_this()](ErrorCode error, std::size_t bytes) {
                               self->on_written(error, bytes);
                             });
  }

  void on_written(ErrorCode error, std::size_t bytes) {
    writing_ = false;
    if (error) return client_gone();
    written_ = true;
    taken_ += bytes;
    if (taken_ == flying_.size()) progress_->unread -= flying_pieces_;
    flush();
  }

  // One timer per answer, which only looks whether anything was written since it last did.
  void wait_to_ping() {
    if (ping_.empty() || !answering_ || head_) return;
    written_ = false;
    ping_timer_.expires_after(in(config().ping_seconds));
    ping_timer_.async_wait([self = this->shared_from_this(), answer = progress_](ErrorCode error) {
      if (error || !self->answering_ || self->ended_ || self->progress_ != answer) return;
      if (!self->written_ && !self->writing_) {
        append_piece(self->ready_, self->ping_, self->chunked_);
        self->flush();
      }
      self->wait_to_ping();
    });
  }

  void answered() {
    answering_ = false;
    ping_timer_.cancel();
    on_gone_ = nullptr;
    shared_->ended_answer();
    if (!reading_) return read_or_end();
    tcp().cancel();
  }
  void read_or_end() {
    if (keep_alive_ && !shared_->closing) return read_request();
    shut_down();
  }

  // Reads on while an answer is made, which is how it is seen that the client has gone; what it
  // sends is the beginning of its next request. A client that shuts its side down counts as gone.
  void watch() {
    if (reading_ || !answering_ || buffer_.size() >= kReadAhead) return;
    reading_ = true;
    tcp().expires_never();
    stream_.async_read_some(buffer_.prepare(kReadAhead),
                            [self = this->shared_from_this()](ErrorCode error, std::size_t bytes) {
                              self->on_read_ahead(error, bytes);
                            });
  }
  void on_read_ahead(ErrorCode error, std::size_t bytes) {
    reading_ = false;
    buffer_.commit(bytes);
    if (answering_) return error ? client_gone() : watch();
    // The answer ended meanwhile, and this read was called off for the next request.
    if (error && error != asio::error::operation_aborted) return close();
    read_or_end();
  }

  void client_gone() {
    ping_timer_.cancel();
    if (answering_) {
      answering_ = false;
      progress_->gone = true;
      shared_->ended_answer();
      if (const auto call = std::exchange(on_gone_, nullptr)) call();
    }
    close();
  }

  // ---- the end

  void close() {
    ErrorCode ignored;
    tcp().socket().close(ignored);
  }

  void shut_down() {
    expires(kLingerSeconds);
    if constexpr (std::is_same_v<Stream, Tls>) {
      stream_.async_shutdown([self = this->shared_from_this()](ErrorCode) { self->close(); });
    } else {
      ErrorCode ignored;
      tcp().socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
      linger();
    }
  }
  // A socket closed with bytes unread resets the connection, and the answer is lost with it.
  void linger() {
    tcp().async_read_some(asio::buffer(scratch_),
                          [self = this->shared_from_this()](ErrorCode error, std::size_t) {
                            if (error) return self->close();
                            self->linger();
                          });
  }

  const std::shared_ptr<HttpServer::Shared> shared_;
  Stream stream_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  bool first_ = true;
  bool reading_ = false;  // ahead, while an answer is made

  bool answering_ = false;
  bool head_ = false, http10_ = false, keep_alive_ = false;  // as the request asks
  bool chunked_ = false, begun_ = false, ended_ = false;     // of the answer
  std::shared_ptr<Progress> progress_;
  std::function<void()> on_gone_;

  std::string ready_, flying_;                  // flying_ is with the socket, ready_ goes next
  std::size_t taken_ = 0;                       // of flying_
  std::size_t pieces_ = 0, flying_pieces_ = 0;  // bytes of pieces in the two, for Progress::unread
  bool writing_ = false;
  std::string ping_;
  bool written_ = false;  // since the timer was set
  asio::steady_timer ping_timer_{tcp().get_executor()};
  std::array<char, 4096> scratch_{};
};

}  // namespace

std::shared_ptr<Connection> make_connection(const std::shared_ptr<HttpServer::Shared>& shared,
                                            asio::ip::tcp::socket socket) {
  if (shared->tls) {
    return std::make_shared<ConnectionOf<Tls>>(shared, beast::tcp_stream(std::move(socket)),
                                               *shared->tls);
  }
  return std::make_shared<ConnectionOf<beast::tcp_stream>>(shared, std::move(socket));
}

}  // namespace cachalot::serve
