#include "train/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <fstream>
#include <functional>
#include <set>
#include <sstream>
#include <thread>
#include <vector>

#include "base/error.h"
#include "io/checksum.h"
#include "testing/fixtures.h"

namespace cachalot::train {
namespace {

namespace fs = std::filesystem;

std::string content(const fs::path& path) {
  std::ostringstream out;
  out << std::ifstream(path, std::ios::binary).rdbuf();
  return out.str();
}

// A run whose checkpoints hold the step in every file.
class TrainingRun {
 public:
  fs::path write(std::int64_t step, int keep_last = 100, int values = 500) {
    return write(step, keep_last, values, values, "{\"tokenizer\": 1}");
  }
  fs::path write(std::int64_t step, int keep_last, int model_values, int optimizer_values,
                 const std::string& tokenizer_json) {
    const std::vector<float> weights(
        static_cast<std::size_t>(std::max(model_values, optimizer_values)),
        static_cast<float>(step));
    const io::TensorToWrite model[] = {{"w", DType::kF32, {model_values}, weights.data()}};
    const io::TensorToWrite optimizer[] = {
        {"m.w", DType::kF32, {optimizer_values}, weights.data()}};
    if (!tokenizer_json.empty()) std::ofstream(tokenizer()) << tokenizer_json;
    CheckpointContent c;
    c.model = model;
    c.optimizer = optimizer;
    c.config_json = "{\"hidden_size\": 8}";
    c.generation_config_json = "{}";
    c.trainer_json = "{\"step\": " + std::to_string(step) + "}";
    c.other_files["recipe.toml"] = "[run]\n";
    c.copied_files = {tokenizer()};
    return write_checkpoint(path(), step, c, keep_last, known_whole_);
  }
  std::vector<std::string> folders() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path() / "checkpoints")) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  fs::path path() const { return folder_.path() / "run"; }
  fs::path tokenizer() const { return folder_.path() / "tokenizer.json"; }
  // As after a restart, which knows of no checkpoint but the one it goes on from.
  void forget() { known_whole_.clear(); }

 private:
  testing::TempDir folder_;
  std::set<std::int64_t> known_whole_;
};

TEST(Checkpoint, IsAModelFolderWithEverythingToGoOn) {
  TrainingRun run;
  EXPECT_FALSE(find_newest_checkpoint(run.path()).path.has_value());
  const fs::path folder = run.write(20);
  EXPECT_EQ(run.path() / "checkpoints" / "step-20", folder);
  EXPECT_EQ("", check_checkpoint(folder));
  for (const char* name :
       {"model.safetensors", "config.json", "generation_config.json", "optimizer.safetensors",
        "trainer.json", "tokenizer.json", "recipe.toml", "checksums.json"}) {
    EXPECT_TRUE(fs::exists(folder / name)) << name;
  }
  EXPECT_EQ("{\"step\": 20}", content(folder / "trainer.json"));
  const auto model = io::Safetensors::open(folder);
  EXPECT_EQ(20.0f, model.at("w").to_floats().at(499));
  const auto found = find_newest_checkpoint(run.path());
  EXPECT_EQ(folder, found.path.value());
  EXPECT_EQ(20, found.step);
  EXPECT_TRUE(found.skipped.empty());
}

TEST(Checkpoint, KeepsTheLastByNumberNotByName) {
  TrainingRun run;
  for (const std::int64_t step : {8, 9, 10, 100}) run.write(step, 2);
  EXPECT_EQ((std::vector<std::string>{"step-10", "step-100"}), run.folders());
  EXPECT_EQ(100, find_newest_checkpoint(run.path()).step);
  run.write(101, 1);
  EXPECT_EQ((std::vector<std::string>{"step-101"}), run.folders());
}

TEST(Checkpoint, OneOfTheSameStepIsReplaced) {
  TrainingRun run;
  const fs::path folder = run.write(5);
  fs::remove(folder / "trainer.json");
  EXPECT_NE("", check_checkpoint(folder));
  run.write(5);
  EXPECT_EQ("", check_checkpoint(folder));
  EXPECT_EQ((std::vector<std::string>{"step-5"}), run.folders());
}

