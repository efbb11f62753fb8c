// Folders whose weights stay in 8 or 4 bits: what runs, what is refused.
#include "model/packed_weights.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/rng.h"
#include "kernels/cpu/levels.h"
#include "model/convert.h"
#include "model/forward.h"
#include "runtime/runtime.h"
#include "testing/fixtures.h"

namespace cachalot::model {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Activations = LoadOptions::Activations;

std::vector<std::int32_t> tokens_of(const io::TensorView& t) {
  const auto ints = t.to_ints();
  return {ints.begin(), ints.end()};
}

Mat<float> logits_of(Forward& forward, std::span<const std::int32_t> tokens, int chunk) {
  const Model& model = forward.model();
  const LatentFormat format = default_cache_format(model.precision());
  CachePool pool(model.config(), format, CachePool::bytes_for(model.config(), format, 128));
  LatentCache cache(pool);
  Mat<float> all(static_cast<int>(tokens.size()), model.config().vocab_size);
  for (int at = 0; at < all.rows(); at += chunk) {
    const int n = std::min(chunk, all.rows() - at);
    const Chunk piece{tokens.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(n)),
                      &cache};
    forward.logits(forward.run({&piece, 1}), all.view().sub_rows(at, n));
  }
  return all;
}

// Over rows: the median of the largest error, and the share with the same best token.
struct Distance {
  std::vector<float> errors;
  int same = 0;

  void add(const Mat<float>& got, const float* want) {
    const int cols = got.cols();
    for (int i = 0; i < got.rows(); ++i, want += cols) {
      const float* row = got.row(i);
      float worst = 0;
      for (int j = 0; j < cols; ++j) {
        const float e = std::fabs(row[j] - want[j]);
        if (!(e <= worst)) worst = e;
      }
      errors.push_back(worst);
      same += std::max_element(row, row + cols) - row == std::max_element(want, want + cols) - want;
    }
  }
  float median() {
    std::sort(errors.begin(), errors.end());
    return errors[errors.size() / 2];
  }
  double share() const { return static_cast<double>(same) / static_cast<double>(errors.size()); }
};

void convert(const fs::path& from, const fs::path& to, WeightFormat format, bool head = true) {
  const runtime::Runtime runtime({2, ""});
  ConvertOptions options;
  options.format = format;
  options.packed = packed_config(format, 0, head);
  convert_model(runtime.context(), from, to, options);
}

std::vector<std::vector<std::int32_t>> prompts_of(const fs::path& fixture) {
  const auto expected = io::Safetensors::open(fixture / "expected.safetensors");
  std::vector<std::vector<std::int32_t>> all;
  while (const auto* t = expected.find(cat("s", all.size(), ".tokens"))) {
    all.push_back(tokens_of(*t));
  }
  return all;
}

// Codes multiplied as they lie, beside the same weights multiplied out exactly, in floats: what
// rounding activations to bf16 may do (tests/fixtures/README.md). The head, whose rounding decides
// near ties of these random models, is left in bf16 here and has a test of its own.
TEST(PackedFixture, CodesAsTheyLieAgreeWithTheSameWeightsInFloats) {
  for (const fs::path& folder : testing::fixture_folders(testing::FixtureKind::kModel)) {
    for (const auto format : {WeightFormat::kFp8, WeightFormat::kInt8, WeightFormat::kInt4}) {
      SCOPED_TRACE(folder.string() + " " + std::string(name(format)));
      const testing::TempDir temporary;
      const fs::path q = temporary.path() / "q";
      convert(folder, q, format, /*head=*/false);
      const auto prompts = prompts_of(folder);
      const Model exact = Model::load(q, Precision::kF32);
      EXPECT_EQ(0u, exact.code_bytes());
      const runtime::Runtime runtime({2, ""});
      // Expanded attention on both sides: what absorbed attention rounds is not asked here.
      Forward in_floats(runtime.context(), exact, AttentionMode::kNaive);
      std::vector<Mat<float>> want;
      for (const auto& tokens : prompts) want.push_back(logits_of(in_floats, tokens, 1000));
      const Model kept = Model::load(q, LoadOptions{Precision::kBF16, true, Activations::kBf16});
      EXPECT_GT(kept.code_bytes(), 0u);
      for (const cpu::Level level : cpu::supported_levels()) {
        const runtime::Runtime at({2, std::string(cpu::name(level))});
        Forward forward(at.context(), kept, AttentionMode::kNaive);
        Distance d;
        for (std::size_t n = 0; n < prompts.size(); ++n) {
          d.add(logits_of(forward, prompts[n], 1000), want[n].data());
        }
        EXPECT_LT(d.median(), 0.5f) << cpu::name(level);
        EXPECT_GE(d.share(), 0.9) << cpu::name(level);
      }
    }
  }
}

