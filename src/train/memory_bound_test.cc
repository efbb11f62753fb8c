#include "train/memory_bound.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "cost/cost.h"

namespace cachalot::train {
namespace {

using ::testing::HasSubstr;

model::Config small() {
  model::Config c;
  c.vocab_size = 300;
  c.hidden_size = 64;
  c.num_hidden_layers = 3;
  c.intermediate_size = 96;
  return c;
}

TEST(MemoryBound, CountsStateAndStream) {
  Recipe recipe;
  recipe.run.precision = RecipePrecision::kF32;
  recipe.data.seq_len = 100;
  const model::Config config = small();
  const auto parameters = static_cast<double>(cost::parameters(config).total);
  EXPECT_GT(parameters, 2 * 300 * 64);
  EXPECT_DOUBLE_EQ(least_memory(recipe, config, 0), 16 * parameters);
  EXPECT_DOUBLE_EQ(least_memory(recipe, config, 3) - least_memory(recipe, config, 0),
                   300.0 * config.hidden_size * (12 + 2 * config.num_hidden_layers));
  recipe.run.precision = RecipePrecision::kBf16;
  EXPECT_DOUBLE_EQ(least_memory(recipe, config, 0), 12 * parameters);
}

TEST(MemoryBound, RefusesWhatCannotFit) {
  Recipe recipe;
  recipe.data.seq_len = 1 << 24;
  const model::Config config = small();
  const double least = least_memory(recipe, config, 1 << 24);
  check_memory(recipe, config, 1 << 24, least);
  check_memory(recipe, config, 1 << 24, 0);  // not known
  try {
    check_memory(recipe, config, 1 << 24, least / 2);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kUsage);
    EXPECT_THAT(e.what(), HasSubstr("schedule.micro_batch"));
  }
}

TEST(MemoryBound, RunsThatAreHeldAtOnceAddUp) {
  Recipe both[2];
  both[0].run.precision = RecipePrecision::kF32;
  both[1].run.precision = RecipePrecision::kBf16;
  const model::Config config = small();
  const double one = least_memory(both[0], config, 2), other = least_memory(both[1], config, 2);
  EXPECT_GT(one, other);
  check_memory_of_all(both, config, 2, one + other);
  check_memory_of_all(both, config, 2, 0);  // not known
  check_memory_of_all({both, 1}, config, 2, one);
  const auto refused = [&](double memory) -> std::string {
    try {
      check_memory_of_all(both, config, 2, memory);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kUsage);
      return e.what();
    }
    return "no error";
  };
  EXPECT_THAT(refused(one), HasSubstr("2 precisions at once"));
  EXPECT_THAT(refused(one), HasSubstr("--precision"));
  EXPECT_THAT(refused(other), HasSubstr("in a pass needs"));  // the first does not fit alone
}

TEST(MemoryBound, AHostsMemoryIsKnown) { EXPECT_GT(memory_to_check(Context{}), 1 << 20); }

}  // namespace
}  // namespace cachalot::train
