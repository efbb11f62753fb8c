// What a user of the installed library writes first: calls it, catches its error.
#include <cstdio>

#include "base/error.h"
#include "tensor/dtype.h"

int main() {
  cachalot::DType type;
  if (!cachalot::parse_dtype("BF16", type) || cachalot::size_of(type) != 2) {
    std::puts("a BF16 element is not two bytes");
    return 1;
  }
  const cachalot::Error error(cachalot::Code::kUsage, "wrong flag");
  if (cachalot::exit_status(error.code()) != 2) return 1;
  std::puts("the installed library works");
  return 0;
}
