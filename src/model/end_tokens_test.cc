#include "model/end_tokens.h"

#include <gtest/gtest.h>

#include <fstream>
#include <optional>

#include "base/error.h"
#include "testing/fixtures.h"

namespace cachalot::model {
namespace {

using Ids = std::vector<std::int32_t>;

// Of a folder with these ids in its config.json and this generation_config.json.
Ids ends(std::vector<int> config_ids, const std::optional<std::string>& generation) {
  const testing::TempDir dir;
  if (generation) std::ofstream(dir.path() / "generation_config.json") << *generation;
  Config config;
  config.eos_token_ids = std::move(config_ids);
  return end_tokens(config, dir.path());
}

TEST(EndTokens, OfBothFilesTheConfigsFirst) {
  EXPECT_EQ(ends({1}, std::nullopt), Ids{1});
  EXPECT_EQ(ends({1}, "{}"), Ids{1});
  EXPECT_EQ(ends({1}, R"({"eos_token_id": null})"), Ids{1});
  EXPECT_EQ(ends({1}, R"({"eos_token_id": 1})"), Ids{1});
  EXPECT_EQ(ends({1}, R"({"eos_token_id": 0})"), (Ids{1, 0}));
  EXPECT_EQ(ends({4, 2}, R"({"eos_token_id": [9, 2, 7, 9]})"), (Ids{4, 2, 9, 7}));
  EXPECT_EQ(ends({}, R"({"eos_token_id": [3]})"), Ids{3});
  EXPECT_EQ(ends({}, std::nullopt), Ids{});
}

TEST(EndTokens, RefusesWhatIsNone) {
  for (const char* text : {"", "[1]", "{", R"({"eos_token_id": "1"})", R"({"eos_token_id": -1})",
                           R"({"eos_token_id": [1, null]})", R"({"eos_token_id": 2147483648})",
                           R"({"eos_token_id": 1.5})", R"({"eos_token_id": {"a": 1}})"}) {
    try {
      ends({1}, text);
      ADD_FAILURE() << text << " was accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kFormat) << e.what();
      EXPECT_NE(std::string(e.what()).find("generation_config.json"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace cachalot::model
