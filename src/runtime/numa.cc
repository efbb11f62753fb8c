#include "runtime/numa.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <vector>

#include "base/error.h"
#include "runtime/hwloc_handle.h"

namespace cachalot::runtime {

namespace {

constexpr std::size_t kBatch = 4096;  // pages of one system call
constexpr int kMove = 1 << 1;         // MPOL_MF_MOVE of <linux/mempolicy.h>

class Placer {
 public:
  explicit Placer(std::span<const int> os_nodes)
      : nodes_(os_nodes),
        page_(static_cast<std::size_t>(::sysconf(_SC_PAGESIZE))),
        hwloc_(load_hwloc()),
        before_(make_bitmap()) {
    if (hwloc_get_membind(hwloc_.get(), before_.get(), &policy_before_,
                          HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET) != 0 ||
        hwloc_bitmap_iszero(before_.get()) != 0) {
      policy_before_ = HWLOC_MEMBIND_DEFAULT;
      hwloc_bitmap_copy(before_.get(), hwloc_topology_get_topology_nodeset(hwloc_.get()));
    }
  }
  ~Placer() {
    hwloc_set_membind(hwloc_.get(), before_.get(), policy_before_,
                      HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET);
  }
  Placer(const Placer&) = delete;
  Placer& operator=(const Placer&) = delete;

  void place(const MemoryArea& area) {
    const auto begin = reinterpret_cast<std::uintptr_t>(area.data) / page_ * page_;
    const auto end = reinterpret_cast<std::uintptr_t>(area.data) + area.bytes;
    populate(begin, end, area.node);
    pages_.clear();
    for (std::uintptr_t at = begin; at < end; at += page_) {
      pages_.push_back(reinterpret_cast<void*>(at));
      if (pages_.size() == kBatch) settle(area.node);
    }
    settle(area.node);
  }
  PlacedMemory report;

 private:
  // New pages come where the thread's policy says; so the pages of a file are read into the right
  // node's memory. A node that is full is a wish, not an order.
  void populate(std::uintptr_t begin, std::uintptr_t end, int node) {
    const HwlocBitmap set = make_bitmap();
    for (std::size_t n = 0; n < nodes_.size(); ++n) {
      if (node < 0 || node == static_cast<int>(n)) {
        hwloc_bitmap_set(set.get(), static_cast<unsigned>(nodes_[n]));
      }
    }
    const auto policy = node < 0 ? HWLOC_MEMBIND_INTERLEAVE : HWLOC_MEMBIND_BIND;
    if (hwloc_set_membind(hwloc_.get(), set.get(), policy,
                          HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET) != 0) {
      complain("set the memory policy of a thread", errno);
    }
#ifdef MADV_POPULATE_READ
    if (::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_READ) == 0) return;
#endif
    for (std::uintptr_t at = begin; at < end; at += page_) {
      *reinterpret_cast<const volatile char*>(at);
    }
  }

  int wanted(const void* page, int node) const {
    const auto n = node >= 0 ? static_cast<std::size_t>(node)
                             : reinterpret_cast<std::uintptr_t>(page) / page_ % nodes_.size();
    return nodes_[n];
  }

  bool where(std::vector<int>& status) {
    status.assign(pages_.size(), -1);
    if (::syscall(SYS_move_pages, 0, pages_.size(), pages_.data(), nullptr, status.data(), 0) ==
        0) {
      return true;
    }
    complain("say on which node memory lies", errno);
    return false;
  }

  // Counts the pages of the batch, and moves those that lie elsewhere.
  void settle(int node) {
    report.pages += pages_.size();
    std::vector<int> status;
    if (pages_.empty() || !where(status)) return pages_.clear();
    const bool even = node < 0 && is_spread(status);
    std::vector<void*> strayed;
    std::vector<int> to;
    for (std::size_t i = 0; i < pages_.size(); ++i) {
      const int want = wanted(pages_[i], node);
      if (status[i] == want || (even && status[i] >= 0)) {
        ++report.placed;
      } else if (status[i] >= 0) {
        strayed.push_back(pages_[i]);
        to.push_back(want);
      }
    }
    move(strayed, to);
    pages_.clear();
  }
  // Whether each node has its part, near enough: then it does not matter which pages are which.
  bool is_spread(const std::vector<int>& status) const {
    const std::size_t fair = status.size() / nodes_.size();
    return std::all_of(nodes_.begin(), nodes_.end(), [&](int node) {
      const auto here = std::count(status.begin(), status.end(), node);
      return static_cast<std::size_t>(here) + fair / 4 + 1 >= fair;
    });
  }
  void move(std::vector<void*>& pages, const std::vector<int>& to) {
    if (pages.empty()) return;
    std::vector<int> status(pages.size(), -1);
    if (::syscall(SYS_move_pages, 0, pages.size(), pages.data(), to.data(), status.data(), kMove) <
        0) {
      complain("move memory between nodes", errno);
      return;
    }
    for (std::size_t i = 0; i < pages.size(); ++i) {
      if (status[i] != to[i]) continue;
      ++report.moved;
      ++report.placed;
    }
  }
  void complain(const char* what, int error) {
    if (!report.problem.empty()) return;
    report.problem =
        cat("the system does not ", what, ": ", std::generic_category().message(error));
  }

  std::span<const int> nodes_;
  std::size_t page_;
  HwlocTopology hwloc_;
  HwlocBitmap before_;
  hwloc_membind_policy_t policy_before_ = HWLOC_MEMBIND_DEFAULT;
  std::vector<void*> pages_;
};

}  // namespace

PlacedMemory place_memory(std::span<const int> os_nodes, std::span<const MemoryArea> areas) {
  if (os_nodes.empty() || areas.empty()) return {};
  Placer placer(os_nodes);
  for (const MemoryArea& area : areas) {
    if (area.bytes > 0) placer.place(area);
  }
  return placer.report;
}

}  // namespace cachalot::runtime
