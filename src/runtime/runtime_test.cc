#include "runtime/runtime.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "kernels/cpu/levels.h"
#include "kernels/table.h"
#include "runtime/describe.h"
#include "runtime/memory.h"
#include "tensor/mat.h"
#include "testing/fixtures.h"

namespace cachalot::runtime {
namespace {

using ::testing::HasSubstr;

// Sets an environment variable for one test.
class Env {
 public:
  Env(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Env() { unsetenv(name_); }
  Env(const Env&) = delete;
  Env& operator=(const Env&) = delete;

 private:
  const char* name_;
};

TEST(Runtime, PicksTheBestLevelAndAThreadPerCore) {
  unsetenv("CACHALOT_CPU");
  unsetenv("CACHALOT_THREADS");
  const Runtime r;
  EXPECT_EQ(r.level(), cpu::name(cpu::supported_levels().back()));
  EXPECT_EQ(r.threads(), default_threads(this_machine(), cpu_quota()));
}

TEST(Runtime, EverySupportedLevelCanBeForced) {
  for (const cpu::Level level : cpu::supported_levels()) {
    const Env env("CACHALOT_CPU", std::string(cpu::name(level)).c_str());
    EXPECT_EQ(Runtime().level(), cpu::name(level));
  }
  const Env env("CACHALOT_CPU", "avx512");
  EXPECT_EQ(Runtime({.threads = 1, .cpu = "ref"}).level(), "ref") << "the option wins";
}

TEST(Runtime, UnknownLevelNamesTheNearestAndWhatIsHere) {
  try {
    const Runtime unknown({.threads = 1, .cpu = "avx215"});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kUsage);
    EXPECT_THAT(e.what(), HasSubstr("avx215"));
    EXPECT_THAT(e.what(), HasSubstr("This machine has: ref"));
  }
}

TEST(Runtime, LevelThisMachineLacksIsUnsupported) {
  for (const auto level : {cpu::Level::kAvx2, cpu::Level::kAvx512, cpu::Level::kAvx512Bf16}) {
    bool here = false;
    for (const cpu::Level l : cpu::supported_levels()) here |= l == level;
    if (here) continue;
    try {
      const Runtime lacking({.threads = 1, .cpu = std::string(cpu::name(level))});
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kUnsupported);
    }
  }
}

TEST(Runtime, Threads) {
  {
    const Env env("CACHALOT_THREADS", "3");
    EXPECT_EQ(Runtime().threads(), 3);
    EXPECT_EQ(Runtime({.threads = 2, .cpu = ""}).threads(), 2) << "the option wins";
  }
  for (const char* bad : {"0", "-1", "two", "3x", "100000"}) {
    const Env env("CACHALOT_THREADS", bad);
    EXPECT_THROW(Runtime(), Error) << bad;
  }
  EXPECT_THROW(Runtime({.threads = -2, .cpu = ""}), Error);
}

TEST(Runtime, DescribesItself) {
  const Runtime r({.threads = 2, .cpu = "ref"});
  const Description d = describe(r);
  EXPECT_EQ(d.level, "ref");
  EXPECT_EQ(d.threads, 2);
  EXPECT_GE(d.cores, 1);
  EXPECT_EQ(d.cores, d.topology.cpus);
  EXPECT_EQ(r.places().size(), 2u);
  EXPECT_FALSE(d.pin_reason.empty());
  EXPECT_GT(d.memory_bytes, 1u << 20);
  EXPECT_GT(d.l1d_bytes, 0u);
  EXPECT_EQ(d.levels.size(), cpu::supported_levels().size());
  // Every slot of the table is listed: it holds a name and function pointers only.
  EXPECT_EQ(d.slots.size(), (sizeof(KernelTable) - sizeof(const char*)) / sizeof(void*));
  for (const SlotInfo& s : d.slots) EXPECT_FALSE(s.fast) << s.name;
}

TEST(MemoryTest, HugePages) {
  const testing::TempDir dir;
  const auto write = [&](const std::string& file, const std::string& text) {
    std::filesystem::create_directories((dir.path() / file).parent_path());
    std::ofstream(dir.path() / file) << text << "\n";
  };
  const HugePages none = huge_pages(dir.path());
  EXPECT_EQ("", none.transparent);
  EXPECT_FALSE(none.allowed());
  write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never");
  write("sys/kernel/mm/transparent_hugepage/hpage_pmd_size", "2097152");
  write("proc/self/smaps_rollup", "Rss:     100 kB\nAnonHugePages:      4096 kB\nSwap: 0 kB");
  const HugePages some = huge_pages(dir.path());
  EXPECT_EQ("madvise", some.transparent);
  EXPECT_TRUE(some.allowed());
  EXPECT_EQ(2u << 20, some.page_bytes);
  EXPECT_EQ(4u << 20, some.in_use);
  write("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]");
  EXPECT_FALSE(huge_pages(dir.path()).allowed());
}

// Where they are allowed, a large buffer that has been written lies in them.
TEST(MemoryTest, LargeBuffersLieInHugePages) {
  const HugePages before = huge_pages();
  if (!before.allowed()) GTEST_SKIP() << "no huge pages for those who ask";
  Mat<float> m(1024, 16 * 1024);  // 64 MiB, zeroed
  EXPECT_GE(huge_pages().in_use, before.in_use + (32u << 20));
}

TEST(MemoryTest, UseFollowsWhatIsTakenAndGivenBack) {
  constexpr std::size_t kBytes = std::size_t{32} << 20;
  const MemoryUse before = memory_use();
  if (before.resident == 0) GTEST_SKIP() << "this system does not say";
  EXPECT_LE(before.anonymous, before.resident);
  std::vector<char> block(kBytes, 1);  // written to, so it is there
  const MemoryUse with = memory_use();
  EXPECT_GE(with.resident, before.resident + kBytes / 2);
  EXPECT_GE(with.anonymous, before.anonymous + kBytes / 2);
  if (before.heap > 0) {
    EXPECT_GE(with.heap, before.heap + kBytes);
  }
  std::vector<char>().swap(block);  // gives it back, which an assignment would not
  const MemoryUse after = memory_use();
  EXPECT_LT(after.anonymous, with.anonymous);
  if (before.heap > 0) {
    EXPECT_LT(after.heap, with.heap);
  }
}

TEST(MemoryTest, AvailableIsLessThanAll) {
  const Runtime runtime;
  const std::size_t available = available_memory();
  EXPECT_GT(available, 0u);
  EXPECT_LE(available, describe(runtime).memory_bytes);
}

}  // namespace
}  // namespace cachalot::runtime
