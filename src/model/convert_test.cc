// Converting and comparing small folders made here; the fixtures' folders in the second half.
#include "model/convert.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "base/rng.h"
#include "model/config.h"
#include "model/packed_weights.h"
#include "model/weights.h"
#include "numeric/small_float.h"
#include "runtime/runtime.h"
#include "testing/fixtures.h"

namespace cachalot::model {
namespace {

namespace fs = std::filesystem;

std::string content(const fs::path& path) {
  std::ostringstream out;
  out << std::ifstream(path, std::ios::binary).rdbuf();
  return out.str();
}

std::vector<float> normals(std::size_t n, std::uint64_t seed) {
  std::vector<float> values(n);
  const Rng rng(seed);
  for (std::size_t i = 0; i < n; ++i) values[i] = static_cast<float>(rng.normal(i));
  return values;
}

ConvertReport convert(const fs::path& from, const fs::path& to, WeightFormat format,
                      std::uint64_t shard_bytes = 5ull << 30, int threads = 2, int group = 0) {
  const runtime::Runtime runtime({threads, ""});
  ConvertOptions options;
  options.packed = packed_config(format, group);
  options.format = format;
  options.shard_bytes = shard_bytes;
  return convert_model(runtime.context(), from, to, options);
}

std::vector<TensorComparison> compare(const fs::path& a, const fs::path& b) {
  const runtime::Runtime runtime({2, ""});
  return compare_models(runtime.context(), a, b);
}

bool all_identical(const std::vector<TensorComparison>& all) {
  return !all.empty() &&
         std::all_of(all.begin(), all.end(), [](const auto& c) { return c.bit_identical; });
}

// A folder with the config of a fixture and a few tensors of ours: weights of edge sizes.
class SmallModel {
 public:
  SmallModel() {
    fs::create_directories(path());
    const auto config = testing::fixtures_root() / "A" / "config.json";
    auto json = nlohmann::json::parse(content(config));
    json["unknown_key"] = {1, 2};
    std::ofstream(path() / "config.json") << json.dump();
    for (const char* name : {"tokenizer.json", "generation_config.json", "LICENSE"}) {
      std::ofstream(path() / name) << name << " content";
    }
    for (const char* name :
         {"trainer.json", "checksums.json", "optimizer.safetensors", "old.bin", ".hidden"}) {
      std::ofstream(path() / name) << "not of a model";
    }
    const Shape projection{130, 257}, norm{7}, gate{5, 130};
    const auto p = normals(130 * 257, 1), n = normals(7, 2), g = normals(5 * 130, 3);
    const std::int64_t ids[] = {1, -2, 1ll << 60};
    const io::TensorToWrite tensors[] = {
        {"model.layers.0.self_attn.o_proj.weight", DType::kF32, projection, p.data()},
        {"model.layers.0.input_layernorm.weight", DType::kF32, norm, n.data()},
        {"model.layers.1.mlp.gate.weight", DType::kF32, gate, g.data()},
        {"model.layers.1.mlp.gate.e_score_correction_bias", DType::kF32, norm, n.data()},
        {"model.ids", DType::kI64, {3}, ids}};
    io::write_model_safetensors(path(), tensors);
  }
  // With another key, or another value of one, in its config.json.
  void set(const char* key, const nlohmann::json& value) const {
    auto json = nlohmann::json::parse(content(path() / "config.json"));
    json[key] = value;
    std::ofstream(path() / "config.json") << json.dump();
  }
  fs::path path() const { return folder_.path() / "model"; }
  fs::path other(const std::string& name) const { return folder_.path() / name; }

