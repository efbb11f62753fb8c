// cachalot serve: a model behind an HTTP API and a web page, until it is told to stop.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <thread>

#include "base/error.h"
#include "cli/command.h"
#include "cli/engine_options.h"
#include "cli/finite.h"
#include "cli/html_page.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "cli/output_file.h"
#include "cli/plan_infer_report.h"
#include "cli/session.h"
#include "cost/decoder.h"
#include "model/init.h"
#include "runtime/describe.h"
#include "serve/http_server.h"
#include "serve/http_text.h"
#include "serve/service.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string model, name, format, keys, origin, hardware;
  std::string precision = kAutoPrecision;
  bool log_requests = false;
  serve::HttpConfig http;
  double max_body_mib = 16;
  double drain_seconds = 30;
  infer::SamplerConfig sampling{.temperature = 1};
  EngineOptions engine;
};

// SIGINT and SIGTERM, kept from every thread that is begun later and asked for here.
class StopSignals {
 public:
  StopSignals() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  }
  // True where one came within `seconds`.
  bool wait(double seconds) const {
    const auto whole = static_cast<std::time_t>(seconds);
    const timespec time{.tv_sec = whole,
                        .tv_nsec = static_cast<long>((seconds - static_cast<double>(whole)) * 1e9)};
    return sigtimedwait(&signals_, nullptr, &time) > 0;
  }

 private:
  sigset_t signals_{};
};

// While the weights are loaded nothing is lost by ending at once, and nobody waits for minutes.
class EndsWhileLoading {
 public:
  explicit EndsWhileLoading(const StopSignals& signals)
      : thread_([&signals](const std::stop_token& loaded) {
          while (!loaded.stop_requested()) {
            if (!signals.wait(0.05)) continue;
            fmt::print(stderr, "cachalot: stopped while the model was being loaded\n");
            std::_Exit(exit_status(Code::kInterrupted));
          }
        }) {}

 private:
  std::jthread thread_;
};

