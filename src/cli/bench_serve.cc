// cachalot bench serve | load: the engine under load, and how soon a model answers.
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>

#include "base/error.h"
#include "cli/command.h"
#include "cli/engine_options.h"
#include "cli/finite.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "cli/output_file.h"
#include "cli/prompt.h"
#include "infer/bench_serve.h"
#include "runtime/memory.h"

namespace cachalot::cli {

namespace {

struct ServeOptions {
  std::string model;
  std::string precision = kAutoPrecision;
  EngineOptions engine;
  infer::ServeBenchOptions bench;
};

Json to_json(const infer::Percentiles& p) {
  return {{"p50", p.p50}, {"p95", p.p95}, {"p99", p.p99}, {"max", p.most}};
}

Json to_json(const runtime::MemoryUse& m, std::size_t cache_touched) {
  return {{"rss_bytes", m.resident},
          {"anonymous_bytes", m.anonymous},
          {"malloc_bytes", m.heap},
          {"malloc_free_bytes", m.heap_free},
          {"cache_touched_bytes", cache_touched}};
}

void print_serve(const infer::ServeBenchResult& r) {
  const auto seconds = [](const infer::Percentiles& p) {
    return fmt::format("{:.3f} / {:.3f} / {:.3f} / {:.3f} s", p.p50, p.p95, p.p99, p.most);
  };
  print_line(fmt::format("requests              {} in {:.1f} s ({} cancelled, {} refused at first)",
                         r.requests, r.seconds, r.cancelled, r.refused));
  print_line(fmt::format("wrong answers         {}", r.wrong));
  print_line(fmt::format("ended by errors       {}", r.failed));
  print_line(fmt::format(
      "new tokens            {} ({:.1f}/s; one request after the other: {:.1f}/s)", r.new_tokens,
      static_cast<double>(r.new_tokens) / r.seconds, r.alone_tokens_per_s));
  print_line(fmt::format("prompt tokens         {} ({} reused)", r.prompt_tokens, r.reused_tokens));
  print_line(
      fmt::format("first token           {} (p50 / p95 / p99 / max)", seconds(r.first_token)));
  print_line(fmt::format("longest gap           {}", seconds(r.gap)));
  print_line(fmt::format("passes                {} of {:.1f} rows, the longest {:.3f} s",
                         r.engine.passes,
                         static_cast<double>(r.engine.rows) /
                             static_cast<double>(std::max<std::int64_t>(r.engine.passes, 1)),
                         r.engine.longest_pass_seconds));
  print_line(fmt::format("preempted, evicted    {}, {}", r.engine.preemptions, r.engine.evictions));
  const auto bytes = [](std::size_t n) { return human_bytes(static_cast<double>(n)); };
  const auto both = [&](const char* what, std::size_t early, std::size_t late) {
    print_line(
        fmt::format("{:<21} {} after a tenth, {} at the end", what, bytes(early), bytes(late)));
  };
  both("memory", r.early.resident, r.late.resident);
  both("  of its own", r.early.anonymous, r.late.anonymous);
  both("  given out by malloc", r.early.heap, r.late.heap);
  both("  kept free by malloc", r.early.heap_free, r.late.heap_free);
  both("  cache pages touched", r.page_bytes * static_cast<std::size_t>(r.early_pages),
       r.page_bytes * static_cast<std::size_t>(r.late_pages));
}

Json serve_json(const infer::ServeBenchResult& r) {
  return {{"requests", r.requests},
          {"cancelled", r.cancelled},
          {"refused", r.refused},
          {"wrong", r.wrong},
          {"failed", r.failed},
          {"seconds", r.seconds},
          {"new_tokens", r.new_tokens},
          {"new_tokens_per_s", static_cast<double>(r.new_tokens) / r.seconds},
          {"alone_tokens_per_s", r.alone_tokens_per_s},
          {"prompt_tokens", r.prompt_tokens},
          {"reused_tokens", r.reused_tokens},
          {"first_token_s", to_json(r.first_token)},
          {"longest_gap_s", to_json(r.gap)},
          {"passes", r.engine.passes},
          {"rows", r.engine.rows},
          {"longest_pass_s", r.engine.longest_pass_seconds},
          {"preemptions", r.engine.preemptions},
          {"evictions", r.engine.evictions},
          {"memory",
           {{"early", to_json(r.early, static_cast<std::size_t>(r.early_pages) * r.page_bytes)},
            {"late", to_json(r.late, static_cast<std::size_t>(r.late_pages) * r.page_bytes)}}}};
}

void serve(const ServeOptions& o, const Globals& globals) {
  check_output_file("--routing-trace", o.engine.routing.file);
  const Session session(o.model, o.precision, globals.threads, ModelUse::kLong);
  infer::ServeBenchOptions bench = o.bench;
  bench.engine = engine_config(o.engine);
  const auto store = open_store(o.engine.store, session, bench.engine);
  bench.engine.store = store.get();
  const auto recorder = open_recorder(o.engine.routing, session, bench.engine);
  const bool terminal = ::isatty(STDERR_FILENO) != 0;
  int lines = 0;
  const auto r =
      infer::bench_serve(session.context(), session.model, bench, [&](const std::string& what) {
        if (terminal) {
          fmt::print(stderr, "\r\x1b[K{}", what);
        } else if (lines++ % 30 == 0) {
          spdlog::info("{}", what);
        }
      });
  if (terminal) fmt::print(stderr, "\n");
  const bool heard = printed([&] {
    if (globals.json) {
      print_json(serve_json(r));
    } else {
      print_serve(r);
    }
  });
  if (recorder != nullptr) recorder->write();
  if (r.wrong > 0 || r.failed > 0) {
    throw Error(Code::kInternal,
                cat(r.wrong, " answers differ from those of the same requests alone, ", r.failed,
                    " requests ended by an error or a full cache"));
  }
  if (!heard) throw ClosedPipe{};
}

struct LoadOptions {
  std::string model;
  std::string precision = kAutoPrecision;
  EngineOptions engine;
  int prompt = 16;
  int times = 3;
};

void load(const LoadOptions& o, const Globals& globals) {
  using Clock = std::chrono::steady_clock;
  Json list = Json::array();
  for (int i = 0; i < o.times; ++i) {
    const Clock::time_point begin = Clock::now();
    const Session session(o.model, o.precision, globals.threads);
    LocalEngine engine(session, o.engine);
    infer::Request request;
    request.prompt = any_prompt(session, o.prompt);
    request.max_tokens = 1;
    engine->run(request);
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    list.push_back({{"load_s", session.load_seconds},
                    {"placement", model::name(session.model.placement())},
                    {"first_token_s", seconds},
                    {"rss_bytes", runtime::memory_use().resident},
                    {"mapped_bytes", session.model.mapped_bytes()},
                    {"copied_bytes", session.model.copied_bytes()}});
    if (globals.json) continue;
    print_line(
        fmt::format("{}: weights ready after {:.3f} s, first token after {:.3f} s in all ({} "
                    "mapped, {} copied, "
                    "resident {})",
                    i + 1, session.load_seconds, seconds,
                    human_bytes(static_cast<double>(session.model.mapped_bytes())),
                    human_bytes(static_cast<double>(session.model.copied_bytes())),
                    human_bytes(static_cast<double>(runtime::memory_use().resident))));
  }
  if (globals.json) print_json({{"loads", list}});
}

}  // namespace

void add_bench_serve(CLI::App& bench, Globals& globals) {
  CLI::App* command = add_command(
      bench, globals, "serve",
      "Many requests at once, of random lengths and priorities, some cancelled; every answer is "
      "compared with the same request's alone. Fails where one differs.");
  auto o = std::make_shared<ServeOptions>();
  add_model_folder(command, o->model);
  command->add_option("--streams", o->bench.streams, "Requests in flight")
      ->check(CLI::Range(1, 100000))
      ->type_name("N");
  command->add_option("--seconds", o->bench.seconds, "How long requests are submitted")
      ->check(finite_range(0.1, 1e6))
      ->type_name("SECONDS");
  command->add_option("--distinct", o->bench.distinct, "Different requests, asked again and again")
      ->check(CLI::Range(1, 100000))
      ->type_name("N");
  command->add_option("--most-prompt", o->bench.most_prompt, "Tokens of the longest prompt")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N");
  command->add_option("--most-tokens", o->bench.most_tokens, "New tokens of the longest answer")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N");
  command->add_option("--cancelled", o->bench.cancelled, "Share of requests that are cancelled")
      ->check(finite_range(0, 1))
      ->type_name("SHARE");
  command->add_option("--seed", o->bench.seed, "Of lengths, tokens and moments")
      ->check(seed_range())
      ->type_name("N");
  add_max_running(command, o->engine);
  add_precision_or_auto(command, o->precision);
  add_engine(command, o->engine);
  add_record_flags(*command, o->engine.routing);
  on_run(command, globals, o, serve);
}

void add_bench_load(CLI::App& bench, Globals& globals) {
  CLI::App* command =
      add_command(bench, globals, "load",
                  "From nothing to the first token: opening the folder, a short prompt. The first "
                  "time may find the files on disk, later ones in memory.");
  auto o = std::make_shared<LoadOptions>();
  add_model_folder(command, o->model);
  command->add_option("--prompt", o->prompt, "Tokens of the prompt")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N");
  command->add_option("--times", o->times, "How often")->check(CLI::Range(1, 1000))->type_name("N");
  add_precision_or_auto(command, o->precision);
  add_engine(command, o->engine);
  on_run(command, globals, o, load);
}

}  // namespace cachalot::cli
