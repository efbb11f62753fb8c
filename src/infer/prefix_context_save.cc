// Saving a named context: see prefix_contexts.h.
#include "base/error.h"
#include "infer/prefix_contexts.h"

namespace cachalot::infer {

// The blocks of `places` as runs: those of older contexts where they are, the rest into `file`.
SavedContext NamedContexts::keep(std::span<const BlockPlace> places, const Source& source,
                                 SegmentFile& file, std::vector<ContextRun>& runs) {
  const std::uint64_t used = bytes();
  SavedContext saved;
  for (const BlockPlace& place : places) {
    if (const auto where = spot(place.key); where && read_at(*where, place).block) {
      append_block(runs, where->segment);
    } else if (const BlockPtr block = source(place)) {
      const std::size_t tokens = (std::size_t{place.position} + 1) * kBlockTokens;
      const std::uint64_t needed =
          file.bytes_with(1, chain_.payload_bytes()) + record_bytes(runs.size() + 1, tokens);
      if (used + needed > budget_) {
        saved.outcome = SavedContext::Outcome::kFull;
        saved.text = cat("the named contexts take ", used, " of the ", budget_,
                         " bytes they may have, and this one needs more than ", needed,
                         ". Delete one, or allow them more.");
        return saved;
      }
      file.add(*block);
      append_block(runs, file.segment());
    } else {
      break;
    }
    saved.outcome = SavedContext::Outcome::kSaved;
    saved.tokens += kBlockTokens;
    saved.bytes += static_cast<std::int64_t>(chain_.payload_bytes());
  }
  if (saved.outcome == SavedContext::Outcome::kNothing) {
    saved.text =
        cat("no whole block of these tokens is in the store. A context is saved after its "
            "prompt has run, and in blocks of ",
            kBlockTokens, " tokens.");
  }
  return saved;
}

SavedContext NamedContexts::save(const std::string& name, std::span<const int> tokens,
                                 const ContextLife& life, const Source& source) {
  check_context_name(name);
  const std::lock_guard changing(changes_);
  drop_expired();
  const auto places = chain_.places(tokens);
  const auto asked = static_cast<std::int64_t>(places.size() * chain_.payload_bytes());
  if (life.quota_bytes > 0 && asked > life.quota_bytes) {
    return {SavedContext::Outcome::kOverQuota,
            static_cast<std::int64_t>(places.size()) * kBlockTokens, asked,
            cat("the context ", name, " needs ", asked, " bytes and may have ", life.quota_bytes,
                ". Save fewer tokens, or give it a larger quota.")};
  }
  SegmentFile file(incoming_, next_segment_);
  ContextRecord record;
  const SavedContext saved = keep(places, source, file, record.runs);
  if (saved.outcome != SavedContext::Outcome::kSaved) return saved;
  record.chain = chain_.root();
  record.saved = now_();
  record.expires = life.ttl_seconds > 0 ? record.saved + life.ttl_seconds : 0;
  record.quota = life.quota_bytes;
  record.payload_bytes = chain_.payload_bytes();
  const auto kept = tokens.first(static_cast<std::size_t>(saved.tokens));
  record.tokens.assign(kept.begin(), kept.end());
  if (!file.empty()) {
    ++next_segment_;
    const std::uint64_t bytes = file.take_in(database_);
    const std::lock_guard lock(mutex_);
    segments_[file.segment()] = bytes;
  }
  if (const auto old = contexts_.find(name); old != contexts_.end()) {
    record.pinned = old->second.pinned;
  }
  put(name, record);
  release_segments();
  index();
  return saved;
}

}  // namespace cachalot::infer
