// Ranks that train one model together, as threads of this process: what two of them learn is what
// one learns, to rounding, and only the first one writes.
#include "train/ranks.h"

#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>

#include "train/trainer_case_test.h"

namespace cachalot::train {
namespace {

// Where threads meet and see each other's numbers.
class MeetingPlace {
 public:
  explicit MeetingPlace(int ranks) : all_(static_cast<std::size_t>(ranks)) {}

  // Gives `own`, and calls `read` with what everyone gave; nobody leaves before all have read.
  template <class F>
  void meet(int rank, const void* own, F&& read) {
    all_[static_cast<std::size_t>(rank)] = own;
    wait();
    read(all_);
    wait();
  }

 private:
  void wait() {
    std::unique_lock lock(mutex_);
    const std::int64_t turn = turn_;
    if (++waiting_ == static_cast<int>(all_.size())) {
      waiting_ = 0;
      ++turn_;
      changed_.notify_all();
      return;
    }
    changed_.wait(lock, [&] { return turn_ != turn; });
  }
  std::vector<const void*> all_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int waiting_ = 0;
  std::int64_t turn_ = 0;
};

class Threads final : public comm::Collectives {
 public:
  Threads(MeetingPlace& place, int rank, int ranks) : place_(place), rank_(rank), ranks_(ranks) {}
  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return ranks_; }
  std::string library() const override { return "threads"; }
  void sum_numbers(std::span<double> x) override { add(x.data(), x.size()); }

 protected:
  void reduce(void* x, std::size_t n, DType type) override {
    ASSERT_EQ(type, DType::kF32);
    add(static_cast<float*>(x), n);
  }
  void spread(void* x, std::size_t bytes, int root) override {
    const std::vector<std::byte> own(static_cast<std::byte*>(x),
                                     static_cast<std::byte*>(x) + bytes);
    place_.meet(rank_, own.data(), [&](const std::vector<const void*>& all) {
      std::memcpy(x, all[static_cast<std::size_t>(root)], bytes);
    });
  }
  void gather(const void*, void*, std::size_t, DType) override {}
  void scatter(const void*, void*, std::size_t, DType) override {}
  void exchange(const std::byte*, std::span<const int>, std::byte*, std::span<const int>,
                std::size_t) override {}

 private:
  template <class T>
  void add(T* x, std::size_t n) {
    const std::vector<T> own(x, x + n);
    place_.meet(rank_, own.data(), [&](const std::vector<const void*>& all) {
      for (std::size_t i = 0; i < n; ++i) {
        T sum = 0;
        for (const void* p : all) sum += static_cast<const T*>(p)[i];
        x[i] = sum;
      }
    });
  }
  MeetingPlace& place_;
  int rank_, ranks_;
};

class RanksTest : public TrainerTest {
 protected:
  std::vector<TrainResult> run_ranks(const Recipe& r, const std::string& name, int ranks,
                                     const TrainHooks& hooks = {}, bool resume = false) const {
    MeetingPlace place(ranks);
    std::vector<TrainResult> results(static_cast<std::size_t>(ranks));
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        const runtime::Runtime runtime({1, ""});
        Threads own(place, rank, ranks);
        results[static_cast<std::size_t>(rank)] =
            train(r, {dir_.path() / name, resume, &own}, runtime, hooks);
      });
    }
    for (std::thread& t : threads) t.join();
    return results;
  }
};

std::vector<float> weights_of(const fs::path& checkpoint) {
  const auto file = io::Safetensors::open(checkpoint / "model.safetensors");
  std::vector<float> all;
  for (const auto& [name, t] : file.tensors()) {
    const auto values = t.to_floats();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

// As one rank learns it, to rounding.
class TwoRanks : public RanksTest {
 protected:
  void expect_what_one_learns(const Recipe& r) {
    std::vector<double> alone_losses, losses;
    TrainHooks hooks;
    hooks.on_step = [&](const StepReport& s) { alone_losses.push_back(s.total_loss); };
    const TrainResult alone = run(r, "alone", false, 1, hooks);
    hooks.on_step = [&](const StepReport& s) { losses.push_back(s.total_loss); };
    const auto two = run_ranks(r, "two", 2, hooks);
    ASSERT_EQ(losses.size(), alone_losses.size());  // heard on the first rank alone
    for (std::size_t i = 0; i < losses.size(); ++i)
      EXPECT_NEAR(losses[i], alone_losses[i], 2e-4) << i;
    EXPECT_EQ(two[0].step, alone.step);
    EXPECT_EQ(two[1].step, alone.step);
    EXPECT_EQ(two[0].tokens, alone.tokens);
    EXPECT_EQ(two[1].checkpoint, two[0].checkpoint);
    const auto want = weights_of(alone.checkpoint), got = weights_of(two[0].checkpoint);
    ASSERT_EQ(want.size(), got.size());
    double difference = 0, size = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      difference += std::pow(static_cast<double>(want[i] - got[i]), 2);
      size += std::pow(static_cast<double>(want[i]), 2);
    }
    EXPECT_LT(std::sqrt(difference / size), 1e-3);
  }
};

TEST_F(TwoRanks, LearnAText) {
  // Five micro-batches of one sequence: one rank takes three of them.
  expect_what_one_learns(
      recipe({"schedule.batch=5", "schedule.micro_batch=1", "schedule.steps=6"}));
}

// Their micro-batches differ in rows, and in how many of these are learnt.
TEST_F(TwoRanks, LearnConversations) {
  run(recipe({"schedule.steps=2"}), "base");
  std::string lines;
  for (int i = 0; i < 60; ++i) {
    lines += cat(R"({"prompt": ")", std::string(static_cast<std::size_t>(1 + i % 13), 'a'),
                 R"(", "completion": ")", std::string(static_cast<std::size_t>(1 + i % 5), 'b'),
                 "\"}\n");
  }
  write_file_atomically(dir_.path() / "pairs.jsonl", lines);
  expect_what_one_learns(parse_recipe(R"(
[model]
init_from = "base/model"
[data]
conversations = ["pairs.jsonl"]
seq_len = 24
[schedule]
epochs = 2
warmup_steps = 1
batch = 5
micro_batch = 1
[run]
precision = "f32"
)",
                                      "pairs.toml", {}, dir_.path()));
}