TEST(Checkpoint, EveryDamageIsSeenAndTheOlderOneIsTaken) {
  TrainingRun run;
  run.write(1);
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(run.write(2))) {
    names.push_back(entry.path().filename().string());
  }
  ASSERT_EQ(8u, names.size());
  const auto flip = [](const fs::path& file) {
    std::string bytes = content(file);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 0x01);
    std::ofstream(file, std::ios::binary) << bytes;
  };
  const auto truncate = [](const fs::path& file) {
    fs::resize_file(file, fs::file_size(file) - 1);
  };
  const auto empty = [](const fs::path& file) { fs::resize_file(file, 0); };
  const auto grow = [](const fs::path& file) { std::ofstream(file, std::ios::app) << 'x'; };
  const auto remove = [](const fs::path& file) { fs::remove(file); };
  const auto replace_by_folder = [](const fs::path& file) {
    fs::remove(file);
    fs::create_directory(file);
  };
  const std::vector<std::function<void(const fs::path&)>> damages{
      flip, truncate, empty, grow, remove, replace_by_folder};
  for (const std::string& name : names) {
    for (std::size_t i = 0; i < damages.size(); ++i) {
      const fs::path folder = run.write(2);
      damages[i](folder / name);
      const auto found = find_newest_checkpoint(run.path());
      ASSERT_EQ(1, found.step) << name << ", damage " << i;
      ASSERT_EQ(1u, found.skipped.size());
      EXPECT_EQ(folder, found.skipped[0].path);
      // A flipped digit inside checksums.json accuses the file it stands for.
      if (name != "checksums.json") {
        EXPECT_NE(std::string::npos, found.skipped[0].why.find(name)) << found.skipped[0].why;
      } else {
        EXPECT_NE("", found.skipped[0].why);
      }
    }
  }
  run.write(3);
  EXPECT_EQ(3, find_newest_checkpoint(run.path()).step);
}

TEST(Checkpoint, LyingChecksumsAreRefused) {
  TrainingRun run;
  const fs::path folder = run.write(1);
  for (const char* text :
       {"", "[]", "{}", "{\"format\": 1}", "{\"format\": 2, \"files\": {}}",
        "{\"format\": 1, \"files\": {}}", "{\"format\": 1, \"files\": []}",
        "{\"format\": 1, \"files\": {\"../x\": {\"bytes\": 1, \"xxh3_128\": \"\"}}}",
        "{\"format\": 1, \"files\": {\"config.json\": 3}}",
        "{\"format\": 1, \"files\": {\"config.json\": {\"bytes\": -1, \"xxh3_128\": \"\"}}}"}) {
    std::ofstream(folder / "checksums.json") << text;
    EXPECT_NE("", check_checkpoint(folder)) << text;
  }
}

TEST(Checkpoint, LeftoversOfKilledWritersAreRemovedAndNeverTaken) {
  TrainingRun run;
  run.write(3);
  const fs::path all = run.path() / "checkpoints";
  fs::copy(all / "step-3", all / ".tmp-9", fs::copy_options::recursive);
  fs::create_directory(all / "step-007");  // not a name of ours: left alone
  fs::create_directory(all / "notes");
  EXPECT_EQ(3, find_newest_checkpoint(run.path()).step);
  EXPECT_EQ((std::vector<std::string>{"notes", "step-007", "step-3"}), run.folders());
  fs::create_directory(all / ".tmp-4");
  run.write(4, 1);
  EXPECT_EQ((std::vector<std::string>{"notes", "step-007", "step-4"}), run.folders());
}

TEST(Checkpoint, ADamagedNewerOneDoesNotPushOutGoodOnes) {
  TrainingRun run;
  run.write(10);
  fs::remove(run.write(50) / "config.json");
  run.write(20, 1);
  EXPECT_EQ((std::vector<std::string>{"step-20", "step-50"}), run.folders());
  const auto found = find_newest_checkpoint(run.path());
  EXPECT_EQ(20, found.step);
  EXPECT_EQ(1u, found.skipped.size());
}

TEST(Checkpoint, DamagedOnesDoNotCountAmongTheLastAndGoWithTheOlderOnes) {
  using Names = std::vector<std::string>;
  TrainingRun run;
  run.write(1);
  run.write(2);
  fs::remove(run.write(3) / "config.json");
  run.write(4, 2);  // 4 and 2 are the last two that are whole
  EXPECT_EQ((Names{"step-2", "step-3", "step-4"}), run.folders());
  run.write(5, 2);
  EXPECT_EQ((Names{"step-4", "step-5"}), run.folders());
  // Nothing but damaged ones beside the new one: nothing is known to be better.
  fs::remove(run.path() / "checkpoints" / "step-4" / "config.json");
  fs::remove(run.path() / "checkpoints" / "step-5" / "config.json");
  run.write(6, 2);
  EXPECT_EQ((Names{"step-4", "step-5", "step-6"}), run.folders());
  // One alone is asked for: the new one is that.
  run.write(7, 1);
  EXPECT_EQ((Names{"step-7"}), run.folders());
}

