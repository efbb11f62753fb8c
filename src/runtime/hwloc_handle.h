// hwloc's topology object with an owner. Inside runtime/ only: other rooms read Topology.
//
// Owns:    the hwloc topology.
// Threads: one user, or read-only by many.
// Errors:  kUnsupported / kUsage, saying what hwloc refused.
#pragma once

#include <hwloc.h>

#include <memory>
#include <string>

namespace cachalot::runtime {

struct HwlocDeleter {
  void operator()(hwloc_topology* t) const noexcept { hwloc_topology_destroy(t); }
};
using HwlocTopology = std::unique_ptr<hwloc_topology, HwlocDeleter>;

struct BitmapDeleter {
  void operator()(hwloc_bitmap_s* b) const noexcept { hwloc_bitmap_free(b); }
};
using HwlocBitmap = std::unique_ptr<hwloc_bitmap_s, BitmapDeleter>;
inline HwlocBitmap make_bitmap() { return HwlocBitmap(hwloc_bitmap_alloc()); }

// This machine, without devices.
HwlocTopology load_hwloc();
// A synthetic description or XML.
HwlocTopology load_fake_hwloc(const std::string& description);

}  // namespace cachalot::runtime
