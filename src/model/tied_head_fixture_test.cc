// A tied model's head is its embedding, which stays BF16; the MTP layer's copy of it goes with it.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "model/convert.h"
#include "model/init.h"
#include "model/packed_weights.h"
#include "runtime/runtime.h"
#include "testing/fixtures.h"

namespace cachalot::model {
namespace {

namespace fs = std::filesystem;

// Fixture A, which has an MTP layer, as a tied model of random weights.
fs::path tied_model(const Context& ctx, const fs::path& folder) {
  auto json = nlohmann::ordered_json::parse(
      read_file(testing::fixtures_root() / "A" / "config.json", 1 << 20));
  json["tie_word_embeddings"] = true;
  const std::string text = json.dump();
  init_model(ctx, parse_config(text, "tied"), text, folder, {});
  return folder;
}

void expect_plain_heads(const fs::path& folder) {
  const Config config = load_config(folder);
  ASSERT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.packed.head, std::nullopt);
  const auto file = io::Safetensors::open(folder);
  EXPECT_EQ(file.find("lm_head.weight"), nullptr);
  for (const std::string& name :
       {std::string("model.embed_tokens.weight"),
        cat("model.layers.", config.num_hidden_layers, ".shared_head.head.weight")}) {
    ASSERT_NE(file.find(name), nullptr) << name;
    EXPECT_EQ(file.at(name).dtype, DType::kBF16) << name;
  }
}

TEST(TiedHeadFixture, TheMtpLayersCopyStaysAsTheHeadDoes) {
  const testing::TempDir dir;
  const runtime::Runtime rt({.threads = 1, .cpu = {}});
  const fs::path tied = tied_model(rt.context(), dir.path() / "tied");
  for (const auto format : {WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kFp8}) {
    SCOPED_TRACE(name(format));
    const std::string form(name(format));
    ConvertOptions convert;
    convert.format = format;
    convert.fp8_head = format == WeightFormat::kFp8;
    const fs::path converted = dir.path() / form;
    convert_model(rt.context(), tied, converted, convert);
    expect_plain_heads(converted);

    InitOptions init;
    init.format = format;
    init.fp8_head = convert.fp8_head;
    const std::string text = read_file(tied / "config.json", 1 << 20);
    const fs::path made = dir.path() / (form + "-made");
    init_model(rt.context(), parse_config(text, "tied"), text, made, init);
    expect_plain_heads(made);
  }
}

}  // namespace
}  // namespace cachalot::model
