// Collectives of a rank alone, whose results are its inputs: on the GPU that $CACHALOT_DEVICE names
// through NCCL (skipped without one), and on the host through a fake of it. Several ranks, by MPI,
// are the transcript cli.mpi.
#include "comm/collectives.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "comm/nccl_api.h"
#include "runtime/runtime.h"

namespace cachalot::comm {
namespace {

// The host's memory as a device whose work is done `late` questions later.
class HostDevice final : public Device {
 public:
  void* allocate(std::size_t bytes) override {
    return std::malloc(std::max<std::size_t>(bytes, 1));
  }
  void release(void* p) noexcept override { std::free(p); }
  void zero(void* p, std::size_t bytes) override { std::memset(p, 0, bytes); }
  void copy(void* to, const void* from, std::size_t bytes) override {
    std::memcpy(to, from, bytes);
  }
  void upload(void* to, const void* from, std::size_t bytes) override {
    std::memcpy(to, from, bytes);
  }
  void download(void* to, const void* from, std::size_t bytes) override {
    std::memcpy(to, from, bytes);
  }
  void wait() override {}
  bool done() override { return late-- <= 0; }
  void* queue() override { return has_queue ? this : nullptr; }
  std::string name() const override { return "the host's memory"; }
  double bf16_flops() const noexcept override { return 1e9; }

  int late = 0;
  bool has_queue = true;
};

const NcclApi& fake() {
  static const NcclApi api = load_nccl(CACHALOT_FAKE_NCCL);
  return api;
}

NcclId fake_id() {
  NcclId id;
  id.bytes.fill(7);
  return id;
}

// Through NCCL on a GPU, or else its fake.
class NcclTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!GetParam()) {
      device_ = &host_;
      ranks_ = nccl(fake(), fake_id(), 0, 1, host_);
      return;
    }
    const char* device = std::getenv("CACHALOT_DEVICE");
    if (device == nullptr || std::string(device) == "cpu") GTEST_SKIP() << "no CACHALOT_DEVICE";
    if (!nccl_version().starts_with("NCCL 2")) GTEST_SKIP() << nccl_version();
    runtime_ = std::make_unique<runtime::Runtime>(
        runtime::RuntimeOptions{.threads = 1, .cpu = {}, .on_device = true});
    device_ = runtime_->context().device;
    ranks_ = nccl(new_nccl_id(), 0, 1, *device_);
  }
  template <class T>
  Mat<T> up(const std::vector<T>& values) {
    const MemoryScope scope(device_);
    Mat<T> m(1, static_cast<int>(values.size()));
    upload<T>(values, m);
    return m;
  }
  template <class T>
  std::vector<T> down(const Mat<T>& m) {
    std::vector<T> out(m.size());
    download<T>(m, out);
    return out;
  }
  static std::vector<float> numbers(int n, float from) {
    std::vector<float> v;
    for (int i = 0; i < n; ++i) v.push_back(from + static_cast<float>(i) / 7);
    return v;
  }

  HostDevice host_;
  std::unique_ptr<runtime::Runtime> runtime_;
  Device* device_ = nullptr;
  std::unique_ptr<Collectives> ranks_;
};

std::string text_of(const std::function<void()>& what, Code code) {
  try {
    what();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    return e.what();
  }
  return "nothing was thrown";
}

