// A head in 8 bits, of FP8 folders and of folders of integers, where passes compute (a CPU, or the
// device that $CACHALOT_DEVICE names) against the definition.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/table.h"
#include "model/convert.h"
#include "model/forward.h"
#include "runtime/runtime.h"
#include "tensor/host_copy.h"
#include "testing/fixtures.h"

namespace cachalot::model {
namespace {

namespace fs = std::filesystem;

Model load_codes(const fs::path& folder, const Context& ctx) {
  return Model::load(folder, {.precision = Precision::kBF16, .keep_codes = true, .context = &ctx});
}

std::vector<std::int32_t> some_tokens(int n, int vocab) {
  std::vector<std::int32_t> tokens;
  for (int i = 0; i < n; ++i) tokens.push_back((7 + 31 * i) % vocab);
  return tokens;
}

// The normed rows of a pass, on the host.
Mat<float> rows_of(const Context& ctx, const Model& model, Forward& forward, int rows) {
  const auto tokens = some_tokens(rows, model.config().vocab_size);
  CachePool pool(model.config(), LatentFormat::kBF16,
                 CachePool::bytes_for(model.config(), LatentFormat::kBF16, rows), ctx.device);
  LatentCache cache(pool);
  const Chunk chunk{tokens, &cache};
  return host_copy(forward.run({&chunk, 1}), ctx.device);
}

Mat<float> logits_of(const Context& ctx, Forward& forward, const Mat<float>& rows, bool mtp) {
  const MemoryScope scope(ctx.device);
  Mat<float> x, out;
  x.resize(rows.rows(), rows.cols());
  upload<float>(rows.span(), x);
  out.resize(rows.rows(), forward.model().config().vocab_size);
  if (mtp) {
    forward.mtp_logits(x.cview(), out.view());
  } else {
    forward.logits(x.cview(), out.view());
  }
  return host_copy(out.cview(), ctx.device);
}

double relative_error(const Mat<float>& got, const Mat<float>& want) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const auto w = static_cast<double>(want.data()[i]), g = static_cast<double>(got.data()[i]);
    difference += (g - w) * (g - w);
    size += w * w;
  }
  return std::sqrt(difference / size);
}

TEST(HeadFixture, EightBitsAreMultipliedAsTheDefinitionDoes) {
  const runtime::Runtime runtime({.threads = 0, .cpu = {}, .on_device = true});
  const Context& ctx = runtime.context();
  Context plain;
  plain.table = &kReferenceTable;
  plain.pool = ctx.pool;
  for (const fs::path& folder : testing::fixture_folders(testing::FixtureKind::kModel)) {
    for (const WeightFormat format :
         {WeightFormat::kFp8, WeightFormat::kInt8, WeightFormat::kInt4}) {
      const testing::TempDir dir;
      const fs::path converted = dir.path() / "model";
      ConvertOptions options;
      options.format = format;
      options.fp8_head = format == WeightFormat::kFp8;
      convert_model(plain, folder, converted, options);
      const std::string what = cat(folder.filename().string(), " ", name(format));
      const Model model = load_codes(converted, ctx), definition = load_codes(converted, plain);
      ASSERT_GT(model.weights().head.quant.rows, 0) << what;
      Forward forward(ctx, model), reference(plain, definition);
      const Mat<float> rows = rows_of(plain, definition, reference, 70);
      // One row is read as codes lie; many are multiplied out to bf16 first on a device.
      for (const int n : {1, 3, 16, 70}) {
        Mat<float> some(n, rows.cols());
        std::copy_n(rows.data(), some.size(), some.data());
        for (const bool mtp : {false, true}) {
          if (mtp && !model.has_mtp()) continue;
          const Mat<float> want = logits_of(plain, reference, some, mtp);
          EXPECT_LT(relative_error(logits_of(ctx, forward, some, mtp), want), 5e-3)
              << what << " " << n << " rows" << (mtp ? ", MTP" : "");
        }
      }
      // And behind a whole pass: rounding sends few tokens to other experts.
      const Mat<float> got = logits_of(ctx, forward, rows_of(ctx, model, forward, 70), false);
      const Mat<float> want = logits_of(plain, reference, rows, false);
      int same = 0;
      for (int i = 0; i < got.rows(); ++i) {
        const auto best = [i](const Mat<float>& m) {
          return std::max_element(m.row(i), m.row(i) + m.cols()) - m.row(i);
        };
        same += best(got) == best(want) ? 1 : 0;
      }
      EXPECT_GE(same, 60) << what;
    }
  }
}

}  // namespace
}  // namespace cachalot::model
