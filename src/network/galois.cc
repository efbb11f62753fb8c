#include "network/galois.h"

#include "base/error.h"

namespace cachalot::network {

PrimePower prime_power(int q) noexcept {
  if (q < 2) return {};
  int p = 2;
  while (p * p <= q && q % p != 0) ++p;
  if (q % p != 0) p = q;
  int m = 0;
  for (int rest = q; rest > 1; rest /= p, ++m) {
    if (rest % p != 0) return {};
  }
  return {p, m};
}

GaloisField::GaloisField(int q) : q_(q) {
  const PrimePower pm = prime_power(q);
  if (pm.p == 0) {
    throw Error(Code::kUsage, cat("there is no field of ", q, " elements: not a prime power"));
  }
  p_ = pm.p;
  m_ = pm.m;
  // With m = 1 the generator is a number; else it is x modulo a polynomial x^m = low(x), and every
  // `low` is tried until the powers of x run through all q-1 non-zero elements (a primitive
  // polynomial: there always is one).
  const int top = q_ / p_;  // x^(m-1) as an element
  for (int candidate = 1; candidate < q_; ++candidate) {
    exp_.assign(static_cast<std::size_t>(q_ - 1), 0);
    log_.assign(static_cast<std::size_t>(q_), -1);
    int value = 1, n = 0;
    for (; n < q_ - 1 && value != 0 && log_[static_cast<std::size_t>(value)] < 0; ++n) {
      exp_[static_cast<std::size_t>(n)] = value;
      log_[static_cast<std::size_t>(value)] = n;
      if (m_ == 1) {
        value = value * candidate % p_;
      } else {
        const int carry = value / top;
        value = value % top * p_;
        for (int times = 0; times < carry; ++times) value = add(value, candidate);
      }
    }
    if (n == q_ - 1) return;
  }
  throw Error(Code::kInternal, cat("no generator of the field of ", q, " elements was found"));
}

int GaloisField::add(int a, int b) const noexcept {
  int sum = 0;
  for (int digit = 1; digit < q_; digit *= p_) {
    sum += (a / digit + b / digit) % p_ * digit;
  }
  return sum;
}

int GaloisField::negate(int a) const noexcept {
  int result = 0;
  for (int digit = 1; digit < q_; digit *= p_) {
    result += (p_ - a / digit % p_) % p_ * digit;
  }
  return result;
}

int GaloisField::multiply(int a, int b) const noexcept {
  if (a == 0 || b == 0) return 0;
  return power(log_[static_cast<std::size_t>(a)] + log_[static_cast<std::size_t>(b)]);
}

}  // namespace cachalot::network
