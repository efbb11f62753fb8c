// The prefix store: what earlier prompts left in the latent cache, by blocks of 64 tokens, so that
// a prompt that begins as another did is not computed again. A tree in RAM over a database on disk;
// survives restarts and kill -9.
//
// A block's payload is opaque here: the latent rows of all layers for its tokens, as the cache
// holds them. It comes back bit for bit or not at all: each block is found by the hash of all
// tokens up to its end, compared with the tokens asked for, and, when read from disk, checked
// against its checksum. A damaged one is reported, deleted, and missed.
//
// Owns:    blocks in RAM up to ram_bytes (and queue_bytes on their way to disk), the folder, one
//          writing thread.
// Threads: any may call anything; `use` and `fill` run on the caller's, without locks.
// Errors:  opening: kBusy, kFormat, kUnsupported, kIo (prefix_folder.h), kUsage (budgets). Later a
//          disk that fails costs hits, not requests: it is reported and counted. Named contexts
//          throw, as prefix_contexts.h says.
//
// What holds when: a block is found as soon as insert returns (or dropped, and counted, where the
// queue is full and RAM has no room). It survives kill -9 once flush() has returned true: RocksDB's
// log is with the operating system; and a loss of power after flush(Durability::kDevice). Without a
// flush the writing thread gets there by itself, usually within milliseconds. Named contexts are on
// the device when saved.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/fields.h"
#include "infer/prefix_context_info.h"
#include "infer/prefix_key.h"
#include "infer/prefix_reports.h"

namespace cachalot::infer {

class PrefixTree;

struct PrefixStoreConfig {
  std::string folder;
  std::int64_t ram_bytes = std::int64_t{1} << 30;
  std::int64_t disk_bytes = std::int64_t{32} << 30;
  std::int64_t context_bytes = std::int64_t{8} << 30;
  std::int64_t queue_bytes = std::int64_t{256} << 20;

  void fields(FieldVisitor& f) {
    f("folder", folder, "where blocks survive a restart; empty: in RAM alone");
    f("ram_bytes", ram_bytes, 0, kNoLimit, "for blocks in RAM");
    f("disk_bytes", disk_bytes, 0, kNoLimit, "for the folder, named contexts apart; the oldest go");
    f("context_bytes", context_bytes, 0, kNoLimit, "for named contexts in the folder");
    f("queue_bytes", queue_bytes, 0, kNoLimit,
      "of blocks that wait to be written; further ones are not written");
  }
};

struct PrefixHooks {
  Report report;                      // every message of reports(), as it comes up
  std::function<std::int64_t()> now;  // the clock of named contexts; the system's where empty
};

// As DeepSeek's API names them: prompt_cache_hit_tokens and prompt_cache_miss_tokens.
struct PrefixLookup {
  std::int64_t hit_tokens = 0;
  std::int64_t miss_tokens = 0;
};

struct PrefixInsert {
  int inserted = 0;  // blocks that are new in RAM or on their way to disk
  int present = 0;   // blocks that were there
  // Of the inserted ones, those for which the queue (or RAM, without a folder) had no room.
  int dropped = 0;
  // Where to go on: the first block that is neither on disk nor on its way there (without a folder:
  // not in RAM), else the one after the last.
  int next = 0;
};

struct PrefixCounters {
  std::uint64_t lookups = 0;
  std::uint64_t hit_tokens = 0;
  std::uint64_t miss_tokens = 0;
  std::uint64_t ram_blocks = 0;      // served from RAM
  std::uint64_t disk_blocks = 0;     // served from disk
  std::uint64_t context_blocks = 0;  // served from named contexts' files
  std::uint64_t inserted = 0;
  std::uint64_t written = 0;  // to disk, second writes of old blocks that are still used included
  std::uint64_t dropped = 0;  // not written: the queue was full
  std::uint64_t failed = 0;   // not written or not read: the system refused
  std::uint64_t damaged = 0;  // found damaged
  std::uint64_t evicted = 0;  // from RAM
  std::uint64_t ram_bytes = 0;
  std::uint64_t disk_bytes = 0;     // in tables of blocks
  std::uint64_t context_bytes = 0;  // in files of named contexts
};

class PrefixStore {
 public:
  PrefixStore(const PrefixStoreConfig& config, const PrefixIdentity& identity,
              PrefixHooks hooks = {});
  ~PrefixStore();  // writes what is still in the queue
  PrefixStore(const PrefixStore&) = delete;
  PrefixStore& operator=(const PrefixStore&) = delete;

  // Hands the payload of each block of the longest known beginning of `tokens` to `use`, in order;
  // the bytes live until it returns. Ends where `use` returns false, which makes the rest a miss.
  // Blocks past the first `usable` tokens are not looked for: an engine needs at least the last
  // token itself, to have logits.
  using Use = std::function<bool(int block, std::span<const std::byte> payload)>;
  PrefixLookup lookup(std::span<const int> tokens, const Use& use,
                      std::size_t usable = ~std::size_t{0});

  // Takes in the whole blocks of `tokens` from `first_block` on that are not in RAM, up to one that
  // neither RAM nor the queue has room for: without it those behind it would not be found. `fill`
  // writes a block's payload.
  using Fill = std::function<void(int block, std::span<std::byte> payload)>;
  PrefixInsert insert(std::span<const int> tokens, int first_block, const Fill& fill);

  // Returns when all that was inserted and not dropped is written; false where something could not
  // be, since the store was opened or last flushed.
  enum class Durability { kProcess, kDevice };
  bool flush(Durability durability = Durability::kProcess);

  // Keeps the blocks of a prompt that are in RAM from eviction, as long as the result lives; it
  // must not outlive the store.
  class Pin {
   public:
    Pin() = default;
    Pin(Pin&& other) noexcept;
    Pin& operator=(Pin&& other) noexcept;
    ~Pin();
    std::int64_t tokens() const noexcept;

   private:
    friend class PrefixStore;
    PrefixTree* tree_ = nullptr;
    std::vector<BlockPlace> path_;
  };
  Pin pin(std::span<const int> tokens);

  // Named contexts: kUnsupported without a folder.
  SavedContext save_context(const std::string& name, std::span<const int> tokens,
                            const ContextLife& life = {});
  std::vector<ContextInfo> contexts();
  bool pin_context(const std::string& name);
  bool unpin_context(const std::string& name);
  bool delete_context(const std::string& name);

  PrefixCounters counters() const;
  std::vector<std::string> reports() const;  // the last hundred

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cachalot::infer
