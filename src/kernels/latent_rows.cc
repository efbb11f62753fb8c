#include "kernels/latent_rows.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/fp8.h"
#include "kernels/shape_check.h"
#include "kernels/table.h"
#include "numeric/small_float.h"

namespace cachalot {

namespace {

constexpr std::uint8_t kLeastNormal = 0x08;  // 2^-6

// Codes that are subnormal become 0 or the least normal, whichever is nearer, ties to zero.
std::uint8_t without_subnormals(std::uint8_t code) {
  const auto size = static_cast<std::uint8_t>(code & 0x7F);
  if (size >= kLeastNormal) return code;
  return static_cast<std::uint8_t>((code & 0x80) | (size > kLeastNormal / 2 ? kLeastNormal : 0));
}

// What quantising left outside of the format.
void finish_fp8(const LatentLayout& layout, std::byte* row) {
  auto* codes = reinterpret_cast<std::uint8_t*>(row);
  std::transform(codes, codes + layout.latent, codes, without_subnormals);
  for (int t = 0; t < layout.tiles(); ++t) {
    std::byte* at = row + layout.scales_at() + 4 * t;
    float scale;
    std::memcpy(&scale, at, sizeof(scale));
    if (scale < kLatentMinScale) {
      const int begin = t * kLatentTile, n = std::min(kLatentTile, layout.latent - begin);
      std::fill_n(codes + begin, n, std::uint8_t{0});
      scale = 1;
    } else if (!(scale <= kLatentMaxScale)) {
      scale = std::numeric_limits<float>::quiet_NaN();
    }
    std::memcpy(at, &scale, sizeof(scale));
  }
}

template <class T>
MatView<T> rows_at(std::byte* first, std::ptrdiff_t row_bytes, int rows, int cols) {
  return {reinterpret_cast<T*>(first), rows, cols, row_bytes / static_cast<int>(sizeof(T))};
}

}  // namespace

std::string_view name(LatentFormat format) noexcept {
  switch (format) {
    case LatentFormat::kF32:
      return "f32";
    case LatentFormat::kBF16:
      return "bf16";
    case LatentFormat::kFp8:
      return "fp8";
  }
  return "bf16";
}

std::ptrdiff_t LatentLayout::row_bytes() const noexcept {
  switch (format) {
    case LatentFormat::kF32:
      return 4 * std::ptrdiff_t{width()};
    case LatentFormat::kBF16:
      return 2 * std::ptrdiff_t{width()};
    case LatentFormat::kFp8:
      return (rope_at() + 2 * std::ptrdiff_t{rope} + 3) / 4 * 4;
  }
  return 0;
}

void read_latent_row(const LatentLayout& layout, const std::byte* row, std::span<float> out) {
  const auto bf16 = [row](std::ptrdiff_t at) {
    Bf16 x;
    std::memcpy(&x, row + at, sizeof(x));
    return to_float(x);
  };
  const auto f32 = [row](std::ptrdiff_t at) {
    float x;
    std::memcpy(&x, row + at, sizeof(x));
    return x;
  };
  for (int c = 0; c < layout.width(); ++c) {
    float& to = out[static_cast<std::size_t>(c)];
    if (layout.format == LatentFormat::kF32) {
      to = f32(4 * std::ptrdiff_t{c});
    } else if (layout.format == LatentFormat::kBF16) {
      to = bf16(2 * std::ptrdiff_t{c});
    } else if (c < layout.latent) {
      const float scale = f32(layout.scales_at() + 4 * (c / kLatentTile));
      to = numeric::decode_e4m3(std::to_integer<std::uint8_t>(row[c])) * scale;
    } else {
      to = bf16(layout.rope_at() + 2 * std::ptrdiff_t{c - layout.latent});
    }
  }
}

void load_latent(const Context& ctx, const LatentRows& rows, int begin, MatView<float> out) {
  const LatentLayout& layout = rows.layout;
  require_shape(begin >= 0 && begin + out.cols <= layout.width() && out.rows <= rows.rows,
                "load_latent: columns ", begin, " to ", begin + out.cols, " of ", out.rows,
                " rows, but there are ", rows.rows, " rows of ", layout.width());
  ctx.ops().load_latent(ctx, rows, begin, out);
}
void load_latent_ref(const Context& ctx, const LatentRows& rows, int begin, MatView<float> out) {
  const LatentLayout& layout = rows.layout;
  ctx.for_range(out.rows, 64, [&](std::int64_t first, std::int64_t last) {
    std::vector<float> row(static_cast<std::size_t>(layout.width()));
    for (auto i = static_cast<int>(first); i < last; ++i) {
      const std::byte* from = rows.row(i);
      if (layout.format == LatentFormat::kF32) {
        std::copy_n(reinterpret_cast<const float*>(from) + begin, out.cols, out.row(i));
      } else if (layout.format == LatentFormat::kBF16) {
        const Bf16* x = reinterpret_cast<const Bf16*>(from) + begin;
        std::transform(x, x + out.cols, out.row(i), to_float);
      } else {
        read_latent_row(layout, from, row);
        std::copy_n(row.data() + begin, out.cols, out.row(i));
      }
    }
  });
}

void check_shapes(const StoreLatent& a) {
  require_size("store_latent", "c_kv", a.c_kv, a.c_kv.rows, a.layout.latent);
  require_size("store_latent", "k_rope", a.k_rope, a.c_kv.rows, a.layout.rope);
  require_shape(a.c_kv.rows <= kLatentBlock, "store_latent: ", a.c_kv.rows,
                " rows, but a block has ", kLatentBlock, "; store each block by itself");
}

void store_latent(const Context& ctx, std::span<const StoreLatent> jobs) {
  for (const StoreLatent& a : jobs) check_shapes(a);
  ctx.ops().store_latent(ctx, jobs);
}
void store_latent_ref(const Context& ctx, std::span<const StoreLatent> jobs) {
  std::vector<QuantizeFp8> fp8;
  for (const StoreLatent& a : jobs) {
    const LatentLayout& l = a.layout;
    const int n = a.c_kv.rows;
    const std::ptrdiff_t bytes = l.row_bytes();
    if (l.format == LatentFormat::kF32) {
      for (int i = 0; i < n; ++i) {
        auto* row = reinterpret_cast<float*>(a.row + i * bytes);
        std::copy_n(a.c_kv.row(i), l.latent, row);
        std::copy_n(a.k_rope.row(i), l.rope, row + l.latent);
      }
    } else if (l.format == LatentFormat::kBF16) {
      store_bf16(ctx, a.c_kv, rows_at<Bf16>(a.row, bytes, n, l.latent));
      store_bf16(ctx, a.k_rope, rows_at<Bf16>(a.row + 2 * l.latent, bytes, n, l.rope));
    } else {
      fp8.push_back(
          {a.c_kv, numeric::ScaleKind::kPow2,
           Fp8Out{reinterpret_cast<std::uint8_t*>(a.row), n, l.latent, bytes,
                  reinterpret_cast<float*>(a.row + l.scales_at()), bytes / 4, ScaleTile::kRow}});
      store_bf16(ctx, a.k_rope, rows_at<Bf16>(a.row + l.rope_at(), bytes, n, l.rope));
    }
  }
  if (fp8.empty()) return;
  quantize_fp8(ctx, fp8);
  for (const StoreLatent& a : jobs) {
    if (a.layout.format != LatentFormat::kFp8) continue;
    ctx.for_each(a.c_kv.rows, 16,
                 [&](std::int64_t i) { finish_fp8(a.layout, a.row + i * a.layout.row_bytes()); });
  }
}

}  // namespace cachalot