 private:
  testing::TempDir folder_;
};

Error error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "nothing was thrown";
  return {Code::kInternal, ""};
}

TEST(Convert, FormatsByName) {
  for (const auto format : {WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kFp8,
                            WeightFormat::kInt8, WeightFormat::kInt4}) {
    EXPECT_EQ(format, parse_weight_format(name(format)));
  }
  EXPECT_EQ(Code::kUsage, error_of([] { parse_weight_format("fp16"); }).code());
}

TEST(Convert, WhichWeightsAreFp8) {
  const Shape matrix{4, 4};
  for (const char* good :
       {"model.layers.0.self_attn.q_a_proj.weight", "model.layers.0.self_attn.q_proj.weight",
        "model.layers.61.self_attn.kv_a_proj_with_mqa.weight",
        "model.layers.3.mlp.experts.17.down_proj.weight",
        "model.layers.3.mlp.shared_experts.up_proj.weight",
        "model.layers.0.mlp.gate_proj.weight"}) {
    EXPECT_TRUE(is_fp8_weight(good, matrix)) << good;
    EXPECT_FALSE(is_fp8_weight(good, {4})) << good;
  }
  for (const char* bad :
       {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight",
        "model.layers.3.mlp.gate.weight", "model.layers.3.mlp.gate.e_score_correction_bias",
        "model.layers.61.eh_proj.weight", "model.layers.61.embed_tokens.weight",
        "model.layers.61.shared_head.head.weight", "model.layers.0.self_attn.q_a_layernorm.weight",
        "model.layers.0.self_attn.q_a_proj.weight_scale_inv", "q_proj.weight", ""}) {
    EXPECT_FALSE(is_fp8_weight(bad, matrix)) << bad;
  }
}

TEST(Convert, Bf16RoundsAndKeepsWhatIsNotAWeight) {
  SmallModel m;
  const auto report = convert(m.path(), m.other("bf16"), WeightFormat::kBf16);
  EXPECT_EQ(5u, report.tensors);
  EXPECT_EQ(0u, report.fp8_tensors);
  EXPECT_EQ((std::vector<std::string>{"LICENSE", "generation_config.json", "tokenizer.json"}),
            report.copied_files);
  EXPECT_EQ("tokenizer.json content", content(m.other("bf16") / "tokenizer.json"));
  EXPECT_FALSE(fs::exists(m.other("bf16") / "optimizer.safetensors"));
  const auto file = io::Safetensors::open(m.other("bf16"));
  const auto source = io::Safetensors::open(m.path());
  EXPECT_EQ(DType::kF32, file.at("model.layers.1.mlp.gate.e_score_correction_bias").dtype);
  EXPECT_EQ(DType::kI64, file.at("model.ids").dtype);
  EXPECT_EQ(source.at("model.ids").to_ints(), file.at("model.ids").to_ints());
  const auto want = source.at("model.layers.0.self_attn.o_proj.weight").to_floats();
  const auto got = file.at("model.layers.0.self_attn.o_proj.weight").to_floats();
  ASSERT_EQ(want.size(), got.size());
  for (std::size_t i = 0; i < want.size(); ++i) ASSERT_EQ(to_float(to_bf16(want[i])), got[i]) << i;
  const auto json = nlohmann::json::parse(content(m.other("bf16") / "config.json"));
  EXPECT_EQ("bfloat16", json["torch_dtype"]);
  EXPECT_EQ((std::vector<int>{1, 2}), json["unknown_key"].get<std::vector<int>>());
}

TEST(Convert, ToFp8AndBack) {
  SmallModel m;
  const auto report = convert(m.path(), m.other("fp8"), WeightFormat::kFp8);
  EXPECT_EQ(1u, report.fp8_tensors);
  EXPECT_EQ(6u, report.tensors);
  const auto config = load_config(m.other("fp8"));
  EXPECT_TRUE(config.fp8.enabled);
  const auto file = io::Safetensors::open(m.other("fp8"));
  EXPECT_EQ((Shape{2, 3}), file.at("model.layers.0.self_attn.o_proj.weight_scale_inv").shape);
  EXPECT_EQ(DType::kBF16, file.at("model.layers.1.mlp.gate.weight").dtype);

  convert(m.other("fp8"), m.other("back"), WeightFormat::kF32);
  EXPECT_FALSE(load_config(m.other("back")).fp8.enabled);
  for (const auto& c : compare(m.other("fp8"), m.other("back"))) {  // exact both ways
    EXPECT_TRUE(c.compared) << c.name;
    EXPECT_EQ(0, c.max_abs_error) << c.name;
  }
  for (const auto& c : compare(m.path(), m.other("back"))) {
    if (c.name != "model.layers.0.self_attn.o_proj.weight") continue;
    // E4M3 keeps 4 significant bits; the error of a rounded value is at most 1/16 of it.
    EXPECT_GT(c.max_abs_error, 0);
    EXPECT_LE(c.max_rel_error, 0x1.001p-4);
    EXPECT_LE(c.rms_error, 0x1p-4 * c.rms_a);
    EXPECT_FALSE(c.bit_identical);
  }
  // FP8 again from FP8: the codes are kept, not rounded a second time.
  convert(m.other("fp8"), m.other("again"), WeightFormat::kFp8);
  EXPECT_TRUE(all_identical(compare(m.other("fp8"), m.other("again"))));
}

bool is_power_of_two(float x) {
  int exponent = 0;
  return std::frexp(x, &exponent) == 0.5F;
}

// What config.json says of the scales decides how activations are quantised, so it goes along, and
// weights that become FP8 beside those that are it already have such scales too.
TEST(Convert, ScalesThatArePowersOfTwoStaySuch) {
  SmallModel m;
  m.set("quantization_config", {{"quant_method", "fp8"}, {"fmt", "e4m3"}, {"scale_fmt", "ue8m0"}});
  const auto scales = [](const fs::path& folder) {
    return io::Safetensors::open(folder)
        .at("model.layers.0.self_attn.o_proj.weight_scale_inv")
        .to_floats();
  };
  convert(m.path(), m.other("fp8"), WeightFormat::kFp8);
  EXPECT_TRUE(load_config(m.other("fp8")).fp8.ue8m0_scales);
  const auto powers = scales(m.other("fp8"));
  EXPECT_EQ(6u, powers.size());
  for (const float scale : powers) EXPECT_TRUE(is_power_of_two(scale)) << scale;

  convert(m.other("fp8"), m.other("again"), WeightFormat::kFp8);
  EXPECT_TRUE(load_config(m.other("again")).fp8.ue8m0_scales);
  EXPECT_TRUE(all_identical(compare(m.other("fp8"), m.other("again"))));

  // A folder without FP8 asks for nothing.
  convert(m.other("fp8"), m.other("bf16"), WeightFormat::kBf16);
  EXPECT_FALSE(load_config(m.other("bf16")).fp8.enabled);
  convert(m.other("bf16"), m.other("plain"), WeightFormat::kFp8);
  EXPECT_FALSE(load_config(m.other("plain")).fp8.ue8m0_scales);
  const auto plain = scales(m.other("plain"));
  EXPECT_FALSE(std::all_of(plain.begin(), plain.end(), is_power_of_two));
}

// A value in a group is off by at most half a step, and the step is at most what puts the largest
// magnitude on the largest code, rounded to bf16; least squares may clip the largest by as much.
TEST(Convert, ToIntegersAndBack) {
  for (const auto& [format, bits, group] : {std::tuple{WeightFormat::kInt8, 8, 128},
                                            {WeightFormat::kInt4, 4, 32},
                                            {WeightFormat::kInt4, 4, 64},
                                            {WeightFormat::kInt4, 4, 128}}) {
    SCOPED_TRACE(cat(bits, " bits, groups of ", group));
    SmallModel m;
    const auto report = convert(m.path(), m.other("q"), format, 5ull << 30, 2, group);
    EXPECT_EQ(1u, report.packed_tensors);
    EXPECT_EQ(7u, report.tensors);
    const auto config = load_config(m.other("q"));
    EXPECT_EQ((PackedConfig{true, {bits, group}, PackedConfig::Form{8, 128}}), config.packed);
    EXPECT_EQ(config, parse_config(to_json(config), "again"));
    const auto file = io::Safetensors::open(m.other("q"));
    const std::string w = "model.layers.0.self_attn.o_proj.weight";
    EXPECT_EQ((Shape{130, (257 * bits + 31) / 32}), file.at(w + "_packed").shape);
    EXPECT_EQ(DType::kI32, file.at(w + "_packed").dtype);
    EXPECT_EQ((Shape{130, (257 + group - 1) / group}), file.at(w + "_scale").shape);
    EXPECT_EQ((std::vector<std::int64_t>{130, 257}), file.at(w + "_shape").to_ints());
    EXPECT_EQ(DType::kBF16, file.at("model.layers.1.mlp.gate.weight").dtype);

    const auto want = io::Safetensors::open(m.path()).at(w).to_floats();
    const auto got = read_floats(config, file, w, {130, 257});
    double error = 0, size = 0;
    for (int i = 0; i < 130; ++i) {
      for (int j = 0; j < 257; j += group) {
        float amax = 0;
        const int end = std::min(257, j + group);
        for (int k = j; k < end; ++k) {
          amax = std::max(amax, std::abs(want[static_cast<std::size_t>(i * 257 + k)]));
        }
        const float most =
            amax / static_cast<float>((1 << (bits - 1)) - 1) * (bits == 4 ? 2.5f : 1);
        for (int k = j; k < end; ++k) {
          const auto at = static_cast<std::size_t>(i * 257 + k);
          ASSERT_LE(std::abs(want[at] - got[at]), most) << i << " " << k;
          error += std::pow(want[at] - got[at], 2);
          size += std::pow(want[at], 2);
        }
      }
    }
    // Steps of amax / 127 and amax / 7 with amax of 2.1 to 2.8 sigma: step / sqrt(12).
    EXPECT_LE(std::sqrt(error / size), bits == 8 ? 0.008 : 0.12);

    convert(m.other("q"), m.other("back"), WeightFormat::kF32);
    for (const auto& c : compare(m.other("q"), m.other("back"))) {  // exact both ways
      EXPECT_TRUE(c.compared) << c.name;
      EXPECT_EQ(0, c.max_abs_error) << c.name;
    }
    // The same form again: codes are kept.
    convert(m.other("q"), m.other("again"), format, 5ull << 30, 1, group);
    EXPECT_TRUE(all_identical(compare(m.other("q"), m.other("again"))));
    convert(m.other("q"), m.other("fp8"), WeightFormat::kFp8);
    EXPECT_TRUE(load_config(m.other("fp8")).fp8.enabled);
    EXPECT_FALSE(load_config(m.other("fp8")).packed.enabled);
  }
}

TEST(Convert, ScaledCodesCannotHoldANanOrAnInfinity) {
  SmallModel m;
  for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
    fs::remove(m.path() / "model.safetensors");
    const float values[] = {1, bad, 2, 3};
    const io::TensorToWrite t{
        "model.layers.0.self_attn.o_proj.weight", DType::kF32, {2, 2}, values};
    io::write_model_safetensors(m.path(), {&t, 1});
    for (const auto format : {WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kFp8}) {
      const Error e = error_of([&] { convert(m.path(), m.other("x"), format); });
      EXPECT_EQ(Code::kNumeric, e.code()) << name(format) << " " << bad;
      EXPECT_FALSE(fs::exists(m.other("x")));
    }
  }
}

