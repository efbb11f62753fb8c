// How a folder is opened: the precision that its weights ask for, and an MTP layer that is not
// there.
#include "model/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/convert.h"
#include "runtime/runtime.h"
#include "testing/fixtures.h"

namespace cachalot::model {
namespace {

namespace fs = std::filesystem;

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

LoadOptions by_weights() {
  LoadOptions options;
  options.keep_codes = true;
  options.precision_of_weights = true;
  return options;
}

TEST(WeightsFixture, ThePrecisionFollowsTheFormOfTheWeights) {
  const auto folders = testing::fixture_folders(testing::FixtureKind::kModel);
  ASSERT_FALSE(folders.empty());
  const testing::TempDir dir;
  const runtime::Runtime rt({.threads = 1, .cpu = {}});
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kFp8,
                                    WeightFormat::kInt8, WeightFormat::kInt4}) {
    SCOPED_TRACE(name(format));
    const fs::path folder = dir.path() / std::string(name(format));
    ConvertOptions options;
    options.format = format;
    convert_model(rt.context(), folders.front(), folder, options);
    const Model model = Model::load(folder, by_weights());
    const bool wide = format == WeightFormat::kF32;
    EXPECT_EQ(model.precision(), wide ? Precision::kF32 : Precision::kBF16);
    const bool codes = !wide && format != WeightFormat::kBf16;
    EXPECT_EQ(model.code_bytes() > 0, codes);
    // What is asked for by name is done whatever the folder holds.
    LoadOptions exact = by_weights();
    exact.precision_of_weights = false;
    exact.precision = Precision::kF32;
    EXPECT_EQ(Model::load(folder, exact).precision(), Precision::kF32);
  }
}

// The folder without the tensors of its MTP layers, as some are published.
void write_without_mtp(const fs::path& from, const fs::path& to) {
  const Config config = load_config(from);
  const io::Safetensors file = io::Safetensors::open(from);
  const std::string mtp = cat("model.layers.", config.num_hidden_layers, ".");
  std::vector<io::TensorToWrite> tensors;
  for (const auto& [name, t] : file.tensors()) {
    if (!name.starts_with(mtp)) tensors.push_back({name, t.dtype, t.shape, t.data});
  }
  fs::create_directory(to);
  fs::copy_file(from / "config.json", to / "config.json");
  io::write_safetensors(to / "model.safetensors", tensors);
}

TEST(WeightsFixture, AnMtpLayerThatIsPromisedAndNotThereIsSaidOnce) {
  const testing::TempDir dir;
  int seen = 0;
  for (const fs::path& folder : testing::fixture_folders(testing::FixtureKind::kModel)) {
    const Model whole = Model::load(folder, Precision::kBF16);
    if (whole.config().num_nextn_predict_layers != 1) continue;
    EXPECT_THAT(whole.remarks(), IsEmpty()) << folder;
    const fs::path without = dir.path() / std::to_string(seen++);
    write_without_mtp(folder, without);
    const Model model = Model::load(without, Precision::kBF16);
    EXPECT_FALSE(model.has_mtp());
    EXPECT_THAT(model.remarks(),
                ElementsAre(HasSubstr(cat("promises 1 MTP layer (num_nextn_predict_layers), but "
                                          "the model's files have no model.layers.",
                                          whole.config().num_hidden_layers, ".eh_proj.weight"))));
  }
  EXPECT_GT(seen, 0);
}

// Dense layers may reach into the MTP layer; without it the config is one that can be read again.
TEST(WeightsFixture, AnAbsentMtpLayerIsNoneOfTheDenseOnes) {
  const testing::TempDir dir;
  const float one = 1;
  const std::vector<io::TensorToWrite> tensors{{"model.norm.weight", DType::kF32, {1}, &one}};
  io::write_safetensors(dir.path() / "model.safetensors", tensors);
  Config config;
  config.num_hidden_layers = 2;
  config.num_nextn_predict_layers = 1;
  config.first_k_dense_replace = 3;
  drop_absent_mtp(config, io::Safetensors::open(dir.path()));
  EXPECT_EQ(config.num_nextn_predict_layers, 0);
  EXPECT_EQ(config.first_k_dense_replace, 2);
}

}  // namespace
}  // namespace cachalot::model
