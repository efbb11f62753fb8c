// What is said of keys of a config.json that nobody reads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/config.h"
#include "model/config_case_test.h"

namespace cachalot::model {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> remarks_on(const Json& json) {
  std::vector<std::string> remarks;
  parse_config(json.dump(), "m/config.json", &remarks);
  return remarks;
}

Json renamed(Json json, const char* from, const char* to) {
  json[to] = json.at(from);
  json.erase(from);
  return json;
}

TEST(ConfigRemarks, PublishedConfigsHaveNone) {
  for (const Json& json : {v2_lite(), v2(), v3(), moonlight(), kimi_k2()}) {
    EXPECT_THAT(remarks_on(json), IsEmpty());
  }
}

TEST(ConfigRemarks, AKeyThatLooksMisspeltIsNamedWithTheRightOne) {
  const std::pair<const char*, const char*> cases[] = {
      {"routed_scaling_factor", "routed_scalling_factor"},  // one letter more
      {"first_k_dense_replace", "first_k_dense_replaced"},
      {"num_nextn_predict_layers", "num_next_predict_layer"},  // two less
      {"rms_norm_eps", "rms_norm_esp"},                        // two swapped
      {"moe_layer_freq", "moe_layers_freq"}};
  for (const auto& [right, wrong] : cases) {
    EXPECT_THAT(remarks_on(renamed(v3(), right, wrong)),
                ElementsAre(AllOf(HasSubstr("m/config.json: unknown key \""), HasSubstr(wrong),
                                  HasSubstr(cat("did you mean \"", right, "\"?")))));
  }
}

// A key that is no word of this program is Hugging Face's business, and where the right key is
// there too nothing takes its default.
TEST(ConfigRemarks, OtherUnknownKeysAreLetPass) {
  EXPECT_THAT(remarks_on(with(v3(), R"({"head_dim": 64, "qk_head_dim": 192, "pad_token_id": null,
                                        "routed_scaling_facto": 1, "anything": {"at": ["all"]}})")),
              IsEmpty());
}

TEST(ConfigRemarks, ANestedConfigIsLookedAtToo) {
  Json outer;
  outer["text_config"] = renamed(v3(), "rope_theta", "rope_teta");
  EXPECT_THAT(remarks_on(outer), ElementsAre(HasSubstr("\"text_config.rope_teta\"")));
}

// Where nobody listens the config is the same.
TEST(ConfigRemarks, TheDefaultIsTaken) {
  Json absent = v3();
  absent.erase("rope_theta");
  EXPECT_EQ(parse(renamed(v3(), "rope_theta", "rope_teta")), parse(absent));
}

}  // namespace
}  // namespace cachalot::model
