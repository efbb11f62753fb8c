// Drafts that cannot be made cost their text time, and nobody anything else.
#include <gtest/gtest.h>

#include <limits>

#include "base/atomic_file.h"
#include "infer/engine_case_test.h"
#include "model/weights.h"

namespace cachalot::infer {
namespace {

namespace fs = std::filesystem;

// A copy of a model folder in which one value of the MTP layer is no number.
void spoil_mtp(const fs::path& from, const fs::path& to) {
  fs::copy(from, to, fs::copy_options::recursive);
  const fs::path file = to / "model.safetensors";
  std::string bytes = read_file(file, 1 << 28);
  {
    const auto weights = io::Safetensors::open(file);
    const int layer = model::load_config(from).num_hidden_layers;
    const auto& norm = weights.at(cat("model.layers.", layer, ".enorm.weight"));
    const std::string head(static_cast<const char*>(norm.data), 32);
    const std::size_t at = bytes.find(head);
    ASSERT_NE(at, std::string::npos);
    const std::string nan =
        norm.dtype == DType::kF32 ? std::string("\0\0\xC0\x7F", 4) : std::string("\xC0\x7F", 2);
    bytes.replace(at, nan.size(), nan);
  }
  write_file_atomically(file, bytes);
}

TEST(EngineDrafts, AnMtpLayerThatGivesNoNumbersChangesNoAnswer) {
  const Fixture f;
  const testing::TempDir dir;
  const fs::path spoiled = dir.path() / "m";
  spoil_mtp(f.folder, spoiled);
  const auto model = load_for(f.rt, spoiled, Precision::kF32);
  ASSERT_TRUE(model.has_mtp());
  std::vector<Request> requests;
  for (std::uint64_t i = 0; i < 3; ++i) requests.push_back(f.request(5, 12, i));
  for (const int length : {1, 4}) {
    Engine engine(f.rt.context(), model, {.mtp = MtpMode::kOn, .draft_length = length});
    const auto results = engine.run(requests);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(results[i].tokens(), f.alone(requests[i]).tokens());
      EXPECT_EQ(results[i].mtp().drafted, 0);
    }
  }
}

// A penalty so small that logits become infinite: only drafts of seen tokens meet it here.
TEST(EngineDrafts, APenaltyThatBreaksDraftsEndsAtMostItsOwnRequest) {
  const Fixture f;
  Request wild = f.request(1, 12, 1), other = f.request(6, 12, 2);
  wild.sampling.repetition_penalty = 1e-308;
  wild.sampling.temperature = 0;
  Result ended, whole;
  wild.on_done = [&](const Result& r) { ended = r; };
  other.on_done = [&](const Result& r) { whole = r; };
  Engine engine(f.rt.context(), f.model, {.mtp = MtpMode::kOn, .draft_length = 4});
  engine.submit(wild);
  engine.submit(other);
  engine.run();
  EXPECT_EQ(whole.tokens(), f.alone(other).tokens());
  EXPECT_GT(ended.id, 0U) << "it was answered";
}

}  // namespace
}  // namespace cachalot::infer
