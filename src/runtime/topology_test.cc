// Machines that are not there: sockets, nodes, siblings, masks and quotas, and where threads go.
#include "runtime/topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <set>

#include "base/error.h"
#include "runtime/pinning.h"
#include "runtime/runtime.h"
#include "testing/fixtures.h"

namespace cachalot::runtime {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kLaptop =
    "package:1 numa:1 l3:1(size=33554432) l2:4(size=1048576) l1d:1(size=32768) core:1 pu:1";
constexpr const char* kTwoSockets = "package:2 numa:1 l3:1 core:4 pu:2";
constexpr const char* kFourNodes = "package:1 numa:4 l3:2 core:2 pu:1";

std::vector<int> cores_of(const std::vector<ThreadPlace>& places) {
  std::vector<int> cores;
  for (const ThreadPlace& p : places) cores.push_back(p.core);
  return cores;
}
std::vector<int> nodes_of(const std::vector<ThreadPlace>& places) {
  std::vector<int> nodes;
  for (const ThreadPlace& p : places) nodes.push_back(p.node);
  return nodes;
}

TEST(Topology, OneNode) {
  const Topology t = fake_machine(kLaptop);
  EXPECT_EQ(1, t.packages);
  ASSERT_EQ(1u, t.nodes.size());
  EXPECT_EQ(4, t.nodes[0].cores);
  EXPECT_EQ(4u, t.cores.size());
  EXPECT_EQ(4, t.cpus);
  EXPECT_EQ(1, t.smt());
  EXPECT_EQ(1, t.last_caches);
  EXPECT_EQ(32u << 10, t.l1d_bytes);
  EXPECT_EQ(1u << 20, t.l2_bytes);
  EXPECT_EQ(32u << 20, t.l3_bytes);
  EXPECT_FALSE(t.is_restricted());
}

TEST(Topology, TwoSocketsWithSiblings) {
  const Topology t = fake_machine(kTwoSockets);
  EXPECT_EQ(2, t.packages);
  EXPECT_EQ(2u, t.nodes.size());
  EXPECT_EQ(8u, t.cores.size());
  EXPECT_EQ(16, t.cpus);
  EXPECT_EQ(2, t.smt());
  EXPECT_EQ(2, t.last_caches);
  std::set<int> cpus;
  for (const PhysicalCore& core : t.cores) {
    EXPECT_EQ(2u, core.cpus.size());
    EXPECT_EQ(core.package, core.node);
    cpus.insert(core.cpus.begin(), core.cpus.end());
  }
  EXPECT_EQ(16u, cpus.size());
  EXPECT_GT(t.nodes[0].memory_bytes, 0u);
}

TEST(Topology, FourNodesInASocket) {
  const Topology t = fake_machine(kFourNodes);
  EXPECT_EQ(1, t.packages);
  ASSERT_EQ(4u, t.nodes.size());
  EXPECT_EQ(8, t.last_caches);
  EXPECT_EQ(16u, t.cores.size());
  for (int n = 0; n < 4; ++n) {
    EXPECT_EQ(n, t.nodes[static_cast<std::size_t>(n)].os_index);
    EXPECT_EQ(4, t.nodes[static_cast<std::size_t>(n)].cores);
  }
}

// What the mask rules out is not there: siblings, cores, whole nodes.
TEST(Topology, AMaskLeavesOnlyWhatItAllows) {
  // CPUs of a core are neighbours in this description: core c has 2 c and 2 c + 1.
  const Topology t = fake_machine(kTwoSockets, {9, 10, 11, 14});
  EXPECT_TRUE(t.is_restricted());
  EXPECT_EQ(16, t.machine_cpus);
  EXPECT_EQ(4, t.cpus);
  EXPECT_EQ(1, t.packages);
  ASSERT_EQ(1u, t.nodes.size());
  EXPECT_EQ(1, t.nodes[0].os_index);
  ASSERT_EQ(3u, t.cores.size());
  EXPECT_THAT(t.cores[0].cpus, ElementsAre(9));
  EXPECT_THAT(t.cores[1].cpus, ElementsAre(10, 11));
  EXPECT_THAT(t.cores[2].cpus, ElementsAre(14));
}

TEST(Topology, XmlOfAnotherMachine) {
  // Two cores with one node each, the second socket's CPU number first.
  const std::string xml = R"(<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE topology SYSTEM "hwloc2.dtd">
<topology version="2.0">
 <object type="Machine" os_index="0" cpuset="0x00000003" complete_cpuset="0x00000003" allowed_cpuset="0x00000003" nodeset="0x00000003" complete_nodeset="0x00000003" allowed_nodeset="0x00000003" gp_index="1">
  <object type="Package" os_index="1" cpuset="0x00000001" complete_cpuset="0x00000001" nodeset="0x00000002" complete_nodeset="0x00000002" gp_index="6">
   <object type="NUMANode" os_index="1" cpuset="0x00000001" complete_cpuset="0x00000001" nodeset="0x00000002" complete_nodeset="0x00000002" gp_index="7" local_memory="2000000"/>
   <object type="Core" os_index="1" cpuset="0x00000001" complete_cpuset="0x00000001" nodeset="0x00000002" complete_nodeset="0x00000002" gp_index="8">
    <object type="PU" os_index="0" cpuset="0x00000001" complete_cpuset="0x00000001" nodeset="0x00000002" complete_nodeset="0x00000002" gp_index="9"/>
   </object>
  </object>
  <object type="Package" os_index="0" cpuset="0x00000002" complete_cpuset="0x00000002" nodeset="0x00000001" complete_nodeset="0x00000001" gp_index="2">
   <object type="NUMANode" os_index="0" cpuset="0x00000002" complete_cpuset="0x00000002" nodeset="0x00000001" complete_nodeset="0x00000001" gp_index="3" local_memory="1000000"/>
   <object type="Core" os_index="0" cpuset="0x00000002" complete_cpuset="0x00000002" nodeset="0x00000001" complete_nodeset="0x00000001" gp_index="4">
    <object type="PU" os_index="1" cpuset="0x00000002" complete_cpuset="0x00000002" nodeset="0x00000001" complete_nodeset="0x00000001" gp_index="5"/>
   </object>
  </object>
 </object>
</topology>
)";
  const Topology t = fake_machine(xml);
  ASSERT_EQ(2u, t.nodes.size());
  ASSERT_EQ(2u, t.cores.size());
  for (const PhysicalCore& core : t.cores) {
    const NumaNode& node = t.nodes[static_cast<std::size_t>(core.node)];
    EXPECT_THAT(core.cpus, ElementsAre(1 - node.os_index));
    EXPECT_EQ(node.os_index == 0 ? 1000000u : 2000000u, node.memory_bytes);
  }
}

