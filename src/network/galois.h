// Finite fields of small order, as tables: what the MMS graphs of Slim Fly are made of.
//
// Owns:    its tables.
// Threads: immutable after construction.
// Errors:  kUsage from the constructor where q is not a prime power.
#pragma once

#include <cstdint>
#include <vector>

namespace cachalot::network {

// The prime p and exponent m with p^m = q; p = 0 where q is not a prime power.
struct PrimePower {
  int p = 0, m = 0;
};
PrimePower prime_power(int q) noexcept;

// GF(p^m). Elements are 0 .. q-1: the digits in base p are the coefficients of a polynomial.
class GaloisField {
 public:
  explicit GaloisField(int q);
  int order() const noexcept { return q_; }
  int add(int a, int b) const noexcept;
  int negate(int a) const noexcept;
  int multiply(int a, int b) const noexcept;
  // A generator of the multiplicative group to the power n.
  int power(int n) const noexcept { return exp_[static_cast<std::size_t>(n % (q_ - 1))]; }

 private:
  int q_ = 0, p_ = 0, m_ = 0;
  std::vector<int> exp_, log_;
};

}  // namespace cachalot::network
