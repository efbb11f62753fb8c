// Named contexts: prompts that stay on disk whatever else is written, until they expire or are
// deleted.
//
// A save puts the blocks that no context has yet into one file, a segment, and refers to segments
// of older contexts for the rest; a segment goes when no context refers to it. So contexts with a
// common beginning hold it once.
//
// Owns:    the records in RAM, and the index from block to segment.
// Threads: any. Saves go one at a time and do not hold up reads.
// Errors:  kUsage for a name that cannot be one, kIo where the disk refuses. No room is a return
// value.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "infer/prefix_context_record.h"
#include "infer/prefix_disk.h"
#include "infer/prefix_segment.h"

namespace cachalot::infer {

struct ContextLife {
  std::int64_t ttl_seconds = 0;  // from the save on; 0: for ever
  std::int64_t quota_bytes = 0;  // the payload it may keep; 0: what the store allows
};

struct SavedContext {
  enum class Outcome {
    kSaved,
    kNothing,    // no whole block of it is in the store
    kOverQuota,  // more than its own quota; nothing was changed
    kFull,       // more than is left for all contexts; nothing was changed
  };
  Outcome outcome = Outcome::kNothing;
  std::int64_t tokens = 0;  // kept, or that would have been
  std::int64_t bytes = 0;   // of their payload
  std::string text;  // for a person, where the outcome is not kSaved: met, needed, what to do
};

struct ContextInfo {
  std::string name;
  std::int64_t tokens = 0;
  std::int64_t missing = 0;  // tokens of blocks that were damaged; saving it again brings them back
  std::int64_t bytes = 0;    // of its payload; parts may be shared with other contexts
  std::int64_t quota = 0;
  std::int64_t saved = 0;    // seconds since 1970
  std::int64_t expires = 0;  // 0: never
  bool pinned = false;
  bool usable = false;  // saved by the model and numerics that have the store open now
};

void check_context_name(std::string_view name);  // kUsage

class NamedContexts {
 public:
  using Now = std::function<std::int64_t()>;  // seconds since 1970
  using Source = std::function<BlockPtr(const BlockPlace&)>;

  NamedContexts(const Database& database, std::string incoming, std::uint64_t budget_bytes,
                const KeyChain& chain, Now now, Report report);

  // Keeps the longest beginning of `tokens` whose blocks `source` has, in the place of an older one
  // of this name.
  SavedContext save(const std::string& name, std::span<const int> tokens, const ContextLife& life,
                    const Source& source);
  std::vector<ContextInfo> list();  // by name, the expired left out
  // A pinned context does not expire. Both return false where there is no such name.
  bool set_pinned(const std::string& name, bool pinned);
  bool remove(const std::string& name);

  bool holds(const BlockKey& key) const;
  DiskBlock read(
      const BlockPlace& place);  // a damaged block is reported, and no longer referred to
  std::uint64_t bytes() const;   // in files
  int damaged() const noexcept { return damaged_at_opening_; }

 private:
  struct Spot {
    std::uint64_t segment;
    std::uint32_t position;
  };

  void load();
  void release_segments();
  void drop_expired();
  void index();
  std::optional<Spot> spot(const BlockKey& key) const;
  DiskBlock read_at(const Spot& spot, const BlockPlace& place);
  void punch(const Spot& spot);
  SavedContext keep(std::span<const BlockPlace> places, const Source& source, SegmentFile& file,
                    std::vector<ContextRun>& runs);
  void put(const std::string& name, const ContextRecord& record);
  void forget(const std::string& name);

  const Database& database_;
  const std::string incoming_;
  const std::uint64_t budget_;
  const KeyChain& chain_;
  const Now now_;
  const Report report_;
  int damaged_at_opening_ = 0;

  std::mutex changes_;  // taken before mutex_: one change at a time, its files written meanwhile
  mutable std::mutex mutex_;  // of all below; held briefly
  std::map<std::string, ContextRecord> contexts_;
  std::map<std::uint64_t, std::uint64_t> segments_;  // and the sizes of their files
  std::unordered_map<BlockKey, Spot, BlockKeyHash> index_;
  std::uint64_t next_segment_ = 1;
};

}  // namespace cachalot::infer