TEST_P(NcclTest, OneRankAddsAndMovesNothing) {
  EXPECT_EQ(ranks_->rank(), 0);
  EXPECT_EQ(ranks_->size(), 1);
  for (const int n : {1, 7, 1000, 1 << 20}) {
    const std::vector<float> x = numbers(n, -3);
    Mat<float> a = up(x), b = up(numbers(n, 100)), c = up(numbers(n, 200));
    ranks_->all_reduce(a.span());
    EXPECT_EQ(down(a), x) << n;
    ranks_->all_gather<float>(a.span(), b.span());
    EXPECT_EQ(down(b), x) << n;
    ranks_->reduce_scatter<float>(b.span(), c.span());
    EXPECT_EQ(down(c), x) << n;
    ranks_->broadcast(c.span(), 0);
    EXPECT_EQ(down(c), x) << n;
    std::vector<Bf16> h;
    for (const float f : x) h.push_back(to_bf16(f));
    Mat<Bf16> d = up(h);
    ranks_->all_reduce(d.span());
    const std::vector<Bf16> got = down(d);
    for (std::size_t i = 0; i < h.size(); ++i) ASSERT_EQ(to_float(got[i]), to_float(h[i])) << i;
    Mat<std::int32_t> e = up(std::vector<std::int32_t>(static_cast<std::size_t>(n), -5));
    ranks_->all_reduce(e.span());
    EXPECT_EQ(down(e), std::vector<std::int32_t>(static_cast<std::size_t>(n), -5));
  }
  Mat<float> nothing;
  ranks_->all_reduce(nothing.span());
}

TEST_P(NcclTest, RowsComeBackToTheRankThatSentThem) {
  constexpr int kRows = 37, kCols = 64;
  const MemoryScope scope(device_);
  const std::vector<float> x = numbers(kRows * kCols, 1);
  Mat<float> from(kRows, kCols), to(kRows, kCols);
  upload<float>(x, from);
  const int count = kRows;
  ranks_->all_to_all<float>({from.cview(), {&count, 1}, to.view(), {&count, 1}});
  EXPECT_EQ(down(to), x);
  const int none = 0;
  ranks_->all_to_all<float>(
      {{nullptr, 0, kCols, kCols}, {&none, 1}, {nullptr, 0, kCols, kCols}, {&none, 1}});
}

// Several operations as one, behind work that was queued before and in front of work behind them.
TEST_P(NcclTest, SeveralInOneGroup) {
  const std::vector<float> x = numbers(5000, 2), y = numbers(300, 9);
  Mat<float> a = up(x), b = up(y), to = up(numbers(5000, 0));
  const int rows = 50;
  const MatView<const float> from{a.data(), rows, 100, 100};
  for (int turn = 0; turn < 20; ++turn) {
    device_->zero(to.data(), to.size() * sizeof(float));
    ranks_->together([&] {
      ranks_->all_reduce(b.span());
      ranks_->all_to_all<float>({from, {&rows, 1}, {to.data(), rows, 100, 100}, {&rows, 1}});
      ranks_->broadcast(b.span(), 0);
    });
    EXPECT_EQ(down(to), x);
    EXPECT_EQ(down(b), y);
  }
}

TEST_P(NcclTest, NumbersOfTheHost) {
  std::vector<double> x{1, -2.5, 1e300, 3e9 + 1};
  const std::vector<double> want = x;
  ranks_->sum_numbers(x);
  EXPECT_EQ(x, want);
  ranks_->sum_numbers({});
  EXPECT_EQ(ranks_->from_first("step-7 \xff"), "step-7 \xff");
  EXPECT_EQ(ranks_->from_first(""), "");
  ranks_->meet();
}

TEST_P(NcclTest, WrongSizesAreRefused) {
  Mat<float> a = up(numbers(12, 0)), b = up(numbers(13, 0));
  EXPECT_NE(text_of([&] { ranks_->all_gather<float>(a.span(), b.span()); }, Code::kShape)
                .find("a piece of 12 elements and 1 ranks make 12, but the whole has 13"),
            std::string::npos);
  EXPECT_NE(text_of([&] { ranks_->reduce_scatter<float>(a.span(), b.span()); }, Code::kShape)
                .find("reduce_scatter"),
            std::string::npos);
  EXPECT_NE(text_of([&] { ranks_->broadcast(a.span(), 1); }, Code::kShape).find("ranks 0 to 0"),
            std::string::npos);
  const int three = 3, four = 4;
  const MatView<float> rows{a.data(), 3, 4, 4}, wide{a.data(), 4, 3, 3};
  EXPECT_NE(text_of(
                [&] {
                  ranks_->all_to_all<float>({rows, {&four, 1}, rows, {&three, 1}});
                },
                Code::kShape)
                .find("`from` has 3 rows, but its counts add up to 4"),
            std::string::npos);
  EXPECT_NE(text_of(
                [&] {
                  ranks_->all_to_all<float>({rows, {&three, 1}, wide, {&four, 1}});
                },
                Code::kShape)
                .find("rows of 4 columns go out and rows of 3 come in"),
            std::string::npos);
  EXPECT_NE(text_of(
                [&] {
                  ranks_->all_to_all<float>({rows, {}, rows, {}});
                },
                Code::kShape)
                .find("there are 1"),
            std::string::npos);
  // What was refused leaves the ranks as they were.
  ranks_->all_reduce(a.span());
  EXPECT_EQ(down(a), numbers(12, 0));
}

