#include "infer/prefix_contexts.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace cachalot::infer {

namespace {

constexpr std::size_t kMaxName = 128;

void require(const rocksdb::Status& status, const std::string& name) {
  if (status.ok()) return;
  throw Error(Code::kIo,
              cat("the prefix store cannot write the named context ", name, ": ", status.ToString(),
                  ". Free some space, or see what is wrong with the disk."));
}

}  // namespace

void check_context_name(std::string_view name) {
  const bool printable = std::all_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) >= 0x20 && c != 0x7F;
  });
  if (name.empty() || name.size() > kMaxName || !printable) {
    throw Error(Code::kUsage, cat("a context's name has 1 to ", kMaxName,
                                  " bytes and no control characters; this one has ", name.size(),
                                  " bytes", printable ? "." : " and a control character."));
  }
}

NamedContexts::NamedContexts(const Database& database, std::string incoming,
                             std::uint64_t budget_bytes, const KeyChain& chain, Now now,
                             Report report)
    : database_(database),
      incoming_(std::move(incoming)),
      budget_(budget_bytes),
      chain_(chain),
      now_(std::move(now)),
      report_(std::move(report)) {
  load();
  try {
    drop_expired();
    release_segments();
  } catch (const Error& e) {
    report_(e.what());  // a disk that cannot be written can still be read
  }
  index();
}

void NamedContexts::load() {
  std::vector<std::string> damaged;
  const std::unique_ptr<rocksdb::Iterator> it(
      database_.db->NewIterator(rocksdb::ReadOptions(), database_.names));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const rocksdb::Slice value = it->value();
    DecodedContext decoded = decode_context(std::as_bytes(std::span(value.data(), value.size())));
    std::string name = it->key().ToString();
    if (decoded.record) {
      contexts_.emplace(std::move(name), std::move(*decoded.record));
    } else {
      report_(cat("prefix store: the named context ", name, " is damaged: ", decoded.damage,
                  ". It has been deleted; save it again."));
      damaged.push_back(std::move(name));
    }
  }
  if (!it->status().ok()) {
    report_(cat("prefix store: not all named contexts can be read: ", it->status().ToString()));
  }
  damaged_at_opening_ = static_cast<int>(damaged.size());
  for (const std::string& name : damaged) {
    require(database_.db->Delete(rocksdb::WriteOptions(), database_.names, name), name);
  }
  for (const auto& [segment, bytes] : segments_of(database_)) {
    segments_[segment] = bytes;
    next_segment_ = std::max(next_segment_, segment + 1);
  }
  // Ids that a context still names are taken, even where a repair lost their files.
  for (const auto& [name, record] : contexts_) {
    for (const ContextRun& run : record.runs) {
      next_segment_ = std::max(next_segment_, run.segment + 1);
    }
  }
}

// Deletes segments that no context refers to, those of a save that was cut short included.
void NamedContexts::release_segments() {
  std::vector<std::uint64_t> unused;
  {
    const std::lock_guard lock(mutex_);
    std::map<std::uint64_t, std::uint64_t> kept;
    for (const auto& [name, record] : contexts_) {
      for (const ContextRun& run : record.runs) {
        const auto found = segments_.find(run.segment);
        if (found != segments_.end()) kept.insert(*found);
      }
    }
    for (const auto& [id, size] : segments_) {
      if (!kept.contains(id)) unused.push_back(id);
    }
    segments_ = std::move(kept);
  }
  for (const std::uint64_t id : unused) delete_segment(database_, id);
}

void NamedContexts::drop_expired() {
  const std::int64_t now = now_();
  std::vector<std::string> expired;
  for (const auto& [name, record] : contexts_) {  // only this thread changes it: changes_ is held
    if (record.expires != 0 && !record.pinned && record.expires <= now) expired.push_back(name);
  }
  for (const std::string& name : expired) forget(name);
  if (!expired.empty()) {
    release_segments();
    index();
  }
}

void NamedContexts::index() {
  decltype(index_) fresh;
  for (const auto& [name, record] : contexts_) {
    if (record.chain != chain_.root() || record.payload_bytes != chain_.payload_bytes()) continue;
    const auto places = chain_.places(record.tokens);
    std::uint32_t position = 0;
    for (const ContextRun& run : record.runs) {
      for (std::uint64_t i = 0; i < run.blocks; ++i, ++position) {
        if (run.segment != 0) fresh.emplace(places[position].key, Spot{run.segment, position});
      }
    }
  }
  const std::lock_guard lock(mutex_);
  index_.swap(fresh);
}

std::optional<NamedContexts::Spot> NamedContexts::spot(const BlockKey& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = index_.find(key);
  if (found == index_.end()) return std::nullopt;
  return found->second;
}

