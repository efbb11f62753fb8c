#include "runtime/topology.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <sstream>

#include "base/error.h"
#include "runtime/hwloc_handle.h"

namespace cachalot::runtime {

namespace fs = std::filesystem;

namespace {

HwlocTopology make_hwloc() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) {
    throw Error(Code::kUnsupported, "hwloc cannot be started (hwloc_topology_init)");
  }
  return HwlocTopology(raw);
}

std::size_t cache_bytes(hwloc_topology_t t, int level) {
  const int depth = hwloc_get_cache_type_depth(
      t, static_cast<unsigned>(level), level == 1 ? HWLOC_OBJ_CACHE_DATA : HWLOC_OBJ_CACHE_UNIFIED);
  if (depth < 0) return 0;
  const hwloc_obj_t cache = hwloc_get_obj_by_depth(t, depth, 0);
  return cache != nullptr ? static_cast<std::size_t>(cache->attr->cache.size) : 0;
}

// The outermost cache above a core: what its neighbours share with it.
hwloc_obj_t last_cache(hwloc_obj_t core) {
  hwloc_obj_t last = nullptr;
  for (hwloc_obj_t o = core; o != nullptr; o = o->parent) {
    if (hwloc_obj_type_is_dcache(o->type) != 0) last = o;
  }
  return last != nullptr ? last : core;
}

// Numbers for objects in the order in which they are first met.
template <class Key>
class Numbers {
 public:
  int of(Key key) {
    const auto [it, fresh] = number_.try_emplace(key, static_cast<int>(number_.size()));
    return it->second;
  }
  int size() const noexcept { return static_cast<int>(number_.size()); }

 private:
  std::map<Key, int> number_;
};

Topology read(hwloc_topology_t t) {
  Topology top;
  Numbers<hwloc_obj_t> packages, caches, nodes;
  std::map<hwloc_obj_t, std::size_t> core_index;
  for (hwloc_obj_t pu = nullptr;
       (pu = hwloc_get_next_obj_by_type(t, HWLOC_OBJ_PU, pu)) != nullptr;) {
    hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(t, HWLOC_OBJ_CORE, pu);
    if (core == nullptr) core = pu;  // a system that does not say what shares a core
    const auto [it, fresh] = core_index.try_emplace(core, top.cores.size());
    if (fresh) {
      PhysicalCore c;
      const hwloc_obj_t package = hwloc_get_ancestor_obj_by_type(t, HWLOC_OBJ_PACKAGE, core);
      c.package = packages.of(package);
      c.last_cache = caches.of(last_cache(core));
      // The first of several local nodes is the plain memory; others are of special kinds.
      hwloc_obj_t node = nullptr;
      while ((node = hwloc_get_next_obj_by_type(t, HWLOC_OBJ_NUMANODE, node)) != nullptr) {
        if (hwloc_bitmap_intersects(node->cpuset, pu->cpuset) != 0) break;
      }
      c.node = nodes.of(node);
      if (c.node == static_cast<int>(top.nodes.size())) {
        top.nodes.push_back({node != nullptr ? static_cast<int>(node->os_index) : 0,
                             node != nullptr ? node->attr->numanode.local_memory : 0, 0});
      }
      ++top.nodes[static_cast<std::size_t>(c.node)].cores;
      top.cores.push_back(std::move(c));
    }
    top.cores[it->second].cpus.push_back(static_cast<int>(pu->os_index));
    ++top.cpus;
  }
  top.packages = packages.size();
  top.last_caches = caches.size();
  top.l1d_bytes = cache_bytes(t, 1);
  top.l2_bytes = cache_bytes(t, 2);
  top.l3_bytes = cache_bytes(t, 3);
  return top;
}

void restrict_to(hwloc_topology_t t, hwloc_const_cpuset_t allowed) {
  const HwlocBitmap usable = make_bitmap();
  hwloc_bitmap_and(usable.get(), hwloc_topology_get_topology_cpuset(t), allowed);
  if (hwloc_bitmap_iszero(usable.get()) != 0) return;  // a mask that fits nothing says nothing
  if (hwloc_topology_restrict(t, usable.get(), HWLOC_RESTRICT_FLAG_REMOVE_CPULESS) != 0) {
    throw Error(Code::kUnsupported,
                "hwloc cannot leave out the CPUs that the affinity mask rules out");
  }
}

