#include "base/nearest.h"

#include <gtest/gtest.h>

#include <iterator>

namespace cachalot {
namespace {

TEST(Nearest, CountsEditsAndStopsAtTheMost) {
  constexpr std::string_view kWords[] = {"hidden_size", "n_group", "topk_group"};
  const auto within = [&](std::size_t most, std::string_view word) {
    return nearest_within(most, word, std::begin(kWords), std::end(kWords));
  };
  EXPECT_EQ("n_group", within(0, "n_group"));
  EXPECT_EQ("n_group", within(1, "n_groups"));  // one too many
  EXPECT_EQ("n_group", within(1, "ngroup"));    // one too few
  EXPECT_EQ("n_group", within(1, "m_group"));   // one other
  EXPECT_EQ("", within(0, "n_groups"));
  EXPECT_EQ("hidden_size", within(2, "hiddn_sise"));
  EXPECT_EQ("", within(1, "hiddn_sise"));
  EXPECT_EQ("", nearest_within(2, "n_group", std::begin(kWords), std::begin(kWords)));
}

}  // namespace
}  // namespace cachalot
