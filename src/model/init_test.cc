// Folders of random weights: what they hold, that they run, and that nothing half-written stays.
#include "model/init.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <set>
#include <sstream>

#include "model/convert.h"
#include "model/forward.h"
#include "model/packed_weights.h"
#include "model/random_weights.h"
#include "runtime/runtime.h"
#include "testing/fixtures.h"

namespace cachalot::model {
namespace {

namespace fs = std::filesystem;

constexpr WeightFormat kFormats[] = {WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kFp8,
                                     WeightFormat::kInt8, WeightFormat::kInt4};

fs::path config_file() { return testing::fixtures_root() / "A" / "config.json"; }

std::string content(const fs::path& path) {
  std::ostringstream out;
  out << std::ifstream(path, std::ios::binary).rdbuf();
  return out.str();
}

InitReport init(const fs::path& target, const InitOptions& options, int threads = 2) {
  const runtime::Runtime runtime({threads, ""});
  return init_model(runtime.context(), load_config(config_file()), content(config_file()), target,
                    options);
}
InitReport init(const fs::path& target, WeightFormat format, std::uint64_t seed = 1,
                int threads = 2) {
  InitOptions options;
  options.format = format;
  options.seed = seed;
  return init(target, options, threads);
}

std::vector<TensorComparison> compare(const fs::path& a, const fs::path& b) {
  const runtime::Runtime runtime({2, ""});
  return compare_models(runtime.context(), a, b);
}
bool all_identical(const std::vector<TensorComparison>& all) {
  return !all.empty() &&
         std::all_of(all.begin(), all.end(), [](const auto& c) { return c.bit_identical; });
}

std::set<std::string> names_of(const fs::path& folder) {
  std::set<std::string> names;
  const auto file = io::Safetensors::open(folder);
  for (const auto& [name, view] : file.tensors()) names.insert(name);
  return names;
}

// Mean and standard deviation.
std::pair<double, double> moments(const std::vector<float>& values) {
  double sum = 0, squares = 0;
  for (const float v : values) {
    sum += v;
    squares += static_cast<double>(v) * v;
  }
  const double n = static_cast<double>(values.size()), mean = sum / n;
  return {mean, std::sqrt(squares / n - mean * mean)};
}

TEST(NormalFill, IsNormal) {
  const runtime::Runtime runtime({2, ""});
  const NormalFill fill;
  constexpr std::size_t kCount = 1'000'003;  // no multiple of what one block gives
  std::vector<float> x(kCount);
  fill.fill(runtime.context(), 7, "x", 0.5F, 2.0F, x);
  const auto [mean, std] = moments(x);
  // The error of a mean is sigma / sqrt(n), of a deviation sigma / sqrt(2 n); five of each.
  const double n = kCount;
  EXPECT_NEAR(0.5, mean, 5 * 2 / std::sqrt(n));
  EXPECT_NEAR(2.0, std, 5 * 2 / std::sqrt(2 * n));
  // Shares below some quantiles, binomial.
  for (const double q : {-3.0, -1.5, -0.25, 0.0, 0.5, 1.0, 2.0, 3.5}) {
    const double p = 0.5 * std::erfc(-q / std::sqrt(2.0));
    const auto below = static_cast<double>(
        std::count_if(x.begin(), x.end(), [&](float v) { return (v - 0.5) / 2 < q; }));
    EXPECT_NEAR(p, below / n, 5 * std::sqrt(p * (1 - p) / n) + 1.0 / 65536) << q;
  }
  // The 16 bits of each number reach the whole table.
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  EXPECT_NEAR(0.5 - 2 * 4.33, *low, 0.1);
  EXPECT_NEAR(0.5 + 2 * 4.33, *high, 0.1);
}

TEST(NormalFill, AValueDependsOnSeedNameAndIndexAlone) {
  const runtime::Runtime one({1, ""}), three({3, ""});
  const NormalFill fill;
  std::vector<float> x(100'000), y(100'000), part(77);
  fill.fill(one.context(), 7, "x", 0, 1, x);
  fill.fill(three.context(), 7, "x", 0, 1, y);
  EXPECT_EQ(x, y);
  fill.fill(one.context(), 7, "x", 0, 1, part);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), x.begin()));
  fill.fill(one.context(), 8, "x", 0, 1, y);
  EXPECT_NE(x, y);
  fill.fill(one.context(), 7, "y", 0, 1, y);
  EXPECT_NE(x, y);
}

TEST(Init, HoldsWhatThePublishedFolderHolds) {
  const testing::TempDir dir;
  const InitReport report = init(dir.path() / "m", WeightFormat::kBf16);
  const fs::path published = testing::fixtures_root() / "A";
  EXPECT_EQ(names_of(published), names_of(dir.path() / "m"));
  const auto want = io::Safetensors::open(published), got = io::Safetensors::open(dir.path() / "m");
  for (const auto& [name, t] : want.tensors()) {
    EXPECT_EQ(t.shape, got.at(name).shape) << name;
    EXPECT_EQ(t.dtype, got.at(name).dtype) << name;
  }
  EXPECT_EQ(want.tensors().size(), report.tensors);
  std::uint64_t bytes = 0;
  for (const auto& [name, t] : got.tensors()) bytes += t.bytes;
  EXPECT_EQ(bytes, report.bytes);
}