bool NamedContexts::holds(const BlockKey& key) const { return spot(key).has_value(); }

DiskBlock NamedContexts::read_at(const Spot& spot, const BlockPlace& place) {
  const SegmentKey key(spot.segment, spot.position);
  DiskBlock found =
      read_block(database_, database_.kept, key.slice(), place, chain_.payload_bytes());
  if (found.state == DiskBlock::State::kFound) return found;
  {
    const std::lock_guard lock(mutex_);
    index_.erase(place.key);  // not asked for again
  }
  if (found.state == DiskBlock::State::kDamaged) {
    report_(cat("prefix store: block ", place.position, " of a named context is damaged: ",
                found.what, ". It will be computed again; save the context again to keep it."));
  } else if (found.state == DiskBlock::State::kFailed) {
    report_(cat("prefix store: block ", place.position, " of a named context could not be read: ",
                found.what, ". It will be computed again."));
  }
  return found;
}

DiskBlock NamedContexts::read(const BlockPlace& place) {
  const auto where = spot(place.key);
  if (!where) return {};
  DiskBlock found = read_at(*where, place);
  if (found.state == DiskBlock::State::kDamaged || found.state == DiskBlock::State::kAbsent) {
    // A save that is under way now would read the block itself, and the next opening meets it
    // again.
    const std::unique_lock changing(changes_, std::try_to_lock);
    if (changing.owns_lock()) punch(*where);
  }
  return found;
}

// Leaves a hole for one block in every context that refers to it.
void NamedContexts::punch(const Spot& spot) {
  std::vector<std::pair<std::string, ContextRecord>> changed;
  for (const auto& [name, record] : contexts_) {
    ContextRecord with_hole = record;
    with_hole.runs.clear();
    std::uint32_t position = 0;
    for (const ContextRun& run : record.runs) {
      for (std::uint64_t i = 0; i < run.blocks; ++i, ++position) {
        const bool hit = run.segment == spot.segment && position == spot.position;
        append_block(with_hole.runs, hit ? 0 : run.segment);
      }
    }
    if (with_hole.runs != record.runs) changed.emplace_back(name, std::move(with_hole));
  }
  for (const auto& [name, record] : changed) {
    try {
      put(name, record);
    } catch (const Error& e) {
      report_(e.what());  // found again at the next opening
    }
  }
}

void NamedContexts::put(const std::string& name, const ContextRecord& record) {
  rocksdb::WriteOptions options;
  options.sync = true;  // rare, and asked for by somebody who wants to find it again
  require(database_.db->Put(options, database_.names, name, encode_context(record)), name);
  const std::lock_guard lock(mutex_);
  contexts_[name] = record;
}

void NamedContexts::forget(const std::string& name) {
  rocksdb::WriteOptions options;
  options.sync = true;
  require(database_.db->Delete(options, database_.names, name), name);
  const std::lock_guard lock(mutex_);
  contexts_.erase(name);
}

std::vector<ContextInfo> NamedContexts::list() {
  const std::lock_guard changing(changes_);
  drop_expired();
  std::vector<ContextInfo> all;
  for (const auto& [name, record] : contexts_) {
    ContextInfo info;
    info.name = name;
    info.tokens = static_cast<std::int64_t>(record.tokens.size());
    for (const ContextRun& run : record.runs) {
      const auto blocks = static_cast<std::int64_t>(run.blocks);
      if (run.segment == 0) {
        info.missing += blocks * kBlockTokens;
      } else {
        info.bytes += blocks * static_cast<std::int64_t>(record.payload_bytes);
      }
    }
    info.quota = record.quota;
    info.saved = record.saved;
    info.expires = record.expires;
    info.pinned = record.pinned;
    info.usable = record.chain == chain_.root() && record.payload_bytes == chain_.payload_bytes();
    all.push_back(std::move(info));
  }
  return all;
}

bool NamedContexts::set_pinned(const std::string& name, bool pinned) {
  const std::lock_guard changing(changes_);
  drop_expired();
  const auto found = contexts_.find(name);
  if (found == contexts_.end()) return false;
  ContextRecord record = found->second;
  record.pinned = pinned;
  put(name, record);
  return true;
}

bool NamedContexts::remove(const std::string& name) {
  const std::lock_guard changing(changes_);
  drop_expired();
  if (!contexts_.contains(name)) return false;
  forget(name);
  release_segments();
  index();
  return true;
}

std::uint64_t NamedContexts::bytes() const {
  const std::lock_guard lock(mutex_);
  std::uint64_t bytes = 0;
  for (const auto& [id, size] : segments_) bytes += size;
  for (const auto& [name, record] : contexts_)
    bytes += record_bytes(record.runs.size(), record.tokens.size());
  return bytes;
}

}  // namespace cachalot::infer
