// What the storage formats refuse, and what they cost; their values are tested at every level in
// cpu/saved_levels_test.cc.
#include "kernels/saved.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "kernels/table.h"

namespace cachalot {
namespace {

void expect_shape_error(const std::function<void()>& f, const std::string& part) {
  try {
    f();
    FAIL() << "accepted, though " << part;
  } catch (const Error& e) {
    EXPECT_EQ(Code::kShape, e.code());
    EXPECT_NE(std::string::npos, std::string(e.what()).find(part)) << e.what();
  }
}

TEST(Saved, OperandsHaveToFit) {
  const Context ctx{&kReferenceTable, nullptr};
  Mat<float> x(3, 5);
  Mat<Bf16> half(3, 4);
  E5m6Mat packed;
  packed.resize(3, 6);
  expect_shape_error([&] { store_bf16(ctx, x.cview(), half.view()); },
                     "store_bf16: out is [3, 4] but has to be [3, 5]");
  expect_shape_error([&] { load_bf16(ctx, half.cview(), x.view()); },
                     "load_bf16: out is [3, 5] but has to be [3, 4]");
  expect_shape_error([&] { store_e5m6(ctx, x.cview(), packed); },
                     "store_e5m6: out is [3, 6] but has to be [3, 5]");
  expect_shape_error([&] { load_e5m6(ctx, packed, x.view()); },
                     "load_e5m6: x is [3, 6] but has to be [3, 5]");
}

TEST(Saved, EmptyMatricesAreFine) {
  const Context ctx{&kReferenceTable, nullptr};
  E5m6Mat packed;
  packed.resize(0, 7);
  store_e5m6(ctx, MatView<const float>{nullptr, 0, 7, 7}, packed);
  load_e5m6(ctx, packed, MatView<float>{nullptr, 0, 7, 7});
  packed.resize(4, 0);
  store_e5m6(ctx, MatView<const float>{nullptr, 4, 0, 0}, packed);
  store_bf16(ctx, {}, {});
  load_bf16(ctx, {}, {});
  payload_round_trip(ctx, numeric::Payload::kLogFmt10, {});
}

TEST(Saved, E5m6TakesAThirdLessThanBf16) {
  E5m6Mat packed;
  packed.resize(10, 1024);
  EXPECT_EQ(10u * (1024 * 3 / 2 + 8), packed.bytes());
}

}  // namespace
}  // namespace cachalot
