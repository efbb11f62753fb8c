#include "base/processes.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

#include "base/error.h"

namespace cachalot {
namespace {

TEST(Processes, TextsComeBackInTheOrderOfTheTasks) {
  const auto texts = in_processes(9, 3, [](std::size_t task) {
    usleep(task % 3 == 0 ? 20'000 : 0);
    return cat("task ", task, std::string(task == 4 ? 300'000 : 0, 'x'));
  });
  ASSERT_EQ(texts.size(), 9u);
  for (std::size_t t = 0; t < 9; ++t) EXPECT_EQ(texts[t].substr(0, 6), cat("task ", t));
  EXPECT_EQ(texts[4].size(), 300'006u);
  EXPECT_TRUE(in_processes(0, 3, [](std::size_t) { return std::string(); }).empty());
}

TEST(Processes, ATaskDoesNotChangeItsParent) {
  int value = 1;
  in_processes(2, 2, [&](std::size_t) {
    value = 2;
    return std::string();
  });
  EXPECT_EQ(value, 1);
}

TEST(Processes, ErrorsKeepTheirCodeAndText) {
  try {
    in_processes(3, 2, [](std::size_t task) -> std::string {
      if (task == 1) throw Error(Code::kUsage, "needs 3, has 2");
      return "";
    });
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kUsage);
    EXPECT_STREQ(e.what(), "needs 3, has 2");
  }
}

TEST(Processes, AChildThatIsKilledIsAnError) {
  EXPECT_THROW(in_processes(2, 1,
                            [](std::size_t task) {
                              if (task == 1) kill(getpid(), SIGKILL);
                              return std::string();
                            }),
               Error);
}

}  // namespace
}  // namespace cachalot