TEST(Convert, WhichWeightsAreIntegers) {
  const Shape matrix{4, 4};
  const std::string p = "model.layers.3.self_attn.";
  using Form = PackedConfig::Form;
  for (const auto format : {WeightFormat::kInt4, WeightFormat::kInt8}) {
    for (const bool head : {false, true}) {
      const PackedConfig packed = packed_config(format, 64, head);
      const Form linear{format == WeightFormat::kInt4 ? 4 : 8, 64};
      const auto form = [&](const std::string& name) { return packed_form(packed, name, matrix); };
      for (const char* good : {"q_proj", "q_b_proj", "o_proj"}) {
        EXPECT_EQ(linear, form(cat(p, good, ".weight"))) << good;
      }
      for (const char* small : {"q_a_proj", "kv_a_proj_with_mqa"}) {
        EXPECT_EQ(linear.bits == 8, form(cat(p, small, ".weight")).has_value()) << small;
      }
      EXPECT_EQ(linear, form("model.layers.3.mlp.experts.1.up_proj.weight"));
      for (const char* high :
           {"model.embed_tokens.weight", "model.layers.3.eh_proj.weight",
            "model.layers.3.self_attn.kv_b_proj.weight", "model.layers.3.mlp.gate.weight"}) {
        EXPECT_EQ(std::nullopt, form(high)) << high;
      }
      for (const char* name : {"lm_head.weight", "model.layers.61.shared_head.head.weight"}) {
        EXPECT_EQ(head ? std::optional(Form{8, 128}) : std::nullopt, form(name)) << name;
        // A file that packs its head without saying how has it in the form of the rest.
        EXPECT_EQ(head ? (Form{8, 128}) : linear, stored_form(packed, name)) << name;
      }
    }
  }
  EXPECT_EQ(std::nullopt,
            packed_form(packed_config(WeightFormat::kFp8), p + "q_proj.weight", matrix));
}

