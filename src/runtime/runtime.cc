#include "runtime/runtime.h"

#include <cstdlib>

#include "base/error.h"
#include "kernels/cpu/levels.h"
#include "kernels/table.h"
#include "runtime/describe.h"

namespace cachalot::runtime {

namespace {

constexpr int kMaxThreads = 1024;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

int pick_threads(int wanted) {
  std::string source = "threads";
  if (wanted == 0) {
    const std::string text = environment("CACHALOT_THREADS");
    if (text.empty()) return allowed_cores();
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

}  // namespace

Runtime::Runtime(const RuntimeOptions& options) {
  context_.table = &pick_table(options.cpu);
  pool_ = std::make_unique<ThreadPool>(pick_threads(options.threads));
  context_.pool = pool_.get();
}

std::string Runtime::level() const { return context_.table->name; }

}  // namespace cachalot::runtime