TEST(Init, ValuesHaveTheScaleOfTheConfig) {
  const testing::TempDir dir;
  InitOptions options;
  options.format = WeightFormat::kF32;
  init(dir.path() / "m", options);
  options.std = 0.1;
  init(dir.path() / "wide", options);
  const auto m = io::Safetensors::open(dir.path() / "m");
  const auto wide = io::Safetensors::open(dir.path() / "wide");
  const double std = load_config(config_file()).initializer_range;
  for (const auto& [name, t] : m.tensors()) {
    const auto values = t.to_floats();
    const auto n = static_cast<double>(values.size());
    const bool norm = name.find("norm.weight") != std::string::npos;
    for (const auto& [file, s] : {std::pair{&m, std}, {&wide, 0.1}}) {
      const auto [mean, deviation] = moments(file->at(name).to_floats());
      EXPECT_NEAR(norm ? 1 : 0, mean, 6 * s / std::sqrt(n)) << name;
      EXPECT_NEAR(s, deviation, 6 * s / std::sqrt(2 * n)) << name;
    }
  }
  EXPECT_EQ(m.at("model.embed_tokens.weight").to_floats(),
            m.at("model.layers.3.embed_tokens.weight").to_floats());
  EXPECT_EQ(m.at("lm_head.weight").to_floats(),
            m.at("model.layers.3.shared_head.head.weight").to_floats());
}

// The same numbers in every format, whatever the threads and shards.
TEST(Init, AFormatHoldsWhatConvertingToItWouldGive) {
  const testing::TempDir dir;
  init(dir.path() / "f32", WeightFormat::kF32);
  const runtime::Runtime runtime({2, ""});
  for (const WeightFormat format : kFormats) {
    SCOPED_TRACE(name(format));
    const std::string dtype(name(format));
    const InitReport report = init(dir.path() / dtype / "a", format, 1, 1);
    InitOptions options;
    options.format = format;
    options.shard_bytes = 100'000;
    init(dir.path() / dtype / "b", options, 3);
    EXPECT_TRUE(fs::exists(dir.path() / dtype / "b" / "model.safetensors.index.json"));
    EXPECT_TRUE(all_identical(compare(dir.path() / dtype / "a", dir.path() / dtype / "b")));
    ConvertOptions convert;
    convert.format = format;
    const ConvertReport converted =
        convert_model(runtime.context(), dir.path() / "f32", dir.path() / dtype / "c", convert);
    EXPECT_TRUE(all_identical(compare(dir.path() / dtype / "a", dir.path() / dtype / "c")));
    EXPECT_EQ(content(dir.path() / dtype / "c" / "config.json"),
              content(dir.path() / dtype / "a" / "config.json"));
    EXPECT_EQ(converted.tensors, report.tensors);
    EXPECT_EQ(converted.fp8_tensors, report.fp8_tensors);
    EXPECT_EQ(converted.packed_tensors, report.packed_tensors);
    EXPECT_EQ(converted.bytes, report.bytes);
    EXPECT_EQ(format, format_of(load_config(dir.path() / dtype / "a")));
    // Nothing is lost but what the format rounds away.
    for (const TensorComparison& c : compare(dir.path() / "f32", dir.path() / dtype / "a")) {
      EXPECT_TRUE(c.compared) << c.name;
      EXPECT_LE(c.rms_error, 0.12 * c.rms_a) << c.name;
    }
  }
  init(dir.path() / "other", WeightFormat::kF32, 2);
  for (const TensorComparison& c : compare(dir.path() / "f32", dir.path() / "other")) {
    EXPECT_FALSE(c.bit_identical) << c.name;
  }
}

TEST(Init, ScalesArePowersOfTwoWhereTheConfigAsksForSuch) {
  const testing::TempDir dir;
  const runtime::Runtime runtime({2, ""});
  Config config = load_config(config_file());
  config.fp8 = {.enabled = true, .ue8m0_scales = true};
  InitOptions options;
  options.format = format_of(config);
  init_model(runtime.context(), config, to_json(config), dir.path() / "a", options);
  EXPECT_EQ(load_config(dir.path() / "a").fp8, config.fp8);
  int scales = 0;
  const auto file = io::Safetensors::open(dir.path() / "a");
  for (const auto& [name, tensor] : file.tensors()) {
    if (!name.ends_with("_scale_inv")) continue;
    for (const float scale : tensor.to_floats()) {
      int exponent = 0;
      EXPECT_EQ(std::frexp(scale, &exponent), 0.5F) << name;
      ++scales;
    }
  }
  EXPECT_GT(scales, 0);
}