// Drives the engine on a thread of its own.
class EngineThread {
 public:
  EngineThread(infer::Engine& engine, const runtime::Runtime& runtime)
      : thread_([this, &engine, &runtime](const std::stop_token& stop) {
          try {
            runtime.pin_caller();
            engine.serve(stop);
          } catch (...) {
            error_ = std::current_exception();
          }
          ended_ = true;
        }) {}
  bool ended() const noexcept { return ended_; }
  void stop() {
    thread_.request_stop();
    if (thread_.joinable()) thread_.join();
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::atomic<bool> ended_ = false;
  std::exception_ptr error_;
  std::jthread thread_;  // the last member: it writes the others
};

std::string model_name(const Options& o) {
  if (!o.name.empty()) return o.name;
  const std::filesystem::path folder = std::filesystem::absolute(o.model).lexically_normal();
  return (folder.has_filename() ? folder : folder.parent_path()).filename().string();
}

// `plan infer` of this model on that hardware, as a page.
std::string plan_page(const Options& o, const Session& session, const Globals& globals) {
  if (o.hardware.empty()) return {};
  plan::InferOptions options;
  options.weights = model::format_of(session.model.config());
  // Of the contexts that are usual, those this model has.
  const int context = session.model.config().max_position_embeddings;
  for (int& length : options.contexts) length = std::min(length, context);
  options.contexts.erase(std::unique(options.contexts.begin(), options.contexts.end()),
                         options.contexts.end());
  options.prompt = std::min(options.prompt, context);
  options.output = std::min(options.output, context);
  const bool fp8_cache = o.engine.cache.format == "fp8";
  options.cache = fp8_cache ? cost::CacheFormat::kFp8 : cost::CacheFormat::kBf16;
  const cost::Decoder decoder = cost::load_decoder(o.model);
  const plan::HardwareProfile hardware = plan::load_hardware(o.hardware);
  const plan::InferPlan plan = plan::plan_infer(decoder, hardware, options);
  const InferReport report{plan,
                           options,
                           decoder,
                           hardware,
                           std::string(model::name(options.weights)),
                           fp8_cache ? "fp8" : "bf16"};
  return html_text(page_of(report, plan::infer_grid(decoder, hardware, options, plan.layout)),
                   globals);
}

serve::ServiceConfig service_config(const Options& o, const Session& session,
                                    const Globals& globals) {
  serve::ServiceConfig config;
  config.name = model_name(o);
  config.version = kVersion;
  config.precision = session.precision;
  config.eos = session.eos();
  config.vocab_size = session.model.config().vocab_size;
  config.defaults.sampling = o.sampling;
  config.allow_origin = o.origin;
  config.log_requests = o.log_requests;
  config.plan_page = plan_page(o, session, globals);
  if (!o.keys.empty()) config.keys = serve::ApiKeys::load(o.keys);
  try {
    config.chat = o.format.empty() ? text::ChatFormat::of(session.need_tokenizer("serve", ""))
                                   : text::ChatFormat::named(o.format);
  } catch (const Error& e) {
    config.no_chat = e.what();
    spdlog::warn("no chat, only /v1/completions: {}", e.what());
  }
  const runtime::Description machine = runtime::describe(session.runtime);
  config.machine = {{"cpu", machine.cpu},
                    {"level", machine.level},
                    {"threads", machine.threads},
                    {"device", machine.device.empty() ? Json(nullptr) : Json(machine.device)}};
  return config;
}

void check(const Options& o) {
  infer::validate(o.sampling);
  require_tokenizer_file(o.model, "serve", "");
  check_output_file("--routing-trace", o.engine.routing.file);
  if (!o.keys.empty()) {
    serve::ApiKeys::load(o.keys);  // before the weights
    if (const auto seen = serve::ApiKeys::warning(o.keys)) spdlog::warn("{}", *seen);
  }
  if (!o.hardware.empty()) plan::load_hardware(o.hardware);
  for (const char c : o.origin) {
    if (c > ' ' && c < 0x7F) continue;
    throw Error(Code::kUsage, "--allow-origin must be an origin as in https://example.org, or *");
  }
}

void say_ready(const Globals& globals, const serve::HttpServer& http, const std::string& name,
               const Session& session) {
  if (globals.json) {
    print_json({{"address", http.address()},
                {"model", name},
                {"precision", session.precision},
                {"load_s", session.load_seconds}});
  } else {
    print_line(
        fmt::format("{} at {} (the page), {}/v1 (the API)", name, http.address(), http.address()));
  }
  flush_output();
}

// Until everything under way is answered, the time is over, or a second signal comes.
void drain(serve::HttpServer& http, const StopSignals& signals, double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  if (http.answering() > 0) {
    spdlog::info("stopping when {} answers have ended, in {:.0f} s at most; again to stop now",
                 http.answering(), seconds);
  }
  while (!http.wait_answered(0.05) && std::chrono::steady_clock::now() < end) {
    if (signals.wait(0.05)) return;
  }
}

void run(const Options& options, const Globals& globals) {
  Options o = options;
  o.http.max_body = static_cast<std::size_t>(o.max_body_mib * 0x1p20);
  check(o);
  const StopSignals signals;
  // It listens before the weights are there, so that a port that is taken is said at once, and
  // /health tells who waits for it.
  std::atomic<serve::Service*> ready = nullptr;
  auto http = std::make_unique<serve::HttpServer>(
      o.http, [&ready](serve::HttpRequest request, const std::shared_ptr<serve::Reply>& reply) {
        if (serve::Service* service = ready.load()) {
          return service->handle(std::move(request), reply);
        }
        reply->send(serve::error_response(
            503, serve::error_json(503, "the model is being loaded: try again soon").dump()));
      });
  const bool local =
      o.http.host == "localhost" || o.http.host == "::1" || o.http.host.starts_with("127.");
  if (!local && o.keys.empty()) {
    spdlog::warn("{} can be reached from elsewhere, and no key is asked for (--api-keys)",
                 http->address());
  }
  std::optional<EndsWhileLoading> loading(std::in_place, signals);
  const Session session(o.model, o.precision, globals.threads, ModelUse::kLong);
  const text::Tokenizer& tokenizer = session.need_tokenizer("serve", "");
  LocalEngine engine(session, o.engine);
  serve::Service service(service_config(o, session, globals), *engine, tokenizer);
  // Whatever happens from here on, no request meets a service that is gone.
  struct Closer {
    std::unique_ptr<serve::HttpServer>& http;
    ~Closer() { http.reset(); }
  } closer{http};
  EngineThread thread(*engine, session.runtime);
  service.count_sockets([server = http.get()] {
    return serve::Service::Sockets{server->connections(), server->answering()};
  });
  ready = &service;
  loading.reset();
  say_ready(globals, *http, service.name(), session);
  while (!thread.ended() && !signals.wait(0.2)) {
  }
  service.stop_taking();
  http->close();
  if (!thread.ended()) drain(*http, signals, o.drain_seconds);
  thread.stop();  // what is still under way is told that the server stops
  http->wait_answered(1);
  engine.finish();
  thread.rethrow();
}

void add_http(CLI::App* command, Options& o) {
  const std::string group = "HTTP";
  command->add_option("--host", o.http.host, "Name or address to listen on; 0.0.0.0: all of them")
      ->type_name("HOST")
      ->group(group);
  command->add_option("--port", o.http.port, "Port to listen on; 0: one that is free")
      ->check(CLI::Range(0, 65535))
      ->type_name("PORT")
      ->group(group);
  command
      ->add_option("--api-keys", o.keys,
                   "File of keys, one a line (NAME KEY); requests then need one of them")
      ->type_name("FILE")
      ->group(group);
  command->add_option("--tls-cert", o.http.tls_cert, "Certificate chain (PEM): HTTPS")
      ->type_name("FILE")
      ->group(group);
  command->add_option("--tls-key", o.http.tls_key, "Its private key (PEM)")
      ->type_name("FILE")
      ->group(group);
  command
      ->add_option("--allow-origin", o.origin,
                   "Origin of pages elsewhere that may ask (CORS), * for all; default: none")
      ->type_name("ORIGIN")
      ->group(group);
  command->add_flag("--log-requests", o.log_requests, "Log a line for each request answered")
      ->group(group);
  command->add_option("--max-body", o.max_body_mib, "MiB of a request's body at most")
      ->check(finite_range(0.001, 1024))
      ->type_name("MIB")
      ->group(group);
  command->add_option("--max-connections", o.http.max_connections, "Open connections at most")
      ->check(CLI::Range(1, 1000000))
      ->type_name("N")
      ->group(group);
  command
      ->add_option("--read-timeout", o.http.read_timeout,
                   "Seconds a request may take to arrive (longer for a long body)")
      ->check(finite_range(0.1, 86400))
      ->type_name("SECONDS")
      ->group(group);
  command
      ->add_option("--write-timeout", o.http.write_timeout,
                   "Seconds for which a client may take nothing of its answer")
      ->check(finite_range(0.1, 86400))
      ->type_name("SECONDS")
      ->group(group);
  command->add_option("--http-threads", o.http.threads, "Threads that speak HTTP")
      ->check(CLI::Range(1, 64))
      ->type_name("N")
      ->group(group);
  command
      ->add_option("--drain", o.drain_seconds,
                   "Seconds that answers under way have left when the server is told to stop")
      ->check(finite_range(0, 86400))
      ->type_name("SECONDS")
      ->group(group);
}

}  // namespace