INSTANTIATE_TEST_SUITE_P(OneRank, NcclTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "gpu" : "fake"; });

struct Setting {
  Setting(const char* name, const char* value) : name(name) { setenv(name, value, 1); }
  ~Setting() { unsetenv(name); }
  const char* name;
};

TEST(NcclFaults, ARefusedCallSaysWhatNcclSaid) {
  HostDevice host;
  const auto ranks = nccl(fake(), fake_id(), 0, 1, host);
  std::vector<float> x(5, 1.0F);
  const Setting fault("FAKE_NCCL_FAULT", "call");
  const std::string text =
      text_of([&] { ranks->all_reduce(std::span<float>(x)); }, Code::kInternal);
  for (const char* part : {"all_reduce", "invalid usage", "said by the fake", "GPU of its own"}) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
  EXPECT_EQ(text_of([&] { ranks->together([&] { ranks->all_reduce(std::span<float>(x)); }); },
                    Code::kInternal),
            text);
}

// While a rank waits for the others, it hears that one of them is gone.
TEST(NcclFaults, AFaultOfAnotherRankEndsTheWait) {
  HostDevice host;
  const auto ranks = nccl(fake(), fake_id(), 0, 1, host);
  const Setting fault("FAKE_NCCL_FAULT", "later");
  host.late = 1 << 30;
  double x = 1;
  const std::string text = text_of([&] { ranks->sum_numbers({&x, 1}); }, Code::kInternal);
  EXPECT_NE(text.find("a fault between ranks"), std::string::npos) << text;
  EXPECT_NE(text.find("remote process exited"), std::string::npos) << text;
}

TEST(NcclFaults, RanksThatCannotJoin) {
  HostDevice host;
  EXPECT_NE(text_of([&] { nccl(fake(), fake_id(), 1, 2, host); }, Code::kInternal)
                .find("joining as rank 1 of 2"),
            std::string::npos);
  host.has_queue = false;
  EXPECT_NE(text_of([&] { nccl(fake(), fake_id(), 0, 1, host); }, Code::kUnsupported)
                .find("this rank's device is the host's memory"),
            std::string::npos);
}

TEST(NcclLibrary, AnOldOneIsRefused) {
  const Setting old("FAKE_NCCL_VERSION", "2708");
  const std::string text = text_of([] { load_nccl(CACHALOT_FAKE_NCCL); }, Code::kUnsupported);
  EXPECT_NE(text.find("version number 2708; 2.13 (21300) or later is needed"), std::string::npos)
      << text;
}

TEST(NcclLibrary, AMissingOneIsSaidHowToGet) {
  const std::string text = text_of([] { load_nccl("./nowhere/libnccl.so.2"); }, Code::kUnsupported);
  for (const char* part : {"./nowhere/libnccl.so.2", "libnccl2", "CACHALOT_NCCL"}) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
}

TEST(NcclLibrary, AnotherLibraryIsRefused) {
  const std::string text = text_of([] { load_nccl("libm.so.6"); }, Code::kUnsupported);
  EXPECT_NE(text.find("libm.so.6 has no ncclGetVersion"), std::string::npos) << text;
}

}  // namespace
}  // namespace cachalot::comm