TEST(Convert, ThreadsAndShardsDoNotChangeABit) {
  for (const auto format : {WeightFormat::kInt4, WeightFormat::kInt8}) {
    SmallModel m;
    convert(m.path(), m.other("one"), format, 5ull << 30, 1);
    convert(m.path(), m.other("three"), format, /*shard_bytes=*/1000, 3);
    EXPECT_TRUE(all_identical(compare(m.other("one"), m.other("three"))));
  }
  SmallModel m;
  convert(m.path(), m.other("one"), WeightFormat::kFp8, 5ull << 30, 1);
  convert(m.path(), m.other("three"), WeightFormat::kFp8, /*shard_bytes=*/1000, 3);
  EXPECT_FALSE(fs::exists(m.other("three") / "model.safetensors"));
  EXPECT_TRUE(fs::exists(m.other("three") / "model.safetensors.index.json"));
  EXPECT_TRUE(all_identical(compare(m.other("one"), m.other("three"))));
}

TEST(Convert, NothingIsWrittenOver) {
  SmallModel m;
  const auto refused = [&](const fs::path& target) {
    const Error e = error_of([&] { convert(m.path(), target, WeightFormat::kBf16); });
    EXPECT_EQ(Code::kUsage, e.code()) << e.what();
  };
  refused(m.path());
  refused(m.path() / "." / "");
  fs::create_directory(m.other("full"));
  std::ofstream(m.other("full") / "mine.txt") << "mine";
  refused(m.other("full"));
  EXPECT_EQ("mine", content(m.other("full") / "mine.txt"));
  std::ofstream(m.other("file")) << "mine";
  refused(m.other("file"));
  EXPECT_EQ("mine", content(m.other("file")));
  // Links to nothing, found before any work: there is no source either.
  for (const char* to : {"gone", "nowhere"}) {
    fs::remove(m.other("nowhere"));
    fs::create_symlink(to, m.other("nowhere"));
    const Error e =
        error_of([&] { convert(m.other("none"), m.other("nowhere") / "", WeightFormat::kBf16); });
    EXPECT_EQ(Code::kUsage, e.code()) << e.what();
    EXPECT_NE(std::string(e.what()).find(cat("nowhere is a link to ", to)), std::string::npos);
    EXPECT_TRUE(fs::is_symlink(m.other("nowhere")));
  }
  fs::create_directory(m.other("empty"));
  convert(m.path(), m.other("empty") / "", WeightFormat::kF32);  // an empty folder is taken
  EXPECT_TRUE(all_identical(compare(m.path(), m.other("empty"))));
}

