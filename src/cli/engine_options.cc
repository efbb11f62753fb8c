#include "cli/engine_options.h"

#include <spdlog/spdlog.h>

#include <CLI/Validators.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "cli/finite.h"
#include "infer/prefix_blocks.h"

namespace cachalot::cli {

namespace {

constexpr const char* kMtpGroup = "Multi-token prediction";
constexpr const char* kStoreGroup = "Prefix store";

infer::MtpMode parse_mtp(const std::string& text) {
  for (const auto mode : {infer::MtpMode::kAuto, infer::MtpMode::kOn, infer::MtpMode::kOff}) {
    if (text == infer::name(mode)) return mode;
  }
  throw Error(Code::kUsage, cat("--mtp is `", text, "`, but must be on, off or auto"));
}

std::int64_t bytes_of(double gib) { return static_cast<std::int64_t>(gib * 0x1p30); }

}  // namespace

void add_mtp_mode(CLI::App* app, EngineOptions& o) {
  app->add_option(
         "--mtp", o.mtp,
         "Draft with the MTP layer; auto: where the model has one, as many tokens (0 to 4) "
         "as pay, by measured acceptance and cost")
      ->check(CLI::IsMember({"on", "off", "auto"}))
      ->type_name("on|off|auto")
      ->group(kMtpGroup);
}

void add_mtp(CLI::App* app, EngineOptions& o) {
  add_mtp_mode(app, o);
  app->add_option("--draft-length", o.draft_length, "Tokens to draft with --mtp on")
      ->check(CLI::Range(1, infer::kMaxDrafts))
      ->type_name("N")
      ->group(kMtpGroup);
}

void add_draft_certain(CLI::App* app, EngineOptions& o) {
  app->add_option("--draft-certain", o.draft_certain,
                  "Draft text that a schema, pattern or grammar leaves no choice about: off is for "
                  "measuring, answers are the same")
      ->check(CLI::IsMember({"on", "off"}))
      ->type_name("on|off");
}

void add_store(CLI::App* app, StoreOptions& o) {
  app->add_option("--prefix-store", o.folder,
                  "Folder that keeps what was read of prompts, for later runs; default: "
                  "$CACHALOT_PREFIX_STORE, else none")
      ->type_name("DIR")
      ->group(kStoreGroup);
  app->add_option("--prefix-memory", o.memory_gib, "GiB of it to hold in memory")
      ->check(finite_range(0, 1048576))
      ->type_name("GIB")
      ->group(kStoreGroup);
  app->add_option("--prefix-disk", o.disk_gib, "GiB of it on disk; the oldest blocks go first")
      ->check(finite_range(0, 1048576))
      ->type_name("GIB")
      ->group(kStoreGroup);
  app->add_option("--prefix-contexts", o.contexts_gib,
                  "GiB on disk for all named contexts (`cachalot context`), beside --prefix-disk")
      ->check(finite_range(0, 1048576))
      ->type_name("GIB")
      ->group(kStoreGroup);
}

void add_engine(CLI::App* app, EngineOptions& o) {
  add_mtp(app, o);
  add_kv_cache(app, o.cache);
  add_fast(app, o.cache);
  add_kv_memory(app, o.cache);
  add_store(app, o.store);
}

void add_max_running(CLI::App* app, EngineOptions& o) {
  app->add_option("--max-running", o.max_running, "Texts in a pass at most")
      ->check(CLI::Range(1, 100000))
      ->type_name("N");
}

void add_max_waiting(CLI::App* app, EngineOptions& o) {
  app->add_option("--max-waiting", o.max_waiting, "Requests that wait for their turn at most")
      ->check(CLI::Range(1, 1000000))
      ->type_name("N");
}

infer::EngineConfig engine_config(const EngineOptions& o) {
  infer::EngineConfig config;
  config.mtp = parse_mtp(o.mtp);
  config.draft_length = o.draft_length;
  config.draft_certain = o.draft_certain == "on";
  config.max_running = o.max_running;
  config.max_waiting = o.max_waiting;
  config.attention = o.cache.attention();
  config.cache = o.cache.latent_format();
  config.cache_bytes = static_cast<std::size_t>(o.cache.memory_gib * 0x1p30);
  return config;
}

bool runs_mtp(const Session& session, const infer::EngineConfig& config) {
  return config.mtp != infer::MtpMode::kOff && session.model.has_mtp();
}

std::unique_ptr<infer::PrefixStore> open_store(const StoreOptions& o, const Session& session,
                                               const infer::EngineConfig& config) {
  const char* from_environment = std::getenv("CACHALOT_PREFIX_STORE");
  std::string folder = o.folder;
  if (folder.empty() && from_environment != nullptr) folder = from_environment;
  if (folder.empty()) return nullptr;
  std::error_code ignored;
  if (o.must_exist && !std::filesystem::exists(std::filesystem::path(folder) / "STORE", ignored)) {
    throw Error(Code::kUsage,
                cat("--prefix-store ", folder,
                    " is no prefix store: it has no file STORE; name the folder of one, or make it "
                    "with `cachalot context save`"));
  }
  const model::CacheShape shape(
      session.model.config(),
      config.cache.value_or(model::default_cache_format(session.model.precision())));
  const bool mtp = runs_mtp(session, config);
  const infer::PrefixStoreConfig store{.folder = folder,
                                       .ram_bytes = bytes_of(o.memory_gib),
                                       .disk_bytes = bytes_of(o.disk_gib),
                                       .context_bytes = bytes_of(o.contexts_gib)};
  infer::PrefixHooks hooks;
  hooks.report = [](std::string_view text) { spdlog::warn("prefix store: {}", text); };
  return std::make_unique<infer::PrefixStore>(
      store,
      infer::prefix_identity(session.folder, session.context(), session.model, shape,
                             config.attention, mtp),
      hooks);
}

std::unique_ptr<RoutingRecorder> open_recorder(const RecordOptions& o, const Session& session,
                                               infer::EngineConfig& config) {
  if (!o.asked()) return nullptr;
  auto recorder =
      std::make_unique<RoutingRecorder>(o, session.model.config(), runs_mtp(session, config));
  recorder->attach(config);
  return recorder;
}

LocalEngine::LocalEngine(const Session& session, const EngineOptions& options, int choices)
    : config_(engine_config(options)),
      store_(open_store(options.store, session, config_)),
      recorder_(open_recorder(options.routing, session, config_)),
      engine_(
          session.context(), session.model,
          [this, choices] {
            infer::EngineConfig config = config_;
            config.max_running = std::max(config.max_running, choices);
            config.store = store_.get();
            return config;
          }(),
          session.tokenizer ? &*session.tokenizer : nullptr) {}

void LocalEngine::finish() {
  if (recorder_ != nullptr) recorder_->write();
}

}  // namespace cachalot::cli
