// What a user of the installed library writes first: opens a runtime, asks what it found, catches
// its error.
#include <cstdio>

#include "base/error.h"
#include "runtime/runtime.h"
#include "tensor/dtype.h"

int main() {
  const cachalot::runtime::Runtime runtime({.threads = 2, .cpu = "ref"});
  if (runtime.threads() != 2 || runtime.level() != "ref") {
    std::puts("the installed runtime did not take its options");
    return 1;
  }
  if (cachalot::size_of(cachalot::DType::kBF16) != 2) {
    std::puts("a BF16 element is not two bytes");
    return 1;
  }
  try {
    const cachalot::runtime::Runtime wrong({.threads = 1, .cpu = "no-such-level"});
  } catch (const cachalot::Error& error) {
    std::printf("the installed library works; its errors read: %s\n", error.what());
    return cachalot::exit_status(error.code()) == 2 ? 0 : 1;
  }
  std::puts("an unknown CPU level was accepted");
  return 1;
}
