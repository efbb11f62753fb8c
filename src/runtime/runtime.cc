#include "runtime/runtime.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/error.h"
#include "kernels/cpu/levels.h"
#include "kernels/table.h"
#ifdef CACHALOT_HAS_CUDA
#include "kernels/cuda/cuda.h"
#endif
#include "runtime/describe.h"
#include "runtime/memory.h"

namespace cachalot::runtime {

namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

int pick_threads(int wanted, const Topology& topology, double quota) {
  std::string source = "threads";
  if (wanted == 0) {
    const std::string text = environment("CACHALOT_THREADS");
    if (text.empty()) return std::min(default_threads(topology, quota), kMaxThreads);
    source = "CACHALOT_THREADS";
    char* end = nullptr;
    const long value = std::strtol(text.c_str(), &end, 10);
    if (*end != '\0' || value < 1 || value > kMaxThreads) {
      throw Error(Code::kUsage, cat("CACHALOT_THREADS is '", text, "'; a number from 1 to ",
                                    kMaxThreads, " is needed, or unset it for one per core"));
    }
    wanted = static_cast<int>(value);
  }
  if (wanted < 1 || wanted > kMaxThreads) {
    throw Error(Code::kUsage,
                cat(source, " is ", wanted, "; a number from 1 to ", kMaxThreads, " is needed"));
  }
  return wanted;
}

const KernelTable& pick_table(std::string wanted) {
  const auto levels = cpu::supported_levels();
  if (wanted.empty()) wanted = environment("CACHALOT_CPU");
  if (wanted.empty()) return cpu::table(levels.back());
  std::string here;
  for (const cpu::Level level : levels) {
    if (wanted == cpu::name(level)) return cpu::table(level);
    here += cat(here.empty() ? "" : ", ", cpu::name(level));
  }
  constexpr std::string_view kKnown[] = {"ref", "avx2", "avx512", "avx512bf16"};
  for (const std::string_view known : kKnown) {
    if (wanted == known) {
      throw Error(Code::kUnsupported, cat("the CPU level ", wanted,
                                          " was asked for (CACHALOT_CPU); this machine has: ", here,
                                          ". Choose one of these or unset it"));
    }
  }
  const std::string near = nearest(wanted, std::begin(kKnown), std::end(kKnown));
  throw Error(Code::kUsage, cat("'", wanted, "' is no CPU level (CACHALOT_CPU)",
                                near.empty() ? "" : cat("; did you mean ", near, "?"),
                                " This machine has: ", here));
}

// The device that was asked for; null: the CPU.
std::unique_ptr<Device> pick_device(bool may, [[maybe_unused]] int index) {
  const std::string wanted = environment("CACHALOT_DEVICE");
  if (wanted.empty() || wanted == "cpu") return nullptr;
  const bool numbered =
      wanted.rfind("cuda:", 0) == 0 && wanted.size() == 6 && wanted[5] >= '0' && wanted[5] <= '9';
  if (wanted != "cuda" && !numbered) {
    throw Error(Code::kUsage, cat("'", wanted,
                                  "' is no device (--device, CACHALOT_DEVICE): cpu, cuda, or "
                                  "cuda:N for the GPU with number N"));
  }
  if (!may) {
    throw Error(Code::kUnsupported,
                cat("this command computes on the CPU alone, but the device is ", wanted,
                    ": leave --device out, or unset CACHALOT_DEVICE"));
  }
#ifdef CACHALOT_HAS_CUDA
  return cuda::open(numbered ? wanted[5] - '0' : index);
#else
  throw Error(Code::kUnsupported,
              cat("the device is ", wanted,
                  ", but this program was built without CUDA: install the "
                  "CUDA toolkit (12.3 or later) and build again with -DCACHALOT_CUDA=ON"));
#endif
}

}  // namespace

DeviceFound find_device() {
#ifdef CACHALOT_HAS_CUDA
  try {
    return {cuda::open()->name(), ""};
  } catch (const Error& e) {
    return {"", cat("built with CUDA, but no usable device: ", e.what())};
  }
#else
  return {"", "this build computes on the CPU"};
#endif
}

Runtime::Runtime(const RuntimeOptions& options) : topology_(this_machine()) {
  context_.table = &pick_table(options.cpu);
  const double quota = cpu_quota();
  const int threads = pick_threads(options.threads, topology_, quota);
  std::string pin = options.pin.empty() ? environment("CACHALOT_PIN") : options.pin;
  if (pin.empty()) pin = "auto";
  pinned_ = decide_pin(parse_pin(pin), topology_, threads, quota);
  places_ = place_threads(topology_, threads);
  pool_ = std::make_unique<ThreadPool>(threads);
  context_.pool = pool_.get();
  device_ = pick_device(options.on_device, options.device);
#ifdef CACHALOT_HAS_CUDA
  if (device_ != nullptr) {
    context_.device = device_.get();
    context_.table = &cuda::table();
  }
#endif
  for (int i = 1; pinned_.pin && i < threads; ++i) {
    if (pool_->pin(i, places_[static_cast<std::size_t>(i)].cpus)) continue;
    pinned_ = {false, "off: the system refuses"};
  }
}

void Runtime::set_homes(MemoryHomes homes) {
  homes_ = std::make_unique<const MemoryHomes>(std::move(homes));
  context_.homes = homes_.get();
  for (int i = 0; i < threads(); ++i) {
    pool_->set_home(i, places_[static_cast<std::size_t>(i)].node);
  }
}

void Runtime::pin_caller() const {
  if (pinned_.pin) pin_this_thread(places_.front().cpus);
}

std::string Runtime::level() const { return context_.table->name; }

std::size_t available_memory(const Device* device) {
  if (device == nullptr) return available_memory();
#ifdef CACHALOT_HAS_CUDA
  return cuda::free_memory();
#else
  return 0;
#endif
}

}  // namespace cachalot::runtime