// A head of codes multiplies rows that were rounded to bf16, half a unit of 8 bits at most, and
// nothing else.
TEST(PackedFixture, HeadOfCodes) {
  constexpr int kRows = 5;
  const runtime::Runtime runtime({2, ""});
  for (const fs::path& folder : testing::fixture_folders(testing::FixtureKind::kModel)) {
    for (const auto format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
      const testing::TempDir temporary;
      const fs::path q = temporary.path() / "q";
      convert(folder, q, format);
      const Model exact = Model::load(q, Precision::kF32);
      const Model kept = Model::load(q, LoadOptions{Precision::kBF16, true, Activations::kBf16});
      ASSERT_EQ(QuantCode::kInt8, kept.weights().head.quant.code);
      const int hidden = exact.config().hidden_size, vocab = exact.config().vocab_size;
      ASSERT_EQ(vocab, kept.weights().head.quant.rows);
      const Rng rng(5);
      Mat<float> rows(kRows, hidden), want(kRows, vocab), got(kRows, vocab);
      for (std::size_t i = 0; i < rows.size(); ++i)
        rows.data()[i] = static_cast<float>(rng.normal(i));
      Forward(runtime.context(), exact).logits(rows.cview(), want.view());
      Forward(runtime.context(), kept).logits(rows.cview(), got.view());
      const auto head =
          read_floats(exact.config(), io::Safetensors::open(q), "lm_head.weight", {vocab, hidden});
      for (int i = 0; i < kRows; ++i) {
        for (int j = 0; j < vocab; ++j) {
          double size = 0;
          for (int k = 0; k < hidden; ++k) {
            size += std::abs(rows.row(i)[k] * head[static_cast<std::size_t>(j) * hidden + k]);
          }
          ASSERT_NEAR(want.row(i)[j], got.row(i)[j], size * 0x1p-9 * 1.01) << i << " " << j;
        }
      }
    }
  }
}

// One token at a time, seven, or all: few rows and many rows take other ways through the kernels.
TEST(PackedFixture, ChunksDoNotChangeABit) {
  const runtime::Runtime runtime({2, ""});
  for (const fs::path& folder : testing::fixture_folders(testing::FixtureKind::kModel)) {
    for (const auto format : {WeightFormat::kFp8, WeightFormat::kInt8, WeightFormat::kInt4}) {
      const testing::TempDir temporary;
      const fs::path q = temporary.path() / "q";
      convert(folder, q, format);
      const auto tokens = prompts_of(folder).front();
      for (const auto activations :
           {Activations::kBf16,
            format == WeightFormat::kFp8 ? Activations::kFp8 : Activations::kInt8}) {
        const Model model = Model::load(q, LoadOptions{Precision::kBF16, true, activations});
        Forward forward(runtime.context(), model, AttentionMode::kNaive);
        const Mat<float> all = logits_of(forward, tokens, 1000);
        for (const int chunk : {1, 7}) {
          const Mat<float> pieces = logits_of(forward, tokens, chunk);
          EXPECT_TRUE(std::equal(all.data(), all.data() + all.size(), pieces.data()))
              << folder << " " << name(format) << " chunk " << chunk;
        }
      }
    }
  }
}

// The published FP8 form with activations in FP8, against results of an independent program.
TEST(PackedFixture, Fp8ActivationsAsTheOfficialKernels) {
  for (const fs::path& folder : testing::fixture_folders(testing::FixtureKind::kModel)) {
    const auto expected = io::Safetensors::open(folder / "expected.safetensors");
    for (const char* scale : {"official", "official_ue8m0"}) {
      const std::string wanted = cat("s0.logits_w8a8_", scale);
      if (expected.find(wanted) == nullptr) continue;
      const testing::TempDir temporary;
      const fs::path model_folder = temporary.path() / "model";
      fs::create_directory(model_folder);
      fs::copy(folder / "model.safetensors", model_folder / "model.safetensors");
      auto config = nlohmann::json::parse(read_file(folder / "config.json", 1 << 20));
      if (std::string_view(scale) != "official") {
        config["quantization_config"]["scale_fmt"] = "ue8m0";
      }
      std::ofstream(model_folder / "config.json") << config.dump();
      const Model model =
          Model::load(model_folder, LoadOptions{Precision::kF32, true, Activations::kFp8});
      const auto want = expected.at(wanted).to_floats();
      for (const cpu::Level level : cpu::supported_levels()) {
        const runtime::Runtime runtime({2, std::string(cpu::name(level))});
        for (const auto mode : {AttentionMode::kNaive, AttentionMode::kAbsorbed}) {
          Forward forward(runtime.context(), model, mode);
          Distance d;
          d.add(logits_of(forward, tokens_of(expected.at("s0.tokens")), 1000), want.data());
          EXPECT_LT(d.median(), 0.05f) << scale << " " << cpu::name(level);
          EXPECT_GE(d.share(), 0.9) << scale << " " << cpu::name(level);
        }
      }
    }
  }
}

