#include "infer/prefix_store.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <optional>
#include <utility>

#include "base/error.h"
#include "infer/prefix_contexts.h"
#include "infer/prefix_disk.h"
#include "infer/prefix_folder.h"
#include "infer/prefix_record.h"
#include "infer/prefix_writer.h"

namespace cachalot::infer {

namespace {

std::int64_t system_seconds() {
  using namespace std::chrono;
  return duration_cast<seconds>(system_clock::now().time_since_epoch()).count();
}

struct Counts {
  std::atomic<std::uint64_t> lookups{0}, hit_tokens{0}, miss_tokens{0}, ram_blocks{0},
      disk_blocks{0}, context_blocks{0}, inserted{0}, written{0}, dropped{0}, failed{0}, damaged{0};
};

// Folder, database and what lies on it; destroyed from the bottom up.
struct OnDisk {
  OnDisk(const PrefixStoreConfig& config, std::size_t payload_bytes,
         const std::shared_ptr<PayloadMemory>& memory, const Report& report)
      : budget(static_cast<std::uint64_t>(config.disk_bytes), payload_bytes),
        folder(config.folder, report),
        database(open_database(folder, budget, memory, report)),
        disk(database, budget, payload_bytes, report) {}

  DiskBudget budget;
  PrefixFolder folder;
  Database database;
  PrefixDisk disk;
  std::optional<NamedContexts> contexts;
  std::optional<PrefixWriter> writer;  // first to go: it uses all the rest
};

}  // namespace

struct PrefixStore::State {
  State(const PrefixStoreConfig& config, const PrefixIdentity& identity, PrefixHooks hooks);

  BlockPtr fetch(const BlockPlace& place);
  bool keep_young(const BlockPtr& block, std::uint64_t stamp);
  bool enqueue(const BlockPtr& block);
  void write(std::span<const BlockPtr> blocks);
  DiskBlock counted(DiskBlock found);
  NamedContexts& named();

