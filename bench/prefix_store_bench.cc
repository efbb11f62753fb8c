// Speed of the prefix store: blocks written and read, and a prompt of 4096 tokens found again in
// RAM and on disk, beside a plain copy of as many bytes. Files come from the page cache: this is
// the store's own cost, not the disk's.
//   prefix_store_bench FOLDER [PAYLOAD_BYTES...]      (64 tokens x 61 layers x 1152 bytes,
//   DeepSeek-V3 in BF16, first)
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "infer/prefix_store.h"

namespace {

using namespace cachalot::infer;  // NOLINT: a program of one page
using Clock = std::chrono::steady_clock;

constexpr int kTokens = 4096;
constexpr int kBlocks = kTokens / kBlockTokens;
constexpr int kRounds = 5;

double milliseconds(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

double median(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

std::vector<int> prompt(int which) {
  std::vector<int> tokens(kTokens);
  for (int i = 0; i < kTokens; ++i)
    tokens[static_cast<std::size_t>(i)] = (i * 131 + which * 7919) % 129280;
  return tokens;
}

// Looks a prompt up and copies it to `memory`, as an engine does into its cache.
double find(PrefixStore& store, const std::vector<int>& tokens, std::byte* memory) {
  const auto begin = Clock::now();
  const auto found = store.lookup(tokens, [&](int block, std::span<const std::byte> payload) {
    std::memcpy(memory + static_cast<std::size_t>(block) * payload.size(), payload.data(),
                payload.size());
    return true;
  });
  const double time = milliseconds(begin);
  if (found.hit_tokens != kTokens)
    std::fprintf(stderr, "only %lld tokens found\n", static_cast<long long>(found.hit_tokens));
  return time;
}

void row(const char* what, double time, double bytes) {
  std::printf("  %-44s %8.2f ms %8.0f blocks/s %6.2f GB/s\n", what, time, kBlocks / time * 1e3,
              bytes / time * 1e-6);
}

void measure(const std::string& folder, std::size_t payload_bytes) {
  const double bytes = static_cast<double>(kBlocks) * static_cast<double>(payload_bytes);
  PrefixStoreConfig config;
  config.folder = folder;
  config.ram_bytes = static_cast<std::int64_t>(bytes * 1.1) + (8 << 20);
  config.disk_bytes = static_cast<std::int64_t>(bytes * 20) + (64 << 20);
  config.queue_bytes = static_cast<std::int64_t>(bytes * 1.1) + (8 << 20);
  const PrefixIdentity identity{"bench", "bf16", payload_bytes};
  const std::vector<std::byte> rows(static_cast<std::size_t>(bytes), std::byte{1});
  std::vector<std::byte> memory(rows.size(), std::byte{2});
  std::vector<double> copy, insert, written, ram, disk, open;
  for (int round = 0; round < kRounds; ++round) {
    std::filesystem::remove_all(folder);
    auto begin = Clock::now();
    std::memcpy(memory.data(), rows.data(), rows.size());
    copy.push_back(milliseconds(begin));
    const auto tokens = prompt(round);
    {
      PrefixStore store(config, identity);
      begin = Clock::now();
      store.insert(tokens, 0, [&](int block, std::span<std::byte> out) {
        std::memcpy(out.data(), rows.data() + static_cast<std::size_t>(block) * out.size(),
                    out.size());
      });
      insert.push_back(milliseconds(begin));
      store.flush();
      written.push_back(milliseconds(begin));
      find(store, tokens, memory.data());
      ram.push_back(find(store, tokens, memory.data()));
    }
    begin = Clock::now();
    PrefixStore store(config, identity);
    open.push_back(milliseconds(begin));
    disk.push_back(find(store, tokens, memory.data()));
  }
  std::printf("%zu bytes a block, %d tokens = %.1f MB, medians of %d\n", payload_bytes, kTokens,
              bytes * 1e-6, kRounds);
  row("a plain copy", median(copy), bytes);
  row("insert: in RAM, on its way to disk", median(insert), bytes);
  row("insert and flush: survives kill -9", median(written), bytes);
  row("lookup in RAM, copied out", median(ram), bytes);
  row("lookup on disk after a restart, copied out", median(disk), bytes);
  std::printf("  %-44s %8.2f ms\n", "opening the store", median(open));
  std::filesystem::remove_all(folder);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("usage: prefix_store_bench FOLDER [PAYLOAD_BYTES...]\n", stderr);
    return 2;
  }
  std::vector<std::size_t> sizes{std::size_t{64} * 61 * 1152, 64 * 8 * 1152, 64 * 8 * 160};
  if (argc > 2) sizes.clear();
  for (int i = 2; i < argc; ++i) sizes.push_back(std::strtoull(argv[i], nullptr, 10));
  try {
    for (const std::size_t size : sizes) measure(argv[1], size);
  } catch (const cachalot::Error& e) {
    std::fprintf(stderr, "prefix_store_bench: %s\n", e.what());
    return 1;
  }
}