std::vector<float> logits_of(const Context& ctx, const Model& model) {
  const std::vector<std::int32_t> tokens{1, 2, 3, 511, 0, 77};
  CachePool pool(
      model.config(), LatentFormat::kBF16,
      CachePool::bytes_for(model.config(), LatentFormat::kBF16, static_cast<int>(tokens.size())));
  LatentCache cache(pool);
  Forward forward(ctx, model);
  const Chunk chunk{tokens, &cache};
  const auto normed = forward.run({&chunk, 1});
  Mat<float> logits(normed.rows, model.config().vocab_size);
  forward.logits(normed, logits.view());
  return {logits.span().begin(), logits.span().end()};
}

// Codes and scales of the MTP layer's copy of the head, which is held once where it is copied.
std::uint64_t codes_of_second_head(const Model& model, const fs::path& folder) {
  const io::Safetensors file = io::Safetensors::open(folder);
  const PackedNames names(
      cat("model.layers.", model.config().num_hidden_layers, ".shared_head.head.weight"));
  const auto bytes = [&](const std::string& name) {
    const auto* tensor = file.find(name);
    return tensor != nullptr ? static_cast<std::uint64_t>(tensor->bytes) : 0;
  };
  return bytes(names.codes) > 0 ? bytes(names.codes) + bytes(names.scales) : 0;
}

// With weights where they lie in the file, copied, and in panels: the same bits.
TEST(Init, EveryFormatRuns) {
  const testing::TempDir dir;
  const runtime::Runtime runtime({2, ""});
  for (const WeightFormat format : kFormats) {
    SCOPED_TRACE(name(format));
    const fs::path folder = dir.path() / name(format);
    const InitReport report = init(folder, format);
    LoadOptions options;
    options.keep_codes = true;
    const Model model = Model::load(folder, options);
    EXPECT_TRUE(model.has_mtp());
    const std::vector<float> logits = logits_of(runtime.context(), model);
    const auto [mean, deviation] = moments(logits);
    EXPECT_TRUE(std::isfinite(mean));
    EXPECT_GT(deviation, 0.01);
    EXPECT_LT(deviation, 10);

    options.placement = LoadOptions::Placement::kCopied;
    const Model copied = Model::load(folder, options);
    EXPECT_EQ(logits, logits_of(runtime.context(), copied));
    EXPECT_GT(copied.copied_bytes(), model.copied_bytes() + report.bytes / 2);
    const std::uint64_t codes = model.code_bytes() - codes_of_second_head(model, folder);
    EXPECT_EQ(copied.code_bytes(), codes);

    options.placement = LoadOptions::Placement::kPacked;
    options.context = &runtime.context();
    const Model packed = Model::load(folder, options);
    EXPECT_EQ(logits, logits_of(runtime.context(), packed));
    EXPECT_EQ(packed.code_bytes(), codes);
  }
}

TEST(Init, CopiesFiles) {
  const testing::TempDir dir;
  std::ofstream(dir.path() / "tokenizer.json") << "a tokenizer";
  InitOptions options;
  options.files = {dir.path() / "tokenizer.json"};
  init(dir.path() / "m", options);
  EXPECT_EQ("a tokenizer", content(dir.path() / "m" / "tokenizer.json"));
}

TEST(Init, NothingIsWrittenOver) {
  const testing::TempDir dir;
  const fs::path target = dir.path() / "m";
  init(target, WeightFormat::kBf16);
  const std::string before = content(target / "config.json");
  try {
    init(target, WeightFormat::kF32);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(Code::kUsage, e.code());
    EXPECT_NE(std::string(e.what()).find(target.string()), std::string::npos);
  }
  EXPECT_EQ(before, content(target / "config.json"));
  fs::create_directory(dir.path() / "empty");
  init(dir.path() / "empty", WeightFormat::kBf16);
  EXPECT_TRUE(all_identical(compare(target, dir.path() / "empty")));
}

TEST(Init, AFailureLeavesNothing) {
  const testing::TempDir dir;
  InitOptions options;
  options.progress = [](std::uint64_t done, std::uint64_t all) {
    if (done > all / 2) throw Error(Code::kInterrupted, "stop");
  };
  EXPECT_THROW(init(dir.path() / "m", options), Error);
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

// Killed at any place: what is left has another name and does not open.
TEST(Init, KilledHalfwayIsNoModel) {
  const testing::TempDir dir;
  const fs::path target = dir.path() / "m";
  for (const double share : {0.0, 0.3, 0.9, 1.0}) {
    const pid_t child = fork();
    if (child == 0) {
      InitOptions options;
      options.shard_bytes = 100'000;
      options.progress = [&](std::uint64_t done, std::uint64_t all) {
        if (static_cast<double>(done) >= share * static_cast<double>(all)) raise(SIGKILL);
      };
      init(target, options, 1);
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    EXPECT_FALSE(fs::exists(target));
    for (const auto& entry : fs::directory_iterator(dir.path())) {
      EXPECT_EQ('.', entry.path().filename().string().front());
      EXPECT_THROW(Model::load(entry.path(), Precision::kBF16), Error);
    }
  }
  init(target, WeightFormat::kBf16);  // what is left is in nobody's way
  EXPECT_NO_THROW(Model::load(target, Precision::kBF16));
}

}  // namespace
}  // namespace cachalot::model
