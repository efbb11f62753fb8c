#include "serve/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "serve/http_client_test.h"

namespace cachalot::serve {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Answers with what it was asked: METHOD PATH BODY.
void echo(const HttpRequest& request, const std::shared_ptr<Reply>& reply) {
  reply->send({.content_type = "text/plain",
               .body = request.method + " " + request.path + " " + request.body});
}

HttpConfig quick() {
  HttpConfig config;
  config.port = 0;
  return config;
}

std::string get(std::string_view path, std::string_view more = "") {
  return "GET " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n" + std::string(more) + "\r\n";
}
std::string post(std::string_view body, std::string_view more = "") {
  return "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" +
         std::string(more) + "\r\n" + std::string(body);
}

TEST(HttpServer, AnswersOneRequestAfterTheOtherOnOneConnection) {
  HttpServer server(quick(), echo);
  RawClient client(server.port());
  for (int i = 0; i < 3; ++i) {
    client.send(post("body" + std::to_string(i)));
    const std::string answer = client.read_answer();
    EXPECT_EQ(200, status_of(answer));
    EXPECT_EQ("POST /p body" + std::to_string(i), body_of(answer));
    EXPECT_THAT(answer, HasSubstr("Content-Type: text/plain\r\n"));
    EXPECT_THAT(answer, Not(HasSubstr("Connection: close")));
  }
  EXPECT_EQ(1, server.connections());
}

TEST(HttpServer, PipelinedRequestsAreAnsweredInTheirOrder) {
  // The first is answered late, from a thread of its own, when the others have long arrived.
  std::jthread later;
  HttpServer server(quick(), [&](const HttpRequest& request, const std::shared_ptr<Reply>& reply) {
    if (request.path != "/first") return echo(request, reply);
    later = std::jthread([reply] {
      ::usleep(100000);
      reply->send({.body = "late"});
    });
  });
  RawClient client(server.port());
  client.send(get("/first") + get("/second") + post("third"));
  EXPECT_EQ("late", body_of(client.read_answer()));
  EXPECT_EQ("GET /second ", body_of(client.read_answer()));
  EXPECT_EQ("POST /p third", body_of(client.read_answer()));
}

TEST(HttpServer, ABodyMayComeInChunksAndBeAskedFor) {
  HttpServer server(quick(), echo);
  RawClient client(server.port());
  client.send(
      "POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  EXPECT_EQ("POST /c abcde", body_of(client.read_answer()));
  client.send("POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ("HTTP/1.1 100 Continue\r\n\r\n", client.read_until("\r\n\r\n"));
  client.send("ok");
  EXPECT_EQ("POST /e ok", body_of(client.read_answer()));
  client.send("POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: a-miracle\r\n\r\nok");
  EXPECT_EQ(417, status_of(client.read_all()));
}

TEST(HttpServer, PiecesComeAsChunksToNewClientsAndAsTheyAreToOldOnes) {
  HttpServer server(quick(), [](const HttpRequest&, const std::shared_ptr<Reply>& reply) {
    reply->begin({.content_type = "text/event-stream"});
    EXPECT_TRUE(reply->write("ab"));
    EXPECT_TRUE(reply->write("c"));
    reply->end();
  });
  RawClient client(server.port());
  client.send(get("/"));
  const std::string chunked = client.read_until("0\r\n\r\n");
  EXPECT_THAT(chunked, HasSubstr("Transfer-Encoding: chunked\r\n"));
  EXPECT_EQ("2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", body_of(chunked));
  client.send("GET / HTTP/1.0\r\n\r\n");
  const std::string plain = client.read_all();  // its end is the connection's
  EXPECT_THAT(plain, Not(HasSubstr("chunked")));
  EXPECT_EQ("abc", body_of(plain));
}

TEST(HttpServer, HeadHasNoBodyButItsLength) {
  HttpServer server(quick(), echo);
  RawClient client(server.port());
  client.send("HEAD /h HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string answer = client.read_all();
  EXPECT_THAT(answer, HasSubstr("Content-Length: 8\r\n"));  // "HEAD /h "
  EXPECT_EQ("", body_of(answer));
}

TEST(HttpServer, WhatIsTooLargeTooSlowOrNoHttpIsSaidSo) {
  HttpConfig config = quick();
  config.max_body = 100;
  config.max_header = 1024;
  config.read_timeout = 0.2;
  HttpServer server(config, echo);
  const auto answer_to = [&](std::string_view bytes) {
    RawClient client(server.port());
    client.send(bytes);
    return client.read_all();
  };
  EXPECT_EQ(200, status_of(answer_to(post(std::string(100, 'x'), "Connection: close\r\n"))));
  EXPECT_EQ(413, status_of(answer_to(post(std::string(101, 'x')))));
  EXPECT_EQ(413, status_of(answer_to("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                                     "\r\nFFFFFFF\r\n" +
                                     std::string(200, 'x'))));
  EXPECT_EQ(431, status_of(answer_to(get("/", "X: " + std::string(2000, 'x') + "\r\n"))));
  EXPECT_EQ(400, status_of(answer_to("nonsense\r\n\r\n")));
  EXPECT_EQ(400, status_of(answer_to(get("/%zz", "Connection: close\r\n"))));
  // Who is too slow is cut off.
  EXPECT_EQ("", answer_to("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab"));
  EXPECT_EQ("", answer_to("GET / HTTP/1.1\r\nHo"));
  EXPECT_EQ("", answer_to(""));
  EXPECT_TRUE(soon([&] { return server.connections() == 0; }));
}

TEST(HttpServer, AHandlerThatThrowsOrForgetsIsStatus500) {
  HttpServer server(quick(), [](const HttpRequest& request, const std::shared_ptr<Reply>&) {
    if (request.path == "/throw") throw std::runtime_error("secret");
  });
  RawClient client(server.port());
  for (const char* path : {"/throw", "/forget"}) {
    client.send(get(path));
    const std::string answer = client.read_answer();
    EXPECT_EQ(500, status_of(answer));
    EXPECT_THAT(answer, Not(HasSubstr("secret")));
  }
}

// An answer in pieces that the test writes.
struct Stream {
  std::shared_ptr<Reply> reply() {
    EXPECT_TRUE(soon([&] {
      const std::lock_guard lock(mutex);
      return held != nullptr;
    }));
    const std::lock_guard lock(mutex);
    return std::move(held);
  }
  HttpHandler handler() {
    return [this](const HttpRequest&, const std::shared_ptr<Reply>& reply) {
      HttpResponse head;
      head.ping = ping;
      reply->begin(std::move(head));
      reply->when_gone([this] { ++gone; });
      const std::lock_guard lock(mutex);
      held = reply;
    };
  }
  std::mutex mutex;
  std::shared_ptr<Reply> held;
  std::atomic<int> gone = 0;
  std::string ping;
};

TEST(HttpServer, AClientThatGoesIsSeenThoughNothingIsWritten) {
  Stream stream;
  HttpServer server(quick(), stream.handler());
  RawClient client(server.port());
  client.send(get("/"));
  const auto reply = stream.reply();
  EXPECT_TRUE(reply->write("a"));
  EXPECT_THAT(client.read_until("a\r\n"), HasSubstr("1\r\na\r\n"));
  EXPECT_EQ(0, stream.gone);
  client.close();
  EXPECT_TRUE(soon([&] { return stream.gone == 1; }));
  EXPECT_FALSE(reply->write("b"));
  EXPECT_TRUE(soon([&] { return server.answering() == 0; }));
  // Who asks late is told at once.
  std::atomic<int> late = 0;
  reply->when_gone([&] { ++late; });
  reply->end();
  EXPECT_EQ(1, stream.gone);
}

TEST(HttpServer, AClientThatDoesNotReadIsGivenUpAtALimitOfBytes) {
  Stream stream;
  HttpConfig config = quick();
  config.max_unread = 1 << 20;
  HttpServer server(config, stream.handler());
  RawClient client(server.port(), 4096);
  client.send(get("/"));
  const auto reply = stream.reply();
  const std::string piece(10000, 'x');
  std::size_t written = 0;
  while (reply->write(piece)) written += piece.size();
  // What the two sockets hold was taken; beyond it max_unread at most waits in the server.
  EXPECT_LT(written, std::size_t{64} << 20);
  EXPECT_TRUE(soon([&] { return server.answering() == 0; }));
}

TEST(HttpServer, AClientThatTakesNothingForLongIsGivenUp) {
  Stream stream;
  HttpConfig config = quick();
  config.write_timeout = 0.3;
  config.max_unread = std::size_t{64} << 20;
  HttpServer server(config, stream.handler());
  RawClient client(server.port(), 4096);
  client.send(get("/"));
  const auto reply = stream.reply();
  EXPECT_TRUE(reply->write(std::string(std::size_t{32} << 20, 'x')));
  EXPECT_TRUE(soon([&] { return stream.gone == 1; }));
}

TEST(HttpServer, ASlowReaderGetsAll) {
  Stream stream;
  HttpServer server(quick(), stream.handler());
  RawClient client(server.port(), 4096);
  client.send(get("/", "Connection: close\r\n"));
  const auto reply = stream.reply();
  std::string sent;
  for (int i = 0; i < 300; ++i) {
    const std::string piece(static_cast<std::size_t>(1 + 37 * i % 4000),
                            static_cast<char>('a' + i % 26));
    sent += piece;
    EXPECT_TRUE(reply->write(piece));
  }
  reply->end();
  std::string got = body_of(client.read_all()), plain;
  for (std::size_t at = 0; at < got.size();) {
    const std::size_t size = std::stoul(got.substr(at), nullptr, 16);
    const std::size_t begin = got.find("\r\n", at) + 2;
    plain += got.substr(begin, size);
    at = begin + size + 2;
  }
  EXPECT_EQ(sent, plain);
}

TEST(HttpServer, ALongSilenceIsBrokenByPings) {
  Stream stream;
  stream.ping = ":p\n\n";
  HttpConfig config = quick();
  config.ping_seconds = 0.05;
  HttpServer server(config, stream.handler());
  RawClient client(server.port());
  client.send(get("/"));
  auto reply = stream.reply();
  EXPECT_THAT(client.read_until("4\r\n:p\n\n\r\n4\r\n:p\n\n\r\n"), HasSubstr(":p"));
  EXPECT_TRUE(reply->write("x"));
  reply->end();
  EXPECT_THAT(client.read_until("0\r\n\r\n"), HasSubstr("1\r\nx\r\n"));
  client.send(get("/again"));  // the connection goes on, and the old answer's timer is gone
  EXPECT_THAT(client.read_until(":p"), HasSubstr("200 OK"));
  reply = stream.reply();
  reply->end();
}

TEST(HttpServer, ClosingLetsAnswersEndAndTakesNoMore) {
  Stream stream;
  HttpServer server(quick(), stream.handler());
  RawClient idle(server.port()), busy(server.port());
  busy.send(get("/"));
  const auto reply = stream.reply();
  EXPECT_TRUE(soon([&] { return server.connections() == 2; }));
  server.close();
  EXPECT_EQ("", idle.read_all());
  EXPECT_FALSE(server.wait_answered(0.01));
  EXPECT_EQ(1, server.answering());
  EXPECT_TRUE(reply->write("end"));
  reply->end();
  EXPECT_TRUE(server.wait_answered(20));
  EXPECT_THAT(busy.read_all(), HasSubstr("3\r\nend\r\n0\r\n\r\n"));
}

TEST(HttpServer, AServerThatGoesCutsHalfAnswersOff) {
  Stream stream;
  auto server = std::make_unique<HttpServer>(quick(), stream.handler());
  RawClient client(server->port());
  client.send(get("/"));
  const auto reply = stream.reply();
  reply->write("half");
  EXPECT_THAT(client.read_until("half\r\n"), HasSubstr("half"));
  server.reset();
  EXPECT_FALSE(reply->write("more"));
  EXPECT_THAT(client.read_all(), Not(HasSubstr("0\r\n\r\n")));
}

TEST(HttpServer, MoreConnectionsThanAllowedAreTurnedAway) {
  HttpConfig config = quick();
  config.max_connections = 1;
  HttpServer server(config, echo);
  RawClient first(server.port());
  first.send(get("/"));
  EXPECT_EQ(200, status_of(first.read_answer()));
  RawClient second(server.port());
  const std::string answer = second.read_all();
  EXPECT_EQ(503, status_of(answer));
  EXPECT_THAT(answer, HasSubstr("Retry-After: "));
  first.close();
  EXPECT_TRUE(soon([&] { return server.connections() == 0; }));
  RawClient third(server.port());
  third.send(get("/"));
  EXPECT_EQ(200, status_of(third.read_answer()));
}

TEST(HttpServer, SaysWhyItCannotListen) {
  HttpServer server(quick(), echo);
  const auto error_of = [](const HttpConfig& config) {
    try {
      const HttpServer other(config, echo);
    } catch (const Error& e) {
      return std::pair(e.code(), std::string(e.what()));
    }
    return std::pair(Code::kInternal, std::string("it listens"));
  };
  HttpConfig config = quick();
  config.port = server.port();
  EXPECT_EQ(Code::kBusy, error_of(config).first);
  EXPECT_THAT(error_of(config).second, HasSubstr(std::to_string(server.port())));
  config = quick();
  config.host = "no.such.host.invalid";
  EXPECT_EQ(Code::kIo, error_of(config).first);
  EXPECT_THAT(error_of(config).second, HasSubstr("no.such.host.invalid"));
  config = quick();
  config.tls_cert = "nowhere/cert.pem";
  EXPECT_EQ(Code::kUsage, error_of(config).first);
  config.tls_key = "nowhere/key.pem";
  EXPECT_EQ(Code::kIo, error_of(config).first);
  EXPECT_THAT(error_of(config).second, HasSubstr("nowhere/cert.pem"));
  config = quick();
  config.threads = 0;
  EXPECT_EQ(Code::kUsage, error_of(config).first);
}

TEST(HttpServer, ManyClientsAtOnce) {
  HttpServer server(quick(), echo);
  std::atomic<int> right = 0;
  {
    std::vector<std::jthread> clients;
    for (int c = 0; c < 16; ++c) {
      clients.emplace_back([&, c] {
        for (int i = 0; i < 20; ++i) {
          RawClient client(server.port());
          const std::string body = std::to_string(c) + "." + std::to_string(i);
          client.send(post(body));
          right += body_of(client.read_answer()) == "POST /p " + body ? 1 : 0;
        }
      });
    }
  }
  EXPECT_EQ(320, right);
}

}  // namespace
}  // namespace cachalot::serve