TEST(Convert, AFailureLeavesNothing) {
  SmallModel m;
  const auto entries = [&] {
    return std::distance(fs::directory_iterator(m.other("")), fs::directory_iterator());
  };
  const auto before = entries();
  EXPECT_EQ(Code::kIo,
            error_of([&] { convert(m.other("none"), m.other("x"), WeightFormat::kF32); }).code());
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ASSERT_EQ(0, getrlimit(RLIMIT_FSIZE, &old));
  const rlimit small{10'000, old.rlim_max};
  ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &small));
  const Error full = error_of([&] { convert(m.path(), m.other("x"), WeightFormat::kF32); });
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(Code::kIo, full.code()) << full.what();
  EXPECT_EQ(before, entries());
}

TEST(Compare, SaysWhatDiffers) {
  SmallModel a, b;
  EXPECT_TRUE(all_identical(compare(a.path(), a.path())));
  const float nan = std::nanf("");
  const float one[] = {1.0f, -4.0f, nan}, two[] = {1.5f, -4.0f, nan}, three[] = {1.0f, nan, 0.0f};
  const auto write = [](const fs::path& folder, std::vector<io::TensorToWrite> tensors) {
    fs::remove(folder / "model.safetensors");
    io::write_model_safetensors(folder, tensors);
  };
  write(a.path(), {{"same", DType::kF32, {3}, one},
                   {"near", DType::kF32, {3}, one},
                   {"nan", DType::kF32, {3}, one},
                   {"shape", DType::kF32, {3}, one},
                   {"only_a", DType::kF32, {2}, one},
                   {"empty", DType::kF32, {0}, one}});
  write(b.path(), {{"same", DType::kF32, {3}, one},
                   {"near", DType::kF32, {3}, two},
                   {"nan", DType::kF32, {3}, three},
                   {"shape", DType::kF32, {1, 3}, one},
                   {"only_b", DType::kF32, {2}, one},
                   {"empty", DType::kF32, {0}, one}});
  std::map<std::string, TensorComparison> by_name;
  for (auto& c : compare(a.path(), b.path())) by_name[c.name] = c;
  ASSERT_EQ(7u, by_name.size());
  EXPECT_TRUE(by_name["same"].bit_identical);
  EXPECT_EQ(0, by_name["same"].max_abs_error);  // NaN beside NaN is equal
  EXPECT_TRUE(by_name["empty"].bit_identical);
  EXPECT_EQ(0.5, by_name["near"].max_abs_error);
  EXPECT_EQ(0.125, by_name["near"].max_rel_error);
  EXPECT_DOUBLE_EQ(std::sqrt(0.25 / 3), by_name["near"].rms_error);
  EXPECT_TRUE(std::isinf(by_name["nan"].max_abs_error));
  EXPECT_TRUE(std::isinf(by_name["nan"].rms_error));
  EXPECT_FALSE(by_name["shape"].compared);
  EXPECT_TRUE(by_name["only_a"].in_a && !by_name["only_a"].in_b);
  EXPECT_TRUE(by_name["only_b"].in_b && !by_name["only_b"].in_a);
}

