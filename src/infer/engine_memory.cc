// Engine: who has pages of the latent cache, and who gives them up.
#include <algorithm>

#include "infer/engine.h"
#include "infer/prefix_blocks.h"

namespace cachalot::infer {

namespace {

int pages_of(int tokens) { return (tokens + kLatentBlock - 1) / kLatentBlock; }

}  // namespace

// Seniors first, until one does not fit: nobody overtakes it, or it might wait for ever.
void Engine::admit() {
  std::sort(waiting_.begin(), waiting_.end(),
            [](const StreamPtr& a, const StreamPtr& b) { return a->is_senior_to(*b); });
  while (!waiting_.empty()) {
    const StreamPtr first = waiting_.front();
    if (!admit_one(first)) break;
  }
}

// Texts that run, and the choices that will where the prompts of these end.
int Engine::running_with_forks() const {
  int texts = 0;
  for (const StreamPtr& s : running_) texts += 1 + s->forks;
  return texts;
}

bool Engine::admit_one(const StreamPtr& stream) {
  Stream& s = *stream;
  if (pages_of(s.size()) > pool_.pages()) {
    s.end(Finish::kCacheFull);
    finish(s);
    return true;
  }
  // Its text, and a page for each text that is on its way already.
  const int pages = pages_of(s.size() + 1) + s.forks + running_with_forks();
  const auto fits = [&] {
    return running_with_forks() + 1 + s.forks <= config_.max_running && pool_.free_pages() >= pages;
  };
  while (!running_.empty() && !fits()) {
    // A text that begins like a kept one takes less, but that is not counted on.
    if (pool_.free_pages() < pages && evict_kept()) continue;
    Stream* junior = most_junior();
    if (junior->request().priority >= s.request().priority) return false;
    preempt(*junior);
  }
  std::erase(waiting_, stream);
  running_.push_back(stream);
  start(s);
  return true;
}

// Finds what is known of its text, in pages or in the store.
void Engine::start(Stream& s) {
  s.running = true;
  const ReadText* best = nullptr;
  ReadText::Shared most;
  const auto consider = [&](const ReadText& read) {
    const ReadText::Shared shared = read.shared_with(s.read.tokens, mtp_);
    if (shared.rows <= most.rows) return false;
    best = &read;
    most = shared;
    return true;
  };
  auto from = kept_.end();
  for (auto it = kept_.begin(); it != kept_.end(); ++it) {
    if (consider(*it)) from = it;
  }
  for (const StreamPtr& other : running_) {
    if (other.get() != &s && consider(other->read)) from = kept_.end();
  }
  std::vector<std::int32_t> tokens = std::move(s.read.tokens);
  if (best != nullptr) s.read = best->fork(most);
  if (from != kept_.end()) kept_.splice(kept_.begin(), kept_, from);
  int blocks = s.read.length() / kLatentBlock;
  if (config_.store != nullptr) {
    const RestoredBlocks restored = restore_blocks(*config_.store, tokens, mtp_, s.read);
    blocks = std::max(blocks, restored.held);
    s.stored_blocks = restored.stored;
  }
  s.read.tokens = std::move(tokens);
  Job& job = s.job();
  if (job.started) return;
  job.started = Clock::now();
  job.result.timings.reused_tokens = s.read.length();
  job.result.timings.reused_blocks = blocks;
  const std::lock_guard lock(mutex_);
  --queued_;
}

// Rows for what a text reads next, on pages of its own. False where it had to give way, or ended.
bool Engine::reserve(Stream& s, int rows) {
  while (!s.read.reserve(rows, mtp_)) {
    if (evict_kept()) continue;
    Stream* junior = most_junior();
    if (junior != &s) {
      preempt(*junior);
      continue;
    }
    if (running_.size() > 1) {
      preempt(s);
    } else {
      s.end(Finish::kCacheFull);
      finish(s);
    }
    return false;
  }
  return true;
}

bool Engine::evict_kept() {
  if (kept_.empty()) return false;
  kept_.pop_back();
  ++stats_.evictions;
  return true;
}

Stream* Engine::most_junior() const {
  Stream* junior = nullptr;
  for (const StreamPtr& s : running_) {
    if (junior == nullptr || junior->is_senior_to(*s)) junior = s.get();
  }
  return junior;
}

void Engine::preempt(Stream& s) {
  const auto at = std::find_if(running_.begin(), running_.end(),
                               [&](const StreamPtr& p) { return p.get() == &s; });
  store_blocks(s);
  s.read.truncate(0);
  s.read.lag.clear();
  s.stored_blocks = s.offered_blocks = 0;
  s.drafts.clear();
  s.drafts_are_certain = false;
  s.running = false;
  ++s.job().result.preemptions;
  ++stats_.preemptions;
  waiting_.push_back(*at);
  running_.erase(at);
  std::sort(waiting_.begin(), waiting_.end(),
            [](const StreamPtr& a, const StreamPtr& b) { return a->is_senior_to(*b); });
}

// What an ended text has read stays, for the next turn of a conversation or a like request.
void Engine::keep(Stream& s) {
  if (s.read.length() == 0) return;
  store_blocks(s);
  if (config_.kept_texts == 0) {
    s.read.truncate(0);
    return;
  }
  kept_.push_front(std::move(s.read));
  while (static_cast<int>(kept_.size()) > config_.kept_texts) kept_.pop_back();
}

// Whole blocks go to the store as they are read: all of a long text at once is more than it has
// room for on the way to the disk, and what a program that is killed has read is not lost.
void Engine::store_blocks(Stream& s) {
  if (config_.store == nullptr) return;
  s.offered_blocks = s.read.length() / kLatentBlock;
  s.stored_blocks = keep_blocks(*config_.store, mtp_, s.read, s.stored_blocks);
}

}  // namespace cachalot::infer
