// Passes that are recorded on a device give the bits of those that are not, whatever comes between
// them: other batches, prompts, drafts. Needs $CACHALOT_DEVICE.
#include "model/forward_small.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "kernels/cpu/levels.h"
#include "model/init.h"
#include "runtime/runtime.h"
#include "tensor/host_copy.h"

namespace cachalot::model {
namespace {

namespace fs = std::filesystem;

Config small_config(int kv_lora, int rope, int q_lora) {
  Config c;
  c.vocab_size = 512;
  c.hidden_size = 256;
  c.intermediate_size = 384;
  c.moe_intermediate_size = 128;
  c.num_hidden_layers = 3;
  c.first_k_dense_replace = 1;
  c.num_attention_heads = 4;
  c.q_lora_rank = q_lora;
  c.kv_lora_rank = kv_lora;
  c.qk_nope_head_dim = 64;
  c.qk_rope_head_dim = rope;
  c.v_head_dim = 64;
  c.rope.dim = rope;
  c.n_shared_experts = 1;
  c.route.experts = 16;
  c.route.topk = 4;
  c.route.groups = 4;
  c.route.topk_groups = 2;
  c.num_nextn_predict_layers = 1;
  c.max_position_embeddings = 4096;
  return c;
}

class ForwardSmall : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* device = std::getenv("CACHALOT_DEVICE");
    if (device == nullptr || std::string(device) == "cpu") GTEST_SKIP() << "needs a device";
    runtime_ = std::make_unique<runtime::Runtime>(
        runtime::RuntimeOptions{.threads = 2, .cpu = {}, .on_device = true});
    folder_ = fs::temp_directory_path() / cat("cachalot-small-", getpid());
  }
  void TearDown() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  Model make(const Config& config, WeightFormat format) {
    fs::remove_all(folder_);
    InitOptions init;
    init.format = format;
    init_model(host_context(), config, to_json(config), folder_, init);
    return Model::load(
        folder_,
        {.precision = Precision::kBF16, .keep_codes = true, .context = &runtime_->context()});
  }
  // Its kernels are the CPU's: the device of the process is no concern of it.
  Context host_context() const {
    Context host = runtime_->context();
    host.device = nullptr;
    host.table = &cpu::table(cpu::supported_levels().back());
    return host;
  }
  std::unique_ptr<runtime::Runtime> runtime_;
  fs::path folder_;
};

// A text: its tokens as a function of their places, its cache.
struct Text {
  LatentCache cache;
  std::uint64_t seed;
  std::vector<std::int32_t> tokens(int begin, int count, int vocab) const {
    std::vector<std::int32_t> ids;
    for (int i = 0; i < count; ++i) {
      ids.push_back(static_cast<std::int32_t>((seed * 7919 + 31 * (begin + i)) % vocab));
    }
    return ids;
  }
};

// A script of passes over four texts, and every result of it.
class Player {
 public:
  Player(const Context& ctx, const Model& model, bool recorded)
      : ctx_(ctx),
        model_(model),
        forward_(ctx, model),
        pool_(model.config(), LatentFormat::kBF16,
              CachePool::bytes_for(model.config(), LatentFormat::kBF16, 2048, 4), ctx.device) {
    forward_.allow_recording(recorded);
    for (std::uint64_t i = 0; i < 4; ++i) texts_.push_back({LatentCache(pool_), i + 1});
  }
  // The next `counts[i]` tokens of text i; the main pass and, of the same rows, the MTP layer.
  void pass(const std::vector<int>& counts) {
    std::vector<std::vector<std::int32_t>> read;
    std::vector<Chunk> chunks;
    read.reserve(counts.size());
    for (std::size_t i = 0; i < counts.size(); ++i) {
      if (counts[i] == 0) continue;
      Text& t = texts_[i];
      read.push_back(t.tokens(t.cache.length(), counts[i], model_.config().vocab_size));
      chunks.push_back({read.back(), &t.cache});
    }
    const MatView<const float> rows = forward_.run(chunks);
    results.push_back(host_copy(rows, ctx_.device));
    if (!model_.has_mtp()) return;
    results.push_back(host_copy(forward_.run_mtp(chunks, rows), ctx_.device));
  }
  void forget(std::size_t text, int length) { texts_[text].cache.truncate(length); }