// A folder of one weight, with what a hostile or careless writer may have done to it.
class PackedFile : public ::testing::Test {
 protected:
  PackedFile() {
    config.packed = {true, {4, 32}, {}};
    codes.assign(3 * 9 * 4, 0x11);
    scales.assign(3 * 3, to_bf16(0.5f));
  }
  io::Safetensors open() {
    io::write_model_safetensors(folder.path(), tensors);
    return io::Safetensors::open(folder.path());
  }
  void expect(Code code, const std::string& text) {
    const auto file = open();
    try {
      find_packed(config, file, kName);
      FAIL() << text;
    } catch (const Error& e) {
      EXPECT_EQ(code, e.code()) << e.what();
      EXPECT_THAT(e.what(), HasSubstr(text));
      EXPECT_THAT(e.what(), HasSubstr("model.safetensors"));
    }
  }
  static constexpr const char* kName = "a.weight";
  testing::TempDir folder;
  Config config;
  std::vector<std::uint8_t> codes;
  std::vector<Bf16> scales;
  std::int64_t shape[2] = {3, 70};
  std::vector<io::TensorToWrite> tensors{{"a.weight_packed", DType::kI32, {3, 9}, nullptr},
                                         {"a.weight_scale", DType::kBF16, {3, 3}, nullptr},
                                         {"a.weight_shape", DType::kI64, {2}, shape}};

  void SetUp() override {
    tensors[0].data = codes.data();
    tensors[1].data = scales.data();
  }
};

TEST_F(PackedFile, IsRead) {
  const auto file = open();
  const auto p = find_packed(config, file, kName);
  ASSERT_TRUE(p.has_value());
  EXPECT_EQ((Shape{3, 70}), p->shape);
  EXPECT_EQ(36, p->view.stride);
  EXPECT_EQ(3, p->view.scale_stride);
  const auto values = read_floats(config, file, kName, {3, 70});
  for (const float v : values) EXPECT_EQ(-3.5f, v);  // (1 - 8) * 0.5
  EXPECT_TRUE(is_part_of_weight(file, "a.weight_scale"));
  EXPECT_TRUE(is_part_of_weight(file, "a.weight_shape"));
  EXPECT_FALSE(is_part_of_weight(file, "a.weight_packed"));
  EXPECT_EQ("a.weight", packed_owner("a.weight_packed"));
  EXPECT_EQ("", packed_owner("a_packed"));
  EXPECT_FALSE(find_packed(config, file, "b.weight").has_value());
}

TEST_F(PackedFile, NoConfig) {
  config.packed.enabled = false;
  expect(Code::kFormat, "config.json has no quantization_config of compressed-tensors");
}
TEST_F(PackedFile, OtherBits) {
  config.packed.linear.bits = 8;
  expect(Code::kFormat,
         "'a.weight_packed' is I32 [3, 9], but 8-bit weights [3, 70] are I32 [3, 18]");
}
TEST_F(PackedFile, OtherGroups) {
  config.packed.linear.group = 128;
  expect(Code::kFormat, "weights [3, 70] in groups of 128 have BF16 [3, 1]");
}
TEST_F(PackedFile, AShapeThatIsNone) {
  shape[0] = -3;
  expect(Code::kFormat, "'a.weight_shape' says [-3, 70], which is no shape of a matrix");
}
TEST_F(PackedFile, AShapeThatIsTooLarge) {
  shape[1] = std::int64_t{1} << 40;
  expect(Code::kFormat, "which is no shape of a matrix");
}
TEST_F(PackedFile, AnotherShape) {
  shape[1] = 90;
  expect(Code::kFormat, "4-bit weights [3, 90] are I32 [3, 12]");
}
TEST_F(PackedFile, NoScales) {
  tensors.erase(tensors.begin() + 1);
  expect(Code::kFormat, "packed weights need a tensor 'a.weight_scale', which is missing");
}
TEST_F(PackedFile, NoShape) {
  tensors.pop_back();
  expect(Code::kFormat, "packed weights need a tensor 'a.weight_shape', which is missing");
}
TEST_F(PackedFile, ScalesOfAnotherType) {
  tensors[1].dtype = DType::kF16;
  expect(Code::kFormat, "'a.weight_scale' is F16 [3, 3]");
}
TEST_F(PackedFile, TwoForms) {
  tensors.push_back({"a.weight", DType::kBF16, {3, 3}, scales.data()});
  expect(Code::kFormat, "both 'a.weight' and 'a.weight_packed' are there");
}

TEST(PackedModel, ActivationsThatDoNotFitTheWeights) {
  const auto folders = testing::fixture_folders(testing::FixtureKind::kModel);
  for (const auto activations : {Activations::kFp8, Activations::kInt8}) {
    for (const fs::path& folder : folders) {
      const bool fp8 = load_config(folder).fp8.enabled;
      if (fp8 && activations == Activations::kFp8) continue;
      try {
        Model::load(folder, LoadOptions{Precision::kBF16, true, activations});
        ADD_FAILURE() << folder;
      } catch (const Error& e) {
        EXPECT_EQ(Code::kUnsupported, e.code());
        EXPECT_THAT(e.what(), HasSubstr("cachalot convert --dtype"));
      }
    }
  }
}

}  // namespace
}  // namespace cachalot::model
