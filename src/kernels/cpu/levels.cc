#include "kernels/cpu/levels.h"

#include "kernels/cpu/simd.h"
#include "kernels/cpu/tables.h"

#ifdef CACHALOT_X86
#include <cpuid.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#endif

namespace cachalot::cpu {

#ifdef CACHALOT_X86
namespace {

struct CpuFlags {
  bool avx2 = false;
  bool avx512 = false;
  bool bf16 = false;  // the CPUID bit
};

// What the operating system saves on a task switch (XCR0).
std::uint64_t saved_state() {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (std::uint64_t{high} << 32) | low;
}

CpuFlags read_cpuid() {
  CpuFlags flags;
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return flags;
  const auto bit = [](unsigned word, int i) { return ((word >> i) & 1u) != 0; };
  const bool fma = bit(c, 12);
  const bool f16c = bit(c, 29);
  const bool osxsave = bit(c, 27);
  if (!osxsave || !bit(c, 28)) return flags;
  const std::uint64_t xcr0 = saved_state();
  const bool ymm = (xcr0 & 0x06) == 0x06;
  const bool zmm = (xcr0 & 0xE6) == 0xE6;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return flags;
  const unsigned subleaves = a;
  flags.avx2 = ymm && fma && f16c && bit(b, 5) && bit(b, 3) && bit(b, 8);  // with BMI1, BMI2
  flags.avx512 = flags.avx2 && zmm && bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31);
  if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) {
    flags.bf16 = flags.avx512 && bit(a, 5);
  }
  return flags;
}

CACHALOT_BEGIN_TARGET(CACHALOT_AVX512BF16)
// True where the instruction executes and computes 1 * 1 + 1 * 1.
__attribute__((noinline)) bool bf16_computes() {
  const auto ones = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3F803F80));
  const __m512 sum = _mm512_dpbf16_ps(_mm512_setzero_ps(), ones, ones);
  return _mm512_cmp_ps_mask(sum, _mm512_set1_ps(2.0f), _CMP_EQ_OQ) == 0xFFFF;
}
CACHALOT_END_TARGET

// Executes vdpbf16ps in a child, so that an illegal instruction costs nothing but the child. The
// answer comes over a pipe, because the host program may reap or ignore its children itself.
bool bf16_executes() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return false;
  const pid_t child = fork();
  if (child < 0) {
    close(ends[0]);
    close(ends[1]);
    return false;
  }
  if (child == 0) {
    signal(SIGILL, SIG_DFL);
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    const char good = 1;
    if (bf16_computes() && write(ends[1], &good, 1) == 1) _exit(0);
    _exit(1);
  }
  close(ends[1]);
  char good = 0;
  ssize_t got = 0;
  do {
    got = read(ends[0], &good, 1);
  } while (got < 0 && errno == EINTR);
  close(ends[0]);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return got == 1 && good == 1;
}

}  // namespace
#endif

namespace {

struct Found {
  std::vector<Level> levels{Level::kRef};
  std::string_view bf16 = "absent";
};

Found look() {
  Found found;
#ifdef CACHALOT_X86
  const CpuFlags flags = read_cpuid();
  if (flags.avx2) found.levels.push_back(Level::kAvx2);
  if (flags.avx512) {
    found.levels.push_back(Level::kAvx512);
    if (flags.bf16) {
      found.bf16 = "cpuid";
    } else if (bf16_executes()) {
      found.bf16 = "probe";
    }
    if (found.bf16 != "absent") found.levels.push_back(Level::kAvx512Bf16);
  }
#endif
  return found;
}

const Found& found() {
  static const Found once = look();
  return once;
}

}  // namespace

std::string_view name(Level level) noexcept {
  switch (level) {
    case Level::kAvx2:
      return "avx2";
    case Level::kAvx512:
      return "avx512";
    case Level::kAvx512Bf16:
      return "avx512bf16";
    case Level::kRef:
      break;
  }
  return "ref";
}

const KernelTable& table(Level level) noexcept {
#ifdef CACHALOT_X86
  switch (level) {
    case Level::kAvx2:
      return kAvx2Table;
    case Level::kAvx512:
      return kAvx512Table;
    case Level::kAvx512Bf16:
      return kAvx512Bf16Table;
    case Level::kRef:
      break;
  }
#else
  (void)level;
#endif
  return kReferenceTable;
}

std::span<const Level> supported_levels() { return found().levels; }
std::string_view bf16_source() { return found().bf16; }

std::vector<const KernelTable*> tables_on_this_host() {
  std::vector<const KernelTable*> tables;
  for (const Level level : supported_levels()) tables.push_back(&table(level));
  return tables;
}

}  // namespace cachalot::cpu
