// For tests only: weights of random codes in 8 or 4 bits. What lies between rows, behind the last
// column and between scales is never to be used: NaN, or codes of the largest size.
#pragma once

#include <bit>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/rng.h"
#include "tensor/quantized.h"

namespace cachalot::testing {

struct QuantOperand {
  std::vector<std::uint8_t> codes;
  std::vector<float> floats;
  std::vector<Bf16> halves;
  QuantView view;

  QuantOperand(QuantCode code, int rows, int cols, int group, std::uint64_t seed, int pad = 0) {
    const Rng rng(23, seed);
    view.code = code;
    view.rows = rows;
    view.cols = cols;
    view.group = group;
    // Whole words, as the files have them, and one byte more where rows lie apart unevenly.
    view.stride = (view.row_bytes() + 3) / 4 * 4 + pad;
    view.scale_stride = view.groups() + pad;
    codes.assign(static_cast<std::size_t>(rows) * static_cast<std::size_t>(view.stride), 0x7F);
    std::uint64_t n = 0;
    for (int i = 0; i < rows; ++i) {
      std::uint8_t* row = codes.data() + i * view.stride;
      for (std::ptrdiff_t j = 0; j < view.row_bytes(); ++j) {
        row[j] = static_cast<std::uint8_t>(rng.below(++n, 256));
        if (code == QuantCode::kE4m3 && (row[j] & 0x7F) == 0x7F) row[j] = 0x81;
      }
    }
    view.codes = codes.data();
    const auto scales =
        static_cast<std::size_t>(view.scale_rows()) * static_cast<std::size_t>(view.scale_stride);
    floats.assign(scales, std::numeric_limits<float>::quiet_NaN());
    halves.assign(scales, to_bf16(std::numeric_limits<float>::quiet_NaN()));
    for (int i = 0; i < view.scale_rows(); ++i) {
      for (int g = 0; g < view.groups(); ++g) {
        const auto at = static_cast<std::size_t>(i * view.scale_stride + g);
        floats[at] = static_cast<float>(0.5 + rng.uniform(++n));
        halves[at] = to_bf16(rng.uniform(++n) < 0.5 ? floats[at] : -floats[at]);
      }
    }
    view.scales = code == QuantCode::kE4m3 ? static_cast<const void*>(floats.data())
                                           : static_cast<const void*>(halves.data());
  }
  QuantOperand(const QuantOperand&) = delete;
  QuantOperand& operator=(const QuantOperand&) = delete;
};

inline std::string name(QuantCode code) {
  constexpr const char* kNames[] = {"e4m3", "int8", "int4"};
  return kNames[static_cast<int>(code)];
}

}  // namespace cachalot::testing