void add_serve(CLI::App& root, Globals& globals) {
  CLI::App* command = add_command(
      root, globals, "serve",
      "Serve a model over HTTP: an API as OpenAI's (/v1/chat/completions, /v1/completions, "
      "/v1/models), a page to talk and to look at, metrics for Prometheus (/metrics). Many "
      "requests "
      "run at once. SIGINT or SIGTERM stops it when answers under way have ended, a second one at "
      "once. docs/serving.md says more.");
  auto o = std::make_shared<Options>();
  add_model_folder(command, o->model);
  command->add_option("--name", o->name, "The model's name in answers; default: the folder's")
      ->type_name("NAME");
  command
      ->add_option("--chat-format", o->format,
                   "Chat format; default: the one of tokenizer_config.json's chat_template")
      ->check(CLI::IsMember({"v2", "v3", "v3-0324", "r1", "r1-0528", "v3.1"}))
      ->type_name("v2|v3|v3-0324|r1|r1-0528|v3.1");
  command
      ->add_option("--hardware", o->hardware,
                   "Profile of this machine (`plan probe` writes one) or a known name: the page "
                   "then shows the plan of this model on it")
      ->type_name("PROFILE");
  add_http(command, *o);
  add_max_running(command, o->engine);
  add_max_waiting(command, o->engine);
  add_precision_or_auto(command, o->precision);
  add_engine(command, o->engine);
  add_draft_certain(command, o->engine);
  add_sampling_defaults(command, o->sampling);
  add_record_flags(*command, o->engine.routing);
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