TEST(Checkpoint, OtherBytesOfTheSameLengthAreDamageToo) {
  TrainingRun run;
  run.write(1);
  std::ofstream(run.write(2) / "trainer.json") << "{\"step\": 3}";
  run.forget();
  run.write(4, 2);
  EXPECT_EQ((std::vector<std::string>{"step-1", "step-2", "step-4"}), run.folders());
}

TEST(Checkpoint, AFullDiskLeavesTheOlderOneAndNothingElse) {
  TrainingRun run;
  const fs::path older = run.write(1);
  const auto before = io::file_checksum(older / "model.safetensors");
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ASSERT_EQ(0, getrlimit(RLIMIT_FSIZE, &old));
  // The limit strikes in the weights, in the optimiser's state, and in a text after both.
  const struct {
    int model, optimizer;
    std::string tokenizer;
  } cases[] = {{5000, 10, "{}"}, {10, 5000, "{}"}, {10, 10, std::string(10'000, ' ')}};
  for (const auto& big : cases) {
    const std::string name = big.model > 10       ? "model.safetensors"
                             : big.optimizer > 10 ? "optimizer.safetensors"
                                                  : "tokenizer.json";
    // The source of the copied file is written before the disk is full.
    std::ofstream(run.tokenizer()) << big.tokenizer;
    const rlimit small{5000, old.rlim_max};
    ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &small));
    Code code = Code::kInternal;
    std::string what = "nothing was thrown";
    try {
      run.write(2, 1, big.model, big.optimizer, "");
    } catch (const Error& e) {
      code = e.code();
      what = e.what();
    }
    setrlimit(RLIMIT_FSIZE, &old);
    EXPECT_EQ(Code::kIo, code) << what;
    EXPECT_NE(std::string::npos, what.find(name)) << what;
    EXPECT_EQ((std::vector<std::string>{"step-1"}), run.folders());
    EXPECT_EQ("", check_checkpoint(older));
    EXPECT_EQ(before, io::file_checksum(older / "model.safetensors"));
  }
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(1, find_newest_checkpoint(run.path()).step);
}

TEST(Checkpoint, TwoTrainersOnOneRunAreRefused) {
  TrainingRun run;
  const RunLock held(run.path());
  try {
    const RunLock second(run.path());
    FAIL() << "a second lock was given";
  } catch (const Error& e) {
    EXPECT_EQ(Code::kBusy, e.code());
    EXPECT_NE(std::string::npos, std::string(e.what()).find(std::to_string(getpid()))) << e.what();
  }
}

// A writer killed at any moment: what is found afterwards is whole and the newest complete one.
TEST(CheckpointSlow, KilledAtRandomMomentsTheNewestIsWhole) {
  TrainingRun run;
  const auto begin = std::chrono::steady_clock::now();
  run.write(1, 2, 200'000);
  const std::chrono::duration<double> one_write = std::chrono::steady_clock::now() - begin;
  std::int64_t last = 1;
  for (int round = 0; round < 40; ++round) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      try {
        for (std::int64_t step = last + 1;; ++step) run.write(step, 2, 200'000);
      } catch (...) {
        _exit(1);  // never back into the test program
      }
    }
    const double writes = 8.0 * std::fmod(0.618 * round, 1.0);  // up to eight, evenly spread
    std::this_thread::sleep_for(writes * one_write);
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(child, waitpid(child, &status, 0));
    EXPECT_TRUE(WIFSIGNALED(status)) << "the writer failed by itself";
    const auto found = find_newest_checkpoint(run.path());
    ASSERT_TRUE(found.path.has_value()) << "round " << round;
    EXPECT_TRUE(found.skipped.empty()) << found.skipped[0].why;
    EXPECT_GE(found.step, last);
    const auto model = io::Safetensors::open(*found.path);
    EXPECT_EQ(static_cast<float>(found.step), model.at("w").to_floats().at(199'999));
    last = found.step;
  }
  EXPECT_GT(last, 1) << "no writer ever finished";
}

}  // namespace
}  // namespace cachalot::train
