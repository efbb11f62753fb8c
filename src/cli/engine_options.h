// Flags of the engine, shared by the commands that generate, and the engine they give.
//
// Owns:    a LocalEngine owns its prefix store and its routing trace; it borrows the Session.
// Threads: one command.
// Errors:  kUsage naming the flag; those of PrefixStore and Engine.
#pragma once

#include <CLI/App.hpp>
#include <memory>
#include <string>

#include "cli/cache_options.h"
#include "cli/routing_recorder.h"
#include "cli/session.h"
#include "infer/engine.h"

namespace cachalot::cli {

struct StoreOptions {
  std::string folder;  // empty: $CACHALOT_PREFIX_STORE, else no store
  double memory_gib = 1;
  double disk_gib = 32;
  double contexts_gib = 8;
  bool must_exist = false;  // a command that only looks into a store makes none
};

struct EngineOptions {
  CacheOptions cache;
  StoreOptions store;
  RecordOptions routing;
  std::string mtp = "auto";
  int draft_length = 1;
  std::string draft_certain = "on";          // of commands whose answers can be held to a form
  int max_running = 64, max_waiting = 1024;  // of commands that serve many
};

void add_mtp_mode(CLI::App* app, EngineOptions& options);  // --mtp
void add_mtp(CLI::App* app, EngineOptions& options);       // --mtp, --draft-length
// --prefix-store, --prefix-memory, --prefix-disk, --prefix-contexts
void add_store(CLI::App* app, StoreOptions& options);
void add_draft_certain(CLI::App* app, EngineOptions& options);  // --draft-certain
void add_engine(CLI::App* app, EngineOptions& options);  // all of them, and those of the cache
void add_max_running(CLI::App* app, EngineOptions& options);
void add_max_waiting(CLI::App* app, EngineOptions& options);

infer::EngineConfig engine_config(const EngineOptions& options);
// An engine with this config has an MTP layer to run.
bool runs_mtp(const Session& session, const infer::EngineConfig& config);
// Null where no folder is asked for.
std::unique_ptr<infer::PrefixStore> open_store(const StoreOptions& options, const Session& session,
                                               const infer::EngineConfig& config);
// What records the engine's routing, attached to `config`; null where no trace is asked for.
std::unique_ptr<RoutingRecorder> open_recorder(const RecordOptions& options, const Session& session,
                                               infer::EngineConfig& config);

class LocalEngine {
 public:
  // `choices`: as many texts as one of its requests asks for.
  LocalEngine(const Session& session, const EngineOptions& options, int choices = 1);
  infer::Engine& operator*() noexcept { return engine_; }
  infer::Engine* operator->() noexcept { return &engine_; }
  infer::PrefixStore* store() noexcept { return store_.get(); }
  void finish();  // after the last request: writes the routing trace, where one is asked for

 private:
  infer::EngineConfig config_;
  std::unique_ptr<infer::PrefixStore> store_;
  std::unique_ptr<RoutingRecorder> recorder_;
  infer::Engine engine_;
};

}  // namespace cachalot::cli