  std::vector<Mat<float>> results;

 private:
  const Context& ctx_;
  const Model& model_;
  Forward forward_;
  CachePool pool_;
  std::vector<Text> texts_;
};

void play(Player& p) {
  p.pass({5});
  for (int i = 0; i < 6; ++i) p.pass({1});  // recorded from the third on
  p.pass({1, 90});                          // a prompt beside it: too many rows
  for (int i = 0; i < 5; ++i) p.pass({1, 1});
  p.pass({0, 0, 300});
  for (int i = 0; i < 5; ++i) p.pass({1, 1, 1});
  for (int i = 0; i < 4; ++i) {  // drafts, some of them wrong
    p.pass({2, 3, 1});
    p.forget(1, 95 + 2 * i);
  }
  for (int i = 0; i < 5; ++i) p.pass({1, 1});  // the batch of before
  p.pass({0, 0, 0, 700});
  for (int i = 0; i < 70; ++i) p.pass({1, 1, 1, 1});  // across blocks
  p.pass({16, 16, 16, 16});
  for (int i = 0; i < 5; ++i) p.pass({1});
}

void expect_same_bits(const Context& ctx, const Model& model, const std::string& what) {
  Player recorded(ctx, model, true), plain(ctx, model, false);
  play(recorded);
  play(plain);
  ASSERT_EQ(recorded.results.size(), plain.results.size());
  int wrong = 0;
  for (std::size_t i = 0; i < plain.results.size(); ++i) {
    const Mat<float>&a = recorded.results[i], &b = plain.results[i];
    ASSERT_EQ(a.size(), b.size());
    if (std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0) continue;
    if (++wrong <= 5) ADD_FAILURE() << what << ": result " << i << " of " << a.rows() << " rows";
  }
  EXPECT_EQ(wrong, 0) << what;
}

TEST_F(ForwardSmall, RecordedPassesGiveTheBitsOfPlainOnes) {
  for (const WeightFormat format : {WeightFormat::kFp8, WeightFormat::kBf16}) {
    const auto fast = make(small_config(512, 64, 128), format);
    expect_same_bits(runtime_->context(), fast, cat(name(format), ", latents of 512"));
    const auto other = make(small_config(96, 32, 0), format);
    expect_same_bits(runtime_->context(), other, cat(name(format), ", latents of 96"));
  }
}

// Rows agree with the host's, as far as bf16 products in another order do.
TEST_F(ForwardSmall, AgreesWithTheHost) {
  const Context here = host_context();
  for (const WeightFormat format : {WeightFormat::kFp8, WeightFormat::kBf16}) {
    const auto there = make(small_config(512, 64, 128), format);
    const auto model =
        Model::load(folder_, {.precision = Precision::kBF16, .keep_codes = true, .context = &here});
    Player got(runtime_->context(), there, true), want(here, model, true);
    for (Player* p : {&got, &want}) {
      p->pass({40});
      for (int i = 0; i < 8; ++i) p->pass({1});
    }
    int near = 0;
    for (std::size_t i = 0; i < want.results.size(); ++i) {
      double difference = 0, size = 0;
      const Mat<float>&a = got.results[i], &b = want.results[i];
      for (std::size_t j = 0; j < b.size(); ++j) {
        difference += std::pow(a.data()[j] - b.data()[j], 2);
        size += std::pow(b.data()[j], 2);
      }
      // A row whose router was undecided may have gone to another expert.
      near += std::sqrt(difference / size) < 0.02 ? 1 : 0;
    }
    EXPECT_GE(near, static_cast<int>(want.results.size()) * 3 / 4) << name(format);
  }
}

}  // namespace
}  // namespace cachalot::model
