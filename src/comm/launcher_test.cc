#include <gtest/gtest.h>

#include <cstdlib>

#include "comm/world.h"

namespace cachalot::comm {
namespace {

// The variables of launchers, gone; and back again at the end.
class LaunchedRanks : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* const name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
      unsetenv(name);
    }
  }
  void TearDown() override { SetUp(); }
};

TEST_F(LaunchedRanks, AProcessAloneIsOne) {
  EXPECT_EQ(launched_ranks(), 1);
  setenv("SLURM_NTASKS", "8", 1);  // a batch script sees the job's number without being a rank
  EXPECT_EQ(launched_ranks(), 1);
  unsetenv("SLURM_NTASKS");
}

TEST_F(LaunchedRanks, EveryLauncherIsKnown) {
  for (const char* const name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    setenv(name, "12", 1);
    EXPECT_EQ(launched_ranks(), 12) << name;
    unsetenv(name);
  }
}

TEST_F(LaunchedRanks, WhatIsNoNumberIsNoLauncher) {
  for (const char* const text : {"", "two", "2x", "0", "-3", "99999999999999"}) {
    setenv("OMPI_COMM_WORLD_SIZE", text, 1);
    EXPECT_EQ(launched_ranks(), 1) << text;
  }
}

TEST_F(LaunchedRanks, OpenMpiSaysWhenItKills) {
  constexpr const char* kName = "OMPI_MCA_odls_base_sigkill_timeout";
  setenv(kName, "60", 1);  // set for a later mpirun
  EXPECT_FALSE(kill_delay());
  setenv("OMPI_COMM_WORLD_SIZE", "1", 1);
  EXPECT_TRUE(kill_delay()->asked);
  EXPECT_EQ(kill_delay()->seconds, 60);
  for (const char* const text : {"", "soon", "-1"}) {
    setenv(kName, text, 1);
    EXPECT_FALSE(kill_delay()->asked) << text;
    EXPECT_EQ(kill_delay()->seconds, 1) << text;
  }
  unsetenv(kName);
  EXPECT_FALSE(kill_delay()->asked);
  unsetenv("OMPI_COMM_WORLD_SIZE");
  setenv("PMI_SIZE", "2", 1);  // another launcher's way is not known
  EXPECT_FALSE(kill_delay());
}

}  // namespace
}  // namespace cachalot::comm
