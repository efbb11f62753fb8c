#include "tensor/dtype.h"

#include <array>

namespace cachalot {

namespace {
struct Row {
  DType type;
  std::string_view name;
  std::size_t size;
};
constexpr std::array<Row, 12> kRows{{{DType::kF64, "F64", 8},
                                     {DType::kF32, "F32", 4},
                                     {DType::kF16, "F16", 2},
                                     {DType::kBF16, "BF16", 2},
                                     {DType::kF8E4M3, "F8_E4M3", 1},
                                     {DType::kF8E5M2, "F8_E5M2", 1},
                                     {DType::kI64, "I64", 8},
                                     {DType::kI32, "I32", 4},
                                     {DType::kI16, "I16", 2},
                                     {DType::kI8, "I8", 1},
                                     {DType::kU8, "U8", 1},
                                     {DType::kBool, "BOOL", 1}}};
}  // namespace

std::size_t size_of(DType type) noexcept { return kRows[static_cast<std::size_t>(type)].size; }
std::string_view name(DType type) noexcept { return kRows[static_cast<std::size_t>(type)].name; }

bool parse_dtype(std::string_view text, DType& out) {
  for (const Row& row : kRows) {
    if (row.name == text) {
      out = row.type;
      return true;
    }
  }
  return false;
}

}  // namespace cachalot
