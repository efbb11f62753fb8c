// Flags of the engine, shared by the commands that generate, and the engine they give.
//
// Owns:    a LocalEngine owns its prefix store; it borrows the Session.
// Threads: one command.
// Errors:  kUsage naming the flag; those of PrefixStore and Engine.
#pragma once

#include <CLI/App.hpp>
#include <memory>
#include <string>

#include "cli/cache_options.h"
#include "cli/session.h"
#include "infer/engine.h"

namespace cachalot::cli {

struct StoreOptions {
  std::string folder;  // empty: $CACHALOT_PREFIX_STORE, else no store
  double memory_gib = 1;
  double disk_gib = 32;
};

struct EngineOptions {
  CacheOptions cache;
  StoreOptions store;
  std::string mtp = "auto";
  int draft_length = 1;
};

void add_mtp(CLI::App* app, EngineOptions& options);  // --mtp, --draft-length
void add_store(CLI::App* app,
               StoreOptions& options);  // --prefix-store, --prefix-memory, --prefix-disk
void add_engine(CLI::App* app, EngineOptions& options);  // all of them, and those of the cache

infer::EngineConfig engine_config(const EngineOptions& options);
// Null where no folder is asked for.
std::unique_ptr<infer::PrefixStore> open_store(const StoreOptions& options, const Session& session,
                                               const infer::EngineConfig& config);

class LocalEngine {
 public:
  LocalEngine(const Session& session, const EngineOptions& options);
  infer::Engine& operator*() noexcept { return engine_; }
  infer::Engine* operator->() noexcept { return &engine_; }
  infer::PrefixStore* store() noexcept { return store_.get(); }

 private:
  infer::EngineConfig config_;
  std::unique_ptr<infer::PrefixStore> store_;
  infer::Engine engine_;
};

}  // namespace cachalot::cli
