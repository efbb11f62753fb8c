// The routes with a real engine behind them and real sockets before them: what threads do to each
// other. What answers say, member by member, is in openai_answer_test.cc and tests/serve_api.py.
#include "serve/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "runtime/runtime.h"
#include "serve/http_client_test.h"
#include "serve/http_server.h"
#include "testing/fixtures.h"
#include "text/byte_tokenizer.h"

namespace cachalot::serve {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kKey = "a-key-of-sixteen-characters";

std::filesystem::path model_with_mtp() {
  for (const auto& folder : testing::fixture_folders(testing::FixtureKind::kModel)) {
    if (model::Model::load(folder, Precision::kF32).has_mtp()) return folder;
  }
  ADD_FAILURE() << "no model fixture has an MTP layer";
  return {};
}

struct Served {
  explicit Served(const infer::EngineConfig& config = {}, ServiceConfig service_config = named())
      : engine(rt.context(), model, config, &tokenizer),
        service(std::move(service_config), engine, tokenizer),
        http(any_port(),
             [this](HttpRequest request, const std::shared_ptr<Reply>& reply) {
               service.handle(std::move(request), reply);
             }),
        thread([this](const std::stop_token& stop) { engine.serve(stop); }) {}

  static HttpConfig any_port() {
    HttpConfig config;
    config.port = 0;
    return config;
  }
  static ServiceConfig named() {
    ServiceConfig config;
    config.name = "m";
    config.no_chat = "bytes";
    return config;
  }
  // What the engine says to the same request alone.
  std::string alone(int number, int tokens) const {
    infer::Engine one(rt.context(), model, {.mtp = infer::MtpMode::kOff}, &tokenizer);
    infer::Request request;
    request.prompt = prompt(number);
    request.max_tokens = tokens;
    return one.run(request).choices.front().text;
  }
  static std::vector<std::int32_t> prompt(int number) { return {65 + number, 97, 98, number}; }
  static std::string body(int number, int tokens, bool stream) {
    return dump({{"prompt", prompt(number)},
                 {"max_tokens", tokens},
                 {"temperature", 0},
                 {"stream", stream}});
  }
  static std::string post(const std::string& path, const std::string& body,
                          const std::string& more = "") {
    return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + more +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  std::string ask(const std::string& body) {
    RawClient client(http.port());
    client.send(post("/v1/completions", body));
    return client.read_answer();
  }

  runtime::Runtime rt{{.threads = 2, .cpu = {}, .on_device = false}};
  model::Model model = model::Model::load(model_with_mtp(), Precision::kF32);
  text::Tokenizer tokenizer{text::byte_tokenizer(true), text::byte_tokenizer_config(true)};
  infer::Engine engine;
  Service service;
  HttpServer http;
  std::jthread thread;  // ends first
};

// The text of all chunks, and that they end as they should.
std::string text_of_events(const std::string& answer) {
  std::string text;
  std::size_t ends = 0;
  for (std::size_t at = 0; (at = answer.find("data: ", at)) != std::string::npos;) {
    at += 6;
    const std::string line = answer.substr(at, answer.find('\n', at) - at);
    if (line == "[DONE]") {
      ++ends;
      continue;
    }
    text += Json::parse(line).at("choices").at(0).at("text").get<std::string>();
  }
  EXPECT_EQ(1u, ends) << answer;
  return text;
}

TEST(Service, ManyStreamsAndWholeAnswersAtOnceAreEachTheirOwn) {
  Served served({.max_running = 6});
  constexpr int kClients = 12, kTokens = 24;
  std::vector<std::string> expected;
  for (int c = 0; c < kClients; ++c) expected.push_back(served.alone(c, kTokens));
  std::atomic<int> right = 0;
  {
    std::vector<std::jthread> clients;
    for (int c = 0; c < kClients; ++c) {
      clients.emplace_back([&, c] {
        RawClient client(served.http.port());
        const bool stream = c % 2 == 0;
        client.send(Served::post("/v1/completions", Served::body(c, kTokens, stream)));
        std::string text;
        if (stream) {
          text = text_of_events(client.read_until("0\r\n\r\n"));
        } else {
          text = Json::parse(body_of(client.read_answer())).at("choices").at(0).at("text");
        }
        right += text == expected[static_cast<std::size_t>(c)] ? 1 : 0;
      });
    }
  }
  EXPECT_EQ(kClients, right);
  EXPECT_TRUE(soon([&] { return served.engine.stats().running == 0; }));
}

TEST(Service, ClientsThatGoCostNothingFurther) {
  Served served;
  for (int c = 0; c < 8; ++c) {
    RawClient client(served.http.port());
    client.send(Served::post("/v1/completions", Served::body(c, 4000, c % 2 == 0)));
    if (c % 2 == 0) client.read_until("data: ");
  }
  EXPECT_TRUE(soon([&] {
    const auto stats = served.engine.stats();
    return stats.finished == 8 && stats.running == 0 && served.http.answering() == 0;
  }));
  EXPECT_EQ(200, status_of(served.ask(Served::body(1, 2, false))));
}

TEST(Service, MoreThanMayWaitAreToldToComeBack) {
  ServiceConfig config = Served::named();
  Served served({.max_running = 1, .max_waiting = 2}, config);
  std::vector<std::unique_ptr<RawClient>> waiting;
  // One runs, two wait; the engine takes requests between passes, so a few may be refused early.
  int refused = 0;
  for (int c = 0; c < 6; ++c) {
    waiting.push_back(std::make_unique<RawClient>(served.http.port()));
    waiting.back()->send(Served::post("/v1/completions", Served::body(c, 3000, true)));
    const std::string head = waiting.back()->read_until("\r\n\r\n");
    if (status_of(head) != 503) continue;
    ++refused;
    EXPECT_THAT(head, HasSubstr("Retry-After: "));
  }
  EXPECT_GE(refused, 3);
}

TEST(Service, StoppingTellsThoseWhoWaitAndThoseWhoRead) {
  Served served;
  RawClient reads(served.http.port()), waits(served.http.port());
  reads.send(Served::post("/v1/completions", Served::body(1, 4000, true)));
  waits.send(Served::post("/v1/completions", Served::body(2, 4000, false)));
  EXPECT_THAT(reads.read_until("data: "), HasSubstr("data: "));
  EXPECT_TRUE(soon([&] { return served.engine.stats().running == 2; }));
  served.service.stop_taking();
  EXPECT_EQ(503, status_of(served.ask(Served::body(3, 1, false))));
  served.thread.request_stop();
  served.thread.join();
  EXPECT_EQ(503, status_of(waits.read_answer()));
  const std::string rest = reads.read_until("0\r\n\r\n");
  EXPECT_THAT(rest, HasSubstr("data: {\"error\""));
  EXPECT_THAT(rest, Not(HasSubstr("[DONE]")));
}

TEST(Service, KeysAreAskedForWhereThereAreSome) {
  ServiceConfig config = Served::named();
  config.keys = ApiKeys::parse(std::string("one ") + kKey + "\n", "keys");
  Served served({}, config);
  EXPECT_EQ(401, status_of(served.ask(Served::body(1, 1, false))));
  RawClient client(served.http.port());
  client.send(Served::post("/v1/completions", Served::body(1, 1, false),
                           std::string("Authorization: Bearer ") + kKey + "\r\n"));
  EXPECT_EQ(200, status_of(client.read_answer()));
  client.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(200, status_of(client.read_answer()));
  client.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(401, status_of(client.read_answer()));
}

TEST(Service, MetricsCountWhileTheEngineRuns) {
  Served served;
  std::jthread asks([&] {
    for (int i = 0; i < 5; ++i) EXPECT_EQ(200, status_of(served.ask(Served::body(i, 8, false))));
  });
  RawClient client(served.http.port());
  for (int i = 0; i < 20; ++i) {
    client.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_EQ(200, status_of(client.read_answer()));
    client.send("GET /v1/server HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_EQ("m", Json::parse(body_of(client.read_answer())).at("model"));
  }
  asks.join();
  client.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string metrics = client.read_answer();
  EXPECT_THAT(metrics, HasSubstr("cachalot_generated_tokens_total 40\n"));
  EXPECT_THAT(metrics, HasSubstr("cachalot_prompt_tokens_total 20\n"));
  EXPECT_THAT(metrics, HasSubstr("{endpoint=\"/v1/completions\",status=\"200\"} 5\n"));
}

TEST(Service, ChatWithoutAFormatIsRefusedWithItsReason) {
  Served served;
  RawClient client(served.http.port());
  client.send(
      Served::post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"a"}]})"));
  const std::string answer = client.read_answer();
  EXPECT_EQ(400, status_of(answer));
  EXPECT_THAT(answer, HasSubstr("bytes"));
}

}  // namespace
}  // namespace cachalot::serve