// Every fixture model: to f32 exactly, bf16 and back bit for bit, fp8 within its bound; and the set
// of FP8 tensors of an FP8 checkpoint is the one chosen here.
TEST(ConvertFixture, EveryModelInEveryFormat) {
  const auto folders = testing::fixture_folders(testing::FixtureKind::kModel);
  ASSERT_FALSE(folders.empty());
  for (const auto& folder : folders) {
    SCOPED_TRACE(folder.string());
    const testing::TempDir temporary;
    const fs::path f32 = temporary.path() / "f32", fp8 = temporary.path() / "fp8";
    convert(folder, f32, WeightFormat::kF32);
    for (const auto& c : compare(folder, f32)) {
      ASSERT_TRUE(c.compared) << c.name;
      ASSERT_EQ(0, c.max_abs_error) << c.name;
    }
    convert(f32, fp8, WeightFormat::kFp8);
    for (const auto& c : compare(f32, fp8)) {
      ASSERT_TRUE(c.compared) << c.name;
      ASSERT_LE(c.max_rel_error, 0x1.001p-4) << c.name;
    }
    const auto source = io::Safetensors::open(folder);
    const auto quantised = io::Safetensors::open(fp8);
    if (load_config(folder).fp8.enabled) {
      for (const auto& [name, t] : source.tensors()) {
        EXPECT_EQ(t.dtype == DType::kF8E4M3, is_fp8_weight(name, t.shape)) << name;
        EXPECT_EQ(t.shape, quantised.at(name).shape) << name;
      }
    } else {
      const fs::path bf16 = temporary.path() / "bf16";
      convert(f32, bf16, WeightFormat::kBf16);
      for (const auto& c : compare(folder, bf16)) {
        const bool rounded = c.type_a == "F32" && c.type_b == "BF16";
        ASSERT_TRUE(rounded || c.bit_identical) << c.name;
      }
    }
  }
}

}  // namespace
}  // namespace cachalot::model
