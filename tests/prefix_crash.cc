// One life of a process with a prefix store, for tests/prefix_kill9.py, which ends it with SIGKILL.
//
//   prefix_crash FOLDER LIFE DISK_BYTES < what former lives had acknowledged
//
// First it looks whether all that is there is right, then it says OK and writes until it is killed.
// A line of stdout is written with one write(2), so what the reader has seen has happened.
//
//   in:   C chain blocks       0: begun, not acknowledged
//         X name chain blocks  a context; 0: deleted, -1: not known
//   out:  OK blocks            all is right
//         WRONG text
//         B chain              begins to write it
//         F chain blocks       it is flushed
//         s name chain blocks  begins to save a context; S name: has saved it
//         d name chain         begins to delete it; D name: has deleted it
//         R text               the store reports
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <string>

#include "base/error.h"
#include "base/rng.h"
#include "infer/prefix_payload_test.h"
#include "infer/prefix_store.h"

namespace {

using namespace cachalot;         // NOLINT: a program of one page
using namespace cachalot::infer;  // NOLINT

constexpr std::size_t kPayload = 4096;

void say(std::string line) {
  line.push_back('\n');
  if (::write(1, line.data(), line.size()) != static_cast<ssize_t>(line.size())) std::_Exit(9);
}

[[noreturn]] void wrong(const std::string& text) {
  say("WRONG " + text);
  std::_Exit(3);
}

// The first block is shared by many chains, the rest are a chain's own.
std::vector<int> tokens_of(int chain, int blocks) {
  std::vector<int> choices;
  for (int b = 0; b < blocks; ++b) choices.push_back(b == 0 ? chain % 7 : 16 * chain + b + 100);
  return sequence(choices);
}

class Life {
 public:
  Life(const PrefixStoreConfig& config, std::uint64_t life)
      : store_(config, {"model", "bf16", kPayload},
               {[](std::string_view text) { say("R " + std::string(text)); }, nullptr}),
        rng_(life),
        next_chain_(static_cast<int>(life) * 1000) {}

  void verify() {
    const auto list = store_.contexts();
    char kind = 0;
    long checked = 0;
    while (std::cin >> kind) {
      std::string name;
      int chain = 0;
      int blocks = 0;
      if (kind == 'X') std::cin >> name;
      std::cin >> chain >> blocks;
      if (kind == 'C') {
        const long hits = look(chain, 15);
        if (hits < blocks) wrong(cat("chain ", chain, " lost: ", hits, " of ", blocks, " blocks"));
        checked += hits;
        continue;
      }
      const ContextInfo* info = nullptr;
      for (const ContextInfo& each : list) {
        if (each.name == name) info = &each;
      }
      if (info != nullptr) names_[name] = chain;
      if (blocks < 0) {
        checked += look(chain, 15);
        continue;
      }
      if ((info != nullptr) != (blocks > 0))
        wrong(cat("context ", name, " is not as acknowledged"));
      if (blocks == 0) continue;
      const auto before = store_.counters().context_blocks;
      if (look(chain, blocks) != blocks || info->missing != 0 || info->tokens != blocks * 64L ||
          store_.counters().context_blocks != before + static_cast<std::uint64_t>(blocks)) {
        wrong(cat("context ", name, " lost blocks"));
      }
      checked += blocks;
    }
    if (store_.counters().damaged + store_.counters().failed > 0) wrong("a damaged block");
    say(cat("OK ", checked));
  }

  void write_until_killed() {
    std::map<int, int> unflushed;
    for (;;) {
      const int chain = ++next_chain_;
      const int blocks = 1 + below(12);
      const auto tokens = tokens_of(chain, blocks);
      say(cat("B ", chain));
      store_.insert(tokens, 0, [&](int block, auto out) { fill_payload(tokens, block, out); });
      unflushed[chain] = blocks;
      if (below(4) == 0) {
        if (!store_.flush()) wrong("a flush failed");
        for (const auto& [each, n] : unflushed) say(cat("F ", each, " ", n));
        unflushed.clear();
      }
      if (below(12) == 0) {
        const std::string name = cat("n", below(5));
        say(cat("s ", name, " ", chain, " ", blocks));
        const auto saved = store_.save_context(name, tokens);
        if (saved.outcome != SavedContext::Outcome::kSaved) wrong("not saved: " + saved.text);
        say("S " + name);
        names_[name] = chain;
      }
      if (below(20) == 0 && !names_.empty()) {
        const std::string name = names_.begin()->first;
        say(cat("d ", name, " ", names_.begin()->second));
        store_.delete_context(name);
        say("D " + name);
        names_.erase(names_.begin());
      }
    }
  }

 private:
  int below(std::uint64_t n) { return static_cast<int>(rng_.below(at_++, n)); }

  // How many blocks of the chain there are; each byte of them must be right.
  long look(int chain, int blocks) {
    const auto tokens = tokens_of(chain, blocks);
    const auto use = [&](int block, std::span<const std::byte> payload) {
      const auto want = payload_of(tokens, block, kPayload);
      if (!std::equal(want.begin(), want.end(), payload.begin(), payload.end())) {
        wrong(cat("chain ", chain, " block ", block, " has other bytes"));
      }
      return true;
    };
    return store_.lookup(tokens, use).hit_tokens / kBlockTokens;
  }

  PrefixStore store_;
  Rng rng_;
  std::uint64_t at_ = 0;
  int next_chain_;
  std::map<std::string, int> names_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: prefix_crash FOLDER LIFE DISK_BYTES\n", stderr);
    return 2;
  }
  PrefixStoreConfig config;
  config.folder = argv[1];
  config.ram_bytes = 0;  // all comes from disk
  config.disk_bytes = std::atoll(argv[3]);
  config.context_bytes = 64 << 20;
  try {
    Life life(config, std::strtoull(argv[2], nullptr, 10));
    life.verify();
    life.write_until_killed();
  } catch (const Error& e) {
    wrong(cat("an error: ", e.what()));
  }
}
