#include "perf/peers.h"

#include <dlfcn.h>

#include <filesystem>

#include "base/error.h"

namespace cachalot::perf {

std::vector<Peer> make_peers(const PeerProduct& product, std::vector<std::string>& notes) {
  using MakePeers = void (*)(const PeerProduct&, std::vector<Peer>&, std::vector<std::string>&);
  // Loaded once and kept: its threads outlive any call.
  static void* const module = [] {
    std::error_code ignored;
    const auto program = std::filesystem::read_symlink("/proc/self/exe", ignored);
    return dlopen((program.parent_path() / "libcachalot_peers.so").c_str(), RTLD_NOW | RTLD_LOCAL);
  }();
  std::vector<Peer> peers;
  if (module == nullptr) {
    notes.emplace_back(
        "no libcachalot_peers.so beside the program: built without oneDNN and OpenBLAS, nothing to "
        "compare with");
    return peers;
  }
  const auto make = reinterpret_cast<MakePeers>(dlsym(module, "cachalot_make_peers"));
  if (make != nullptr) make(product, peers, notes);
  return peers;
}

}  // namespace cachalot::perf
