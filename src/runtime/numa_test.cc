// Placing memory, as far as a machine with one node can show it.
#include "runtime/numa.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fstream>
#include <numeric>
#include <vector>

#include "runtime/topology.h"
#include "testing/fixtures.h"

namespace cachalot::runtime {
namespace {

std::vector<int> nodes_here() {
  std::vector<int> nodes;
  for (const NumaNode& n : this_machine().nodes) nodes.push_back(n.os_index);
  return nodes;
}

TEST(PlaceMemory, OwnMemoryAndAMappedFileEndUpOnTheirNodes) {
  const testing::TempDir dir;
  std::vector<char> text(3'000'001);
  std::iota(text.begin(), text.end(), 0);
  std::ofstream(dir.path() / "f", std::ios::binary)
      .write(text.data(), static_cast<std::streamsize>(text.size()));
  const int fd = ::open((dir.path() / "f").c_str(), O_RDONLY);
  auto* file = static_cast<const char*>(::mmap(nullptr, text.size(), PROT_READ, MAP_SHARED, fd, 0));
  ::close(fd);
  ASSERT_NE(MAP_FAILED, static_cast<const void*>(file));
  std::vector<char> own = text;
  const std::vector<int> nodes = nodes_here();
  const int last = static_cast<int>(nodes.size()) - 1;
  const MemoryArea areas[] = {{file + 4097, 1'000'000, last},
                              {file + 1'500'000, 1'500'001, MemoryArea::kSpread},
                              {own.data(), 2'000'000, 0},
                              {own.data() + 2'000'000, 1'000'001, MemoryArea::kSpread},
                              {own.data(), 0, 0}};
  const PlacedMemory placed = place_memory(nodes, areas);
  if (!placed.problem.empty()) GTEST_SKIP() << placed.problem;
  EXPECT_GE(placed.pages, 5'500'000u / 4096 / 16);  // pages may be larger
  EXPECT_EQ(placed.pages, placed.placed);
  EXPECT_TRUE(std::equal(text.begin(), text.end(), file));
  EXPECT_EQ(text, own);
}

TEST(PlaceMemory, ANodeThatIsNotThereIsReported) {
  std::vector<char> own(100'000, 'x');
  const int nodes[] = {1023};
  const MemoryArea areas[] = {{own.data(), own.size(), 0}};
  const PlacedMemory placed = place_memory(nodes, areas);
  EXPECT_FALSE(placed.problem.empty());
  EXPECT_EQ(0u, placed.placed);
  EXPECT_EQ(std::vector<char>(100'000, 'x'), own);
  EXPECT_EQ(0u, place_memory({}, areas).pages);
  EXPECT_EQ(0u, place_memory(nodes, {}).pages);
}

}  // namespace
}  // namespace cachalot::runtime
