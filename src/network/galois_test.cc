#include "network/galois.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"

namespace cachalot::network {
namespace {

TEST(Galois, FieldsKeepTheirLaws) {
  for (const int q : {2, 3, 4, 5, 7, 8, 9, 16, 25, 27, 49}) {
    const GaloisField field(q);
    std::set<int> powers;
    for (int n = 0; n < q - 1; ++n) powers.insert(field.power(n));
    EXPECT_EQ(powers.size(), static_cast<std::size_t>(q - 1)) << q;
    EXPECT_EQ(powers.count(0), 0u) << q;
    for (int a = 0; a < q; ++a) {
      EXPECT_EQ(field.add(a, 0), a);
      EXPECT_EQ(field.multiply(a, 1), a);
      EXPECT_EQ(field.add(a, field.negate(a)), 0);
      for (int b = 0; b < q; ++b) {
        EXPECT_EQ(field.multiply(a, b), field.multiply(b, a));
        for (int c = 0; c < q; c += 3) {
          EXPECT_EQ(field.multiply(a, field.add(b, c)),
                    field.add(field.multiply(a, b), field.multiply(a, c)))
              << q << ": " << a << " " << b << " " << c;
        }
      }
    }
  }
}

TEST(Galois, OnlyPrimePowersAreFields) {
  for (const int q : {6, 10, 12, 28, 36}) EXPECT_THROW(GaloisField{q}, Error) << q;
  EXPECT_EQ(prime_power(28).p, 0);
  EXPECT_EQ(prime_power(27).p, 3);
  EXPECT_EQ(prime_power(27).m, 3);
  EXPECT_EQ(prime_power(1).p, 0);
}

}  // namespace
}  // namespace cachalot::network
