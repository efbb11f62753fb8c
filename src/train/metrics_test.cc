#include "train/metrics.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <limits>
#include <sstream>

#include "base/error.h"
#include "testing/fixtures.h"

namespace cachalot::train {
namespace {

std::string content(const std::filesystem::path& path) {
  std::ostringstream out;
  out << std::ifstream(path, std::ios::binary).rdbuf();
  return out.str();
}

TEST(Metrics, LinesAreJson) {
  const double values[] = {1.0, std::numeric_limits<double>::quiet_NaN()};
  const auto line = MetricsLine(7)
                        .add("loss", 0.5)
                        .add("tokens", std::int64_t{9'000'000'000})
                        .add("note", "a \"b\"")
                        .add("load", values)
                        .add("bad", std::numeric_limits<double>::infinity());
  EXPECT_EQ(R"({"step": 7, "loss": 0.5, "tokens": 9000000000, "note": "a \"b\"", )"
            R"("load": [1.0, null], "bad": null})"
            "\n",
            line.text());
}

TEST(Metrics, AppendsAtOnceAndContinues) {
  const testing::TempDir folder;
  const auto path = folder.path() / "metrics.jsonl";
  {
    MetricsFile file(path, -1);
    file.append(MetricsLine(1));
    EXPECT_EQ("{\"step\": 1}\n", content(path));  // not when it is closed
    file.append(MetricsLine(2));
  }
  MetricsFile file(path, 2);
  EXPECT_EQ(0, file.dropped_lines());
  file.append(MetricsLine(3));
  EXPECT_EQ("{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3}\n", content(path));
}

TEST(Metrics, LinesPastTheResumedStepGo) {
  const testing::TempDir folder;
  const auto path = folder.path() / "metrics.jsonl";
  std::ofstream(path) << "{\"step\": 1, \"loss\": 2.0}\n{\"step\": 2}\n{\"step\": 2, \"val\": 1}\n"
                         "{\"step\": 3}\n{\"step\": 4}\n";
  MetricsFile file(path, 2);
  EXPECT_EQ(2, file.dropped_lines());
  EXPECT_EQ("{\"step\": 1, \"loss\": 2.0}\n{\"step\": 2}\n{\"step\": 2, \"val\": 1}\n",
            content(path));
}

TEST(Metrics, TornAndDamagedLinesGo) {
  const testing::TempDir folder;
  const auto path = folder.path() / "metrics.jsonl";
  for (const std::string tail :
       {"{\"step\": 2, \"lo", "{\"step\": 2}", "garbage\n", "\n", "[2]\n", "{\"step\": -1}\n",
        "{\"step\": \"2\"}\n", "{\"step\": 2\n", "{}\n", "{\"step\": 99999999999999999999}\n"}) {
    std::ofstream(path) << "{\"step\": 1}\n" << tail;
    MetricsFile file(path, 5);
    EXPECT_EQ(1, file.dropped_lines()) << tail;
    file.append(MetricsLine(6));
    EXPECT_EQ("{\"step\": 1}\n{\"step\": 6}\n", content(path)) << tail;
  }
}

TEST(Metrics, ANewRunBeginsAnew) {
  const testing::TempDir folder;
  const auto path = folder.path() / "metrics.jsonl";
  std::ofstream(path) << "{\"step\": 0}\n{\"step\": 1}\n";
  const MetricsFile file(path, -1);
  EXPECT_EQ("", content(path));
}

TEST(Metrics, AFullDiskTakesTheLineBack) {
  const testing::TempDir folder;
  const auto path = folder.path() / "metrics.jsonl";
  MetricsFile file(path, -1);
  file.append(MetricsLine(1));
  const auto before = content(path);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ASSERT_EQ(0, getrlimit(RLIMIT_FSIZE, &old));
  const rlimit small{before.size() + 5, old.rlim_max};
  ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &small));
  Code code = Code::kInternal;
  try {
    file.append(MetricsLine(2));
  } catch (const Error& e) {
    code = e.code();
  }
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(Code::kIo, code);
  EXPECT_EQ(before, content(path));
}

}  // namespace
}  // namespace cachalot::train