TEST_F(RanksTest, OneRankGivesTheBitsOfNone) {
  for (const std::string precision : {"f32", "bf16", "fp8"}) {
    const Recipe r = recipe({"run.precision=" + precision, "schedule.steps=4"});
    const TrainResult none = run(r, "none-" + precision);
    const auto one = run_ranks(r, "one-" + precision, 1);
    EXPECT_TRUE(weights(none.checkpoint) == weights(one[0].checkpoint)) << precision;
  }
}

// On the GPU that $CACHALOT_DEVICE names, through NCCL.
TEST_F(RanksTest, OneRankByNcclGivesTheBitsOfNone) {
  const char* device = std::getenv("CACHALOT_DEVICE");
  if (device == nullptr || std::string(device) == "cpu") GTEST_SKIP() << "no CACHALOT_DEVICE";
  if (!comm::nccl_version().starts_with("NCCL 2")) GTEST_SKIP() << comm::nccl_version();
  for (const std::string precision : {"f32", "bf16", "fp8"}) {
    const Recipe r = recipe({"run.precision=" + precision, "schedule.steps=4"});
    const runtime::Runtime runtime({.threads = 1, .cpu = {}, .on_device = true});
    const TrainResult none = train(r, {dir_.path() / ("none-" + precision)}, runtime, {});
    const auto one = comm::nccl(comm::new_nccl_id(), 0, 1, *runtime.context().device);
    const TrainResult with =
        train(r, {dir_.path() / ("one-" + precision), false, one.get()}, runtime, {});
    EXPECT_TRUE(weights(none.checkpoint) == weights(with.checkpoint)) << precision;
  }
}

// All stop in the same step, whoever was asked; and go on to the bits of a run that never stopped.
TEST_F(RanksTest, StopAndResumeTogether) {
  const Recipe r = recipe({"schedule.steps=7"});
  const auto whole = run_ranks(r, "whole", 2);
  std::atomic<bool> stop{false};
  TrainHooks hooks;
  hooks.stop = &stop;
  hooks.on_step = [&](const StepReport& s) {
    if (s.step == 4) stop = true;
  };
  const auto first = run_ranks(r, "stopped", 2, hooks);
  EXPECT_EQ(first[0].ended, Ended::kStopped);
  EXPECT_EQ(first[1].ended, Ended::kStopped);
  EXPECT_EQ(first[0].step, first[1].step);
  const auto second = run_ranks(r, "stopped", 2, {}, true);
  EXPECT_EQ(second[0].step, 7);
  EXPECT_TRUE(weights(second[0].checkpoint) == weights(whole[0].checkpoint));
}

TEST_F(RanksTest, MoreRanksThanMicroBatchesAreRefused) {
  MeetingPlace place(3);
  Threads own(place, 0, 3);
  const Ranks ranks(&own);
  const Recipe r = recipe({"schedule.batch=4", "schedule.micro_batch=2"});
  const std::string text = text_of_error([&] { ranks.check(r); });
  EXPECT_NE(text.find("a step of 4 sequences in micro-batches of 2 makes 2 of them, but 3 ranks"),
            std::string::npos)
      << text;
  ranks.check(recipe({"schedule.batch=4", "schedule.micro_batch=0"}));  // equal shares
  EXPECT_EQ(code_of([&] {
              ranks.check(recipe({"schedule.micro_batch=0", "loss.balance_over=batch"}));
            }),
            Code::kUnsupported);
}

}  // namespace
}  // namespace cachalot::train
