#include "perf/peers.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "kernels/cpu/levels.h"

namespace cachalot::perf {

namespace {

// What the libraries read when they are loaded; what the user set stays.
void settle_environment() {
  // OpenBLAS picks its kernels by the model of the CPU, and on a virtual one it does not know takes
  // those of 2004. It gets the ones the CPU can run.
  for (const cpu::Level level : cpu::supported_levels()) {
    if (level == cpu::Level::kAvx512) setenv("OPENBLAS_CORETYPE", "SkylakeX", 0);
  }
  for (const cpu::Level level : cpu::supported_levels()) {
    if (level == cpu::Level::kAvx2) setenv("OPENBLAS_CORETYPE", "Haswell", 0);
  }
  // Their workers spin for 20 ms and more when they have nothing to do, in our turn. Told to sleep
  // sooner they lose one wake-up, some 50 us, per product.
  setenv("GOMP_SPINCOUNT", "20000", 0);
  setenv("OPENBLAS_THREAD_TIMEOUT", "16", 0);  // 2^16 cycles
}

}  // namespace

std::vector<Peer> make_peers(const PeerProduct& product, std::vector<std::string>& notes) {
  using MakePeers = void (*)(const PeerProduct&, std::vector<Peer>&, std::vector<std::string>&);
  // Loaded once and kept: its threads outlive any call.
  static void* const module = [] {
    settle_environment();
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