  Reports reports;
  Counts counts;
  std::atomic<bool> lost{false};  // a write failed since the last flush
  std::mutex enqueuing;
  std::shared_ptr<PayloadMemory> memory;  // before all that holds blocks
  PrefixTree tree;
  std::optional<KeyChain> chain;
  std::unique_ptr<OnDisk> on_disk;  // last, so that it goes first: its writer uses the rest
};

PrefixStore::State::State(const PrefixStoreConfig& config, const PrefixIdentity& identity,
                          PrefixHooks hooks)
    : reports(std::move(hooks.report)),
      memory(std::make_shared<PayloadMemory>(record_slot_bytes(identity.payload_bytes))),
      tree(static_cast<std::size_t>(config.ram_bytes)) {
  const Report report = [this](std::string_view text) { reports.add(text); };
  if (config.folder.empty()) {
    chain.emplace(identity, random_secret());
    return;
  }
  // The identity is checked before anything is written into the folder.
  (void)KeyChain(identity, ChainSecret{});
  on_disk = std::make_unique<OnDisk>(config, identity.payload_bytes, memory, report);
  chain.emplace(identity, on_disk->folder.secret());
  on_disk->contexts.emplace(on_disk->database, on_disk->folder.incoming().string(),
                            static_cast<std::uint64_t>(config.context_bytes), *chain,
                            hooks.now ? std::move(hooks.now) : system_seconds, report);
  counts.damaged += static_cast<std::uint64_t>(on_disk->contexts->damaged());
  on_disk->writer.emplace(static_cast<std::size_t>(config.queue_bytes),
                          [this](std::span<const BlockPtr> blocks) { write(blocks); });
}

DiskBlock PrefixStore::State::counted(DiskBlock found) {
  if (found.state == DiskBlock::State::kDamaged) ++counts.damaged;
  if (found.state == DiskBlock::State::kFailed) ++counts.failed;
  return found;
}

// From RAM, the queue included, else from a named context, else from the blocks on disk.
BlockPtr PrefixStore::State::fetch(const BlockPlace& place) {
  if (const auto found = tree.find(place); found.block) {
    ++counts.ram_blocks;
    keep_young(found.block, found.on_disk);
    return found.block;
  }
  if (!on_disk) return nullptr;
  if (BlockPtr block = on_disk->writer->find(place)) {
    ++counts.ram_blocks;
    tree.insert(block, kNotOnDisk);  // by now it may be, which the writing thread will see
    return block;
  }
  if (const DiskBlock found = counted(on_disk->contexts->read(place)); found.block) {
    ++counts.context_blocks;
    tree.insert(found.block, kNotOnDisk);
    return found.block;
  }
  const DiskBlock found = counted(on_disk->disk.read(place));
  if (!found.block) return nullptr;
  ++counts.disk_blocks;
  tree.insert(found.block, found.stamp);
  keep_young(found.block, found.stamp);
  return found.block;
}

// A block that is used stays on disk: written again before FIFO comes to it, or where it never got
// there. False where it is not there, nor on its way.
bool PrefixStore::State::keep_young(const BlockPtr& block, std::uint64_t stamp) {
  if (!on_disk || stamp == kOnItsWay || on_disk->disk.fresh(stamp)) return true;
  if (on_disk->contexts->holds(block->place.key)) return true;
  return enqueue(block) || stamp != kNotOnDisk;
}

bool PrefixStore::State::enqueue(const BlockPtr& block) {
  // One step to a flush: who saw a block of another thread on its way may rely on its own flush.
  const std::lock_guard lock(enqueuing);
  tree.set_on_disk(block->place.key, kOnItsWay);
  if (on_disk->writer->push(block)) return true;
  tree.set_on_disk(block->place.key, kNotOnDisk);
  ++counts.dropped;
  return false;
}

// On the writing thread. Blocks that RAM had forgotten may be on disk already; that they are sound
// there is looked at, since a block may have been computed again because one before it was damaged.
void PrefixStore::State::write(std::span<const BlockPtr> blocks) {
  std::vector<BlockPtr> missing;
  for (const BlockPtr& block : blocks) {
    const BlockKey& key = block->place.key;
    const DiskBlock found = counted(on_disk->disk.read(block->place));
    if (found.block && on_disk->disk.fresh(found.stamp)) {
      tree.set_on_disk(key, found.stamp);
    } else if (counted(on_disk->contexts->read(block->place)).block) {
      tree.set_on_disk(key, kNotOnDisk);
    } else {
      missing.push_back(block);
    }
  }
  if (missing.empty()) return;
  const auto stamp = on_disk->disk.write(missing);
  if (stamp) {
    counts.written += missing.size();
  } else {
    counts.failed += missing.size();
    lost = true;
  }
  for (const BlockPtr& block : missing) {
    tree.set_on_disk(block->place.key, stamp.value_or(kNotOnDisk));
  }
}

NamedContexts& PrefixStore::State::named() {
  if (!on_disk) {
    throw Error(Code::kUnsupported,
                "named contexts lie on disk, and this prefix store has no folder: give it one.");
  }
  return *on_disk->contexts;
}

PrefixStore::PrefixStore(const PrefixStoreConfig& config, const PrefixIdentity& identity,
                         PrefixHooks hooks)
    : state_(std::make_unique<State>(config, identity, std::move(hooks))) {}

PrefixStore::~PrefixStore() = default;

PrefixLookup PrefixStore::lookup(std::span<const int> tokens, const Use& use, std::size_t usable) {
  State& s = *state_;
  const auto places = s.chain->places(tokens.first(std::min(usable, tokens.size())));
  std::size_t blocks = 0;
  for (; blocks < places.size(); ++blocks) {
    const BlockPtr block = s.fetch(places[blocks]);
    if (!block || !use(static_cast<int>(blocks), block->payload)) break;
  }
  s.tree.touch(std::span(places).first(blocks));
  PrefixLookup result;
  result.hit_tokens = static_cast<std::int64_t>(blocks) * kBlockTokens;
  result.miss_tokens = static_cast<std::int64_t>(tokens.size()) - result.hit_tokens;
  ++s.counts.lookups;
  s.counts.hit_tokens += static_cast<std::uint64_t>(result.hit_tokens);
  s.counts.miss_tokens += static_cast<std::uint64_t>(result.miss_tokens);
  return result;
}

PrefixInsert PrefixStore::insert(std::span<const int> tokens, int first_block, const Fill& fill) {
  State& s = *state_;
  const auto places = s.chain->places(tokens);
  PrefixInsert result;
  bool whole = true;  // all before is, or will be, where it stays
  const auto note = [&](bool stays) {
    whole = whole && stays;
    result.next += whole ? 1 : 0;
  };
  result.next = std::max(first_block, 0);
  s.tree.touch(places);  // so that what is above the new blocks is not the first to go
  for (auto i = static_cast<std::size_t>(result.next); i < places.size(); ++i) {
    if (const auto found = s.tree.find(places[i]); found.block) {
      note(s.keep_young(found.block, found.on_disk));
      ++result.present;
      continue;
    }
    const std::size_t bytes = s.chain->payload_bytes();
    // Left uninitialised: `fill` writes all of it.
    const std::shared_ptr<std::byte> memory = s.memory->share(bytes);
    fill(static_cast<int>(i), {memory.get(), bytes});
    const auto block =
        std::make_shared<const Block>(Block{places[i], {memory.get(), bytes}, memory});
    const auto in_tree = s.tree.insert(block, kNotOnDisk);  // another thread's may be there by now
    const bool in_ram =
        in_tree == PrefixTree::Insert::kInserted || in_tree == PrefixTree::Insert::kPresent;
    const bool stays = s.on_disk ? s.enqueue(block) : in_ram;
    note(stays);
    ++result.inserted;
    result.dropped += stays ? 0 : 1;
    if (!stays && !in_ram) break;
  }
  s.counts.inserted += static_cast<std::uint64_t>(result.inserted);
  return result;
}

bool PrefixStore::flush(Durability durability) {
  State& s = *state_;
  if (!s.on_disk) return true;
  { const std::lock_guard lock(s.enqueuing); }
  s.on_disk->writer->drain();
  const bool whole = !s.lost.exchange(false);
  if (durability == Durability::kDevice && !s.on_disk->disk.sync()) return false;
  return whole;
}

PrefixStore::Pin::Pin(Pin&& other) noexcept
    : tree_(std::exchange(other.tree_, nullptr)), path_(std::move(other.path_)) {}

PrefixStore::Pin& PrefixStore::Pin::operator=(Pin&& other) noexcept {
  std::swap(tree_, other.tree_);
  std::swap(path_, other.path_);
  return *this;
}

PrefixStore::Pin::~Pin() {
  if (tree_ != nullptr) tree_->unpin(path_);
}

std::int64_t PrefixStore::Pin::tokens() const noexcept {
  return static_cast<std::int64_t>(path_.size()) * kBlockTokens;
}

PrefixStore::Pin PrefixStore::pin(std::span<const int> tokens) {
  Pin pin;
  pin.path_ = state_->chain->places(tokens);
  pin.path_.resize(state_->tree.pin(pin.path_));
  pin.tree_ = &state_->tree;
  return pin;
}

SavedContext PrefixStore::save_context(const std::string& name, std::span<const int> tokens,
                                       const ContextLife& life) {
  State& s = *state_;
  NamedContexts& contexts = s.named();
  s.on_disk->writer->drain();  // what RAM has no room for is on its way
  return contexts.save(name, tokens, life, [&](const BlockPlace& place) {
    const auto found = s.tree.find(place);
    return found.block ? found.block : s.counted(s.on_disk->disk.read(place)).block;
  });
}

std::vector<ContextInfo> PrefixStore::contexts() { return state_->named().list(); }
bool PrefixStore::pin_context(const std::string& name) {
  return state_->named().set_pinned(name, true);
}
bool PrefixStore::unpin_context(const std::string& name) {
  return state_->named().set_pinned(name, false);
}
bool PrefixStore::delete_context(const std::string& name) { return state_->named().remove(name); }

PrefixCounters PrefixStore::counters() const {
  const State& s = *state_;
  PrefixCounters all;
  all.lookups = s.counts.lookups;
  all.hit_tokens = s.counts.hit_tokens;
  all.miss_tokens = s.counts.miss_tokens;
  all.ram_blocks = s.counts.ram_blocks;
  all.disk_blocks = s.counts.disk_blocks;
  all.context_blocks = s.counts.context_blocks;
  all.inserted = s.counts.inserted;
  all.written = s.counts.written;
  all.dropped = s.counts.dropped;
  all.failed = s.counts.failed;
  all.damaged = s.counts.damaged;
  const PrefixTree::Size size = s.tree.size();
  all.evicted = size.evicted;
  all.ram_bytes = size.bytes;
  if (s.on_disk) {
    all.disk_bytes = s.on_disk->disk.table_bytes();
    all.context_bytes = s.on_disk->contexts->bytes();
  }
  return all;
}

std::vector<std::string> PrefixStore::reports() const { return state_->reports.all(); }

}  // namespace cachalot::infer
