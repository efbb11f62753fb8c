// What runs on a device, with the host's memory as that device: whatever is read that was not
// uploaded is NaN, and every bit is the host's own.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "infer/engine_case_test.h"
#include "infer/evaluate.h"

namespace cachalot::infer {
namespace {

class HostDevice final : public Device {
 public:
  void* allocate(std::size_t bytes) override {
    void* p = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (p == nullptr) throw std::bad_alloc();
    std::memset(p, 0xFF, bytes);
    return p;
  }
  void release(void* p) noexcept override { std::free(p); }
  void zero(void* p, std::size_t bytes) override { std::memset(p, 0, bytes); }
  void copy(void* to, const void* from, std::size_t bytes) override {
    std::memcpy(to, from, bytes);
  }
  void upload(void* to, const void* from, std::size_t bytes) override {
    std::memcpy(to, from, bytes);
    uploaded += bytes;
  }
  void download(void* to, const void* from, std::size_t bytes) override {
    std::memcpy(to, from, bytes);
  }
  void wait() override {}
  std::string name() const override { return "the host's memory"; }
  double bf16_flops() const noexcept override { return 1e9; }

  std::size_t uploaded = 0;
};

// Kernels keep scratch of their threads until those end: the device outlives them.
HostDevice& host_device() {
  static auto* device = new HostDevice;
  return *device;
}

model::Model load(const Context& ctx, const std::filesystem::path& folder, Precision precision) {
  return model::Model::load(folder, {.precision = precision, .keep_codes = true, .context = &ctx});
}

void expect_same(const std::vector<Result>& got, const std::vector<Result>& want,
                 const std::string& what) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].tokens(), want[i].tokens()) << what;
    const auto& a = got[i].choices.front().logprobs;
    const auto& b = want[i].choices.front().logprobs;
    ASSERT_EQ(a.size(), b.size()) << what;
    for (std::size_t t = 0; t < a.size(); ++t) EXPECT_EQ(a[t].logprob, b[t].logprob) << what;
  }
}

TEST(EngineDevice, GivesTheBitsOfTheHost) {
  const runtime::Runtime rt(anywhere(1));
  if (rt.context().device != nullptr) GTEST_SKIP() << "needs the kernels of a CPU";
  const Context& host = rt.context();
  Context device = host;
  device.device = &host_device();
  for (const auto& folder : model_folders()) {
    auto requests = requests_of(load_golden(folder));
    for (Request& r : requests) {
      r.logprobs = 1;
      r.max_tokens = std::min(r.max_tokens, 8);
    }
    requests.front().n = 2;  // a fork
    for (const Precision precision : {Precision::kF32, Precision::kBF16}) {
      const auto on_host = load(host, folder, precision);
      const auto on_device = load(device, folder, precision);
      EXPECT_EQ(on_device.placement(), model::LoadOptions::Placement::kOnDevice);
      EXPECT_EQ(on_device.code_bytes(), on_host.code_bytes());
      EXPECT_GT(on_device.copied_bytes(), on_device.mapped_bytes() / 4);
      for (const auto attention : {model::AttentionMode::kNaive, model::AttentionMode::kAbsorbed}) {
        for (const int drafts : {0, 3}) {
          if (drafts > 0 && !on_host.has_mtp()) continue;
          EngineConfig config{.mtp = drafts > 0 ? MtpMode::kOn : MtpMode::kOff,
                              .draft_length = std::max(drafts, 1),
                              .attention = attention,
                              .prefill_chunk = 50};
          config.cache_bytes =
              model::CachePool::bytes_for(on_host.config(), LatentFormat::kF32, 512, 4);
          Engine there(device, on_device, config), here(host, on_host, config);
          const std::string what =
              cat(folder.string(), " ", drafts, " drafts, attention ", static_cast<int>(attention));
          expect_same(there.run(requests), here.run(requests), what);
          expect_same(there.run(requests), here.run(requests), what + ", again");  // kept texts
        }
      }
      const auto tokens = load_golden(folder).prompts.front();
      EXPECT_EQ(evaluate(device, on_device, tokens, {.context = 16}).nats,
                evaluate(host, on_host, tokens, {.context = 16}).nats);
    }
  }
}

// Blocks go to the host as they do from a cache there, and back.
TEST(EngineDevice, BlocksOfACacheComeAndGo) {
  const auto config = model::load_config(model_with_mtp());
  const std::size_t bytes = model::CachePool::bytes_for(config, LatentFormat::kF32, 256);
  model::CachePool here(config, LatentFormat::kF32, bytes);
  model::CachePool there(config, LatentFormat::kF32, bytes, &host_device());
  std::vector<std::byte> block(here.shape().page_bytes()), back(block.size());
  for (std::size_t i = 0; i < block.size(); ++i) block[i] = static_cast<std::byte>(i % 251);
  model::LatentCache a(here), b(there);
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(a.append_block(block, true));
    const std::size_t before = host_device().uploaded;
    ASSERT_TRUE(b.append_block(block, true));
    EXPECT_GE(host_device().uploaded, before + block.size());
  }
  const model::LatentCache fork = b.fork(100);
  ASSERT_TRUE(b.reserve(100, 128));  // a copy of the second page
  for (int i = 0; i < 2; ++i) {
    std::vector<std::byte> want(block.size());
    a.copy_block(i, true, want);
    b.copy_block(i, true, back);
    EXPECT_EQ(back, want) << i;
  }
}

}  // namespace
}  // namespace cachalot::infer