std::string first_line(const fs::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

// "200000 100000" -> 2; "max 100000" -> 0.
double quota_of(const std::string& quota, const std::string& period) {
  std::istringstream q(quota), p(period);
  double a = 0, b = 0;
  return q >> a && p >> b && a > 0 && b > 0 ? a / b : 0;
}

double smaller(double a, double b) { return a == 0 ? b : b == 0 ? a : std::min(a, b); }

}  // namespace

HwlocTopology load_hwloc() {
  HwlocTopology t = make_hwloc();
  if (hwloc_topology_load(t.get()) != 0) {
    throw Error(Code::kUnsupported, "hwloc cannot read this machine (hwloc_topology_load)");
  }
  return t;
}

HwlocTopology load_fake_hwloc(const std::string& description) {
  HwlocTopology t = make_hwloc();
  const bool xml = description.starts_with('<');
  const int error = xml ? hwloc_topology_set_xmlbuffer(t.get(), description.c_str(),
                                                       static_cast<int>(description.size() + 1))
                        : hwloc_topology_set_synthetic(t.get(), description.c_str());
  if (error != 0 || hwloc_topology_load(t.get()) != 0) {
    throw Error(Code::kUsage, cat("'", description.substr(0, 80),
                                  "' describes no machine; needed is hwloc's synthetic form, as "
                                  "\"package:2 numa:1 core:4 pu:2\", or its XML"));
  }
  return t;
}

int Topology::smt() const noexcept {
  std::size_t most = 0;
  for (const PhysicalCore& core : cores) most = std::max(most, core.cpus.size());
  return static_cast<int>(most);
}

Topology this_machine() {
  const HwlocTopology t = load_hwloc();
  const HwlocBitmap mask = make_bitmap();
  if (hwloc_get_cpubind(t.get(), mask.get(), HWLOC_CPUBIND_THREAD) == 0) {
    restrict_to(t.get(), mask.get());
  }
  Topology top = read(t.get());
  top.machine_cpus = std::max(top.cpus, static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN)));
  return top;
}

Topology fake_machine(const std::string& description, const std::vector<int>& allowed) {
  const HwlocTopology t = load_fake_hwloc(description);
  const int all = hwloc_bitmap_weight(hwloc_topology_get_topology_cpuset(t.get()));
  if (!allowed.empty()) {
    const HwlocBitmap mask = make_bitmap();
    for (const int cpu : allowed) hwloc_bitmap_set(mask.get(), static_cast<unsigned>(cpu));
    restrict_to(t.get(), mask.get());
  }
  Topology top = read(t.get());
  top.machine_cpus = all;
  return top;
}

double cpu_quota(const fs::path& root) {
  double least = 0;
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    // "0::/user.slice/x" (version 2), "4:cpu,cpuacct:/docker/y" (version 1)
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && ("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
    const fs::path base = root / (v2 ? "sys/fs/cgroup" : "sys/fs/cgroup/cpu");
    // A limit of any group above holds as well. Inside a container the path may be one of the
    // host's that is not there; the root of what is mounted is then this container's.
    fs::path group = fs::path(line.substr(second + 1)).relative_path();
    for (;; group = group.parent_path()) {
      const fs::path at = group.empty() ? base : base / group;
      if (v2) {
        const std::string text = first_line(at / "cpu.max");
        const auto blank = text.find(' ');
        if (blank != std::string::npos) {
          least = smaller(least, quota_of(text.substr(0, blank), text.substr(blank + 1)));
        }
      } else {
        least = smaller(least, quota_of(first_line(at / "cpu.cfs_quota_us"),
                                        first_line(at / "cpu.cfs_period_us")));
      }
      if (group.empty()) break;
    }
  }
  return least;
}

}  // namespace cachalot::runtime
