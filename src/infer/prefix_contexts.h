// Named contexts: prompts that stay on disk whatever else is written, until they expire or are
// deleted.
//
// A save puts the blocks that no context has yet into one file, a segment, and refers to segments
// of older contexts for the rest; a segment goes when no context refers to it. So contexts with a
// common beginning hold it once.
//
// Owns:    the records in RAM, and the index from block to segment.
// Threads: any. Saves go one at a time and do not hold up reads.
// Errors:  kUsage for a name that cannot be one, kIo where the disk refuses; no room is a return
//          value.
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

#include "infer/prefix_context_info.h"
#include "infer/prefix_context_record.h"
#include "infer/prefix_disk.h"
#include "infer/prefix_segment.h"

namespace cachalot::infer {

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
  // A damaged block is reported, and no longer referred to.
  DiskBlock read(const BlockPlace& place);
  std::uint64_t bytes() const;  // in files
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