TEST(Topology, NonsenseIsRefused) {
  for (const char* bad : {"socks:2", "<topology", "package:2 pu"}) {
    try {
      fake_machine(bad);
      ADD_FAILURE() << bad;
    } catch (const Error& e) {
      EXPECT_EQ(Code::kUsage, e.code()) << bad;
    }
  }
}

TEST(Topology, ThisMachine) {
  const Topology t = this_machine();
  EXPECT_GE(t.packages, 1);
  EXPECT_GE(t.nodes.size(), 1u);
  EXPECT_GE(t.cores.size(), 1u);
  EXPECT_GE(t.cpus, static_cast<int>(t.cores.size()));
  EXPECT_GE(t.machine_cpus, t.cpus);
  int cores = 0;
  for (const NumaNode& node : t.nodes) cores += node.cores;
  EXPECT_EQ(static_cast<int>(t.cores.size()), cores);
}

// A child held to one CPU sees one core, runs one thread and pins nothing.
TEST(Topology, TheAffinityMaskCounts) {
  const Topology all = this_machine();
  const int cpu = all.cores.back().cpus.front();
  const pid_t child = fork();
  if (child == 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0) _exit(77);
    unsetenv("CACHALOT_THREADS");
    const Runtime r;
    const bool right = r.topology().cpus == 1 && r.topology().cores.size() == 1 &&
                       r.topology().cores[0].cpus == std::vector<int>{cpu} && r.threads() == 1 &&
                       !r.pinned();
    _exit(right ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "the system lets no process set its affinity mask";
  EXPECT_EQ(0, WEXITSTATUS(status));
}

TEST(Pinning, OneThreadPerCoreThenSiblings) {
  const Topology t = fake_machine(kTwoSockets);
  // Sockets in turn: cores 0..3 are of the first, 4..7 of the second.
  EXPECT_THAT(cores_of(place_threads(t, 8)), ElementsAre(0, 4, 1, 5, 2, 6, 3, 7));
  EXPECT_THAT(nodes_of(place_threads(t, 4)), ElementsAre(0, 1, 0, 1));
  for (const ThreadPlace& p : place_threads(t, 8)) EXPECT_EQ(2u, p.cpus.size());
  const auto all = place_threads(t, 16);
  std::set<int> cpus;
  for (const ThreadPlace& p : all) {
    ASSERT_EQ(1u, p.cpus.size());
    cpus.insert(p.cpus[0]);
  }
  EXPECT_EQ(16u, cpus.size());
  EXPECT_EQ(all[0].core, all[8].core) << "siblings come after all cores";
  EXPECT_EQ(20u, place_threads(t, 20).size());
  EXPECT_TRUE(place_threads(t, 0).empty());
}

TEST(Pinning, NodesThenCachesInTurn) {
  const Topology t = fake_machine(kFourNodes);
  const auto places = place_threads(t, 8);
  EXPECT_THAT(nodes_of(places), ElementsAre(0, 1, 2, 3, 0, 1, 2, 3));
  std::set<int> caches;
  for (const ThreadPlace& p : places) {
    caches.insert(t.cores[static_cast<std::size_t>(p.core)].last_cache);
  }
  EXPECT_EQ(8u, caches.size());
}

TEST(Pinning, UnevenNodesAreFilled) {
  const Topology t = fake_machine(kTwoSockets, {0, 2, 4, 8});
  EXPECT_THAT(nodes_of(place_threads(t, 4)), ElementsAre(0, 1, 0, 0));
}

TEST(Pinning, Threads) {
  const Topology two = fake_machine(kTwoSockets);
  EXPECT_EQ(8, default_threads(two, 0));
  EXPECT_EQ(8, default_threads(two, 64));
  EXPECT_EQ(3, default_threads(two, 3.5));
  EXPECT_EQ(1, default_threads(two, 0.25));
  EXPECT_EQ(3, default_threads(fake_machine(kTwoSockets, {9, 10, 11, 14}), 0));
}

TEST(Pinning, AutoIsForAMachineOfOurOwn) {
  const Topology two = fake_machine(kTwoSockets);
  EXPECT_TRUE(decide_pin(Pin::kAuto, two, 8, 0).pin);
  EXPECT_TRUE(decide_pin(Pin::kAuto, two, 16, 0).pin);
  EXPECT_TRUE(decide_pin(Pin::kAuto, two, 8, 16).pin);
  EXPECT_FALSE(decide_pin(Pin::kAuto, two, 1, 0).pin);
  EXPECT_FALSE(decide_pin(Pin::kAuto, two, 5, 0).pin);
  EXPECT_FALSE(decide_pin(Pin::kAuto, two, 8, 4).pin);
  EXPECT_FALSE(decide_pin(Pin::kAuto, fake_machine(kTwoSockets, {0, 2}), 2, 0).pin);
  EXPECT_FALSE(decide_pin(Pin::kOff, two, 8, 0).pin);
  EXPECT_TRUE(decide_pin(Pin::kOn, two, 5, 4).pin);
  EXPECT_THROW(decide_pin(Pin::kOn, two, 17, 0), Error);
  EXPECT_EQ(Pin::kOn, parse_pin("on"));
  EXPECT_EQ(Pin::kOff, parse_pin("off"));
  EXPECT_EQ(Pin::kAuto, parse_pin("auto"));
  EXPECT_THROW(parse_pin("yes"), Error);
}

// Workers are where they were put, and the caller is free until it asks.
TEST(Pinning, WorkersAreHeldAndTheCallerWhenItAsks) {
  const Topology here = this_machine();
  if (here.cpus < 2) GTEST_SKIP() << "one CPU";
  const int threads = 2;
  const pid_t child = fork();  // the caller's own mask changes
  if (child == 0) {
    const Runtime r({.threads = threads, .cpu = "ref", .pin = "on"});
    if (!r.pinned()) _exit(77);
    const auto mask = [] {
      cpu_set_t set;
      CPU_ZERO(&set);
      sched_getaffinity(0, sizeof(set), &set);
      return CPU_COUNT(&set);
    };
    if (mask() != here.cpus) _exit(1);
    r.pin_caller();
    if (mask() != static_cast<int>(r.places()[0].cpus.size())) _exit(2);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "the system lets no process set its affinity mask";
  EXPECT_EQ(0, WEXITSTATUS(status));
}

TEST(Quota, OfControlGroups) {
  const testing::TempDir dir;
  const auto& root = dir.path();
  const auto write = [&](const std::string& file, const std::string& text) {
    std::filesystem::create_directories((root / file).parent_path());
    std::ofstream(root / file) << text << "\n";
  };
  EXPECT_EQ(0, cpu_quota(root)) << "nothing known";
  write("proc/self/cgroup", "0::/a/b");
  EXPECT_EQ(0, cpu_quota(root));
  write("sys/fs/cgroup/cpu.max", "max 100000");
  EXPECT_EQ(0, cpu_quota(root));
  write("sys/fs/cgroup/a/b/cpu.max", "350000 100000");
  EXPECT_EQ(3.5, cpu_quota(root));
  write("sys/fs/cgroup/a/cpu.max", "200000 100000");
  EXPECT_EQ(2, cpu_quota(root)) << "the group above has less";
  write("proc/self/cgroup", "0::/not/mounted/here");
  EXPECT_EQ(0, cpu_quota(root));
  write("sys/fs/cgroup/cpu.max", "50000 100000");
  EXPECT_EQ(0.5, cpu_quota(root)) << "a container sees its own group as the root";
  write("proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/docker/y");
  write("sys/fs/cgroup/cpu/docker/y/cpu.cfs_quota_us", "-1");
  write("sys/fs/cgroup/cpu/docker/y/cpu.cfs_period_us", "100000");
  EXPECT_EQ(0, cpu_quota(root));
  write("sys/fs/cgroup/cpu/docker/y/cpu.cfs_quota_us", "150000");
  EXPECT_EQ(1.5, cpu_quota(root));
}

}  // namespace
}  // namespace cachalot::runtime
