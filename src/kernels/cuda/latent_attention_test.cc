#include "kernels/latent_attention.h"

#include <cmath>
#include <cstdio>
#include <string>

#include "kernels/cuda/latent_case_test.h"
#include "kernels/cuda/ops.h"

namespace cachalot::cuda::testing {
namespace {

class CudaLatentAttentionTest : public CudaTest {
 protected:
  LatentCase make(const LatentShape& s, LatentFormat format, Precision precision,
                  std::uint64_t seed = 1, float size = 1, std::size_t gap = 0, float row_size = 1) {
    LatentCase c;
    c.shape = s;
    c.precision = precision;
    const int width = s.latent + s.rope;
    c.q = random_mat(s.queries, s.heads * width, seed, size);
    c.q_device = up(c.q);
    c.out_device = room<float>(s.queries, s.heads * s.latent);
    const Mat<float> rows = random_mat(s.rows, width, seed + 1, row_size);
    c.caches = std::make_unique<TwoCaches>(host, *device_, LatentLayout{format, s.latent, s.rope},
                                           rows.cview(), gap);
    c.scale = static_cast<float>(1 / std::sqrt(s.latent / 4.0 + s.rope + 1));
    return c;
  }

  void run(std::span<const LatentAttention> problems) {
    cuda::latent_attention(ctx, problems);
    device_->wait();
  }

  // Every number is there; some rows are compared with the definition, one at a time.
  void expect_right(LatentCase& c, double bound, const std::string& what) {
    const LatentShape& s = c.shape;
    const Mat<float> got = down(c.out_device);
    std::size_t missing = 0, first = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (std::isfinite(got.data()[i])) continue;
      if (missing++ == 0) first = i;
    }
    EXPECT_EQ(missing, 0U) << what << ": numbers that are not finite; the first is query "
                           << first / static_cast<std::size_t>(got.cols()) << " column "
                           << first % static_cast<std::size_t>(got.cols());
    double worst = 0;
    int bad = 0;
    const int width = s.latent + s.rope;
    for (const int i : {0, 1, s.queries / 2, s.queries - 1}) {
      if (i >= s.queries) continue;
      for (const int h : {0, 1, 9, s.heads / 2, s.heads - 1}) {
        if (h >= s.heads) continue;
        Mat<float> want(1, s.latent);
        const LatentAttention one{c.q.cview().sub_rows(i, 1).sub_cols(h * width, width),
                                  c.caches->host().first(s.rows - s.queries + 1 + i),
                                  1,
                                  c.scale,
                                  want.view(),
                                  c.precision};
        latent_attention_ref(host, {&one, 1});
        const float* row = got.row(i) + h * s.latent;
        const double error = relative_error(row, want.data(), want.size());
        worst = std::max(worst, error);
        if (error < bound) continue;
        if (++bad > 3) continue;
        int c0 = 0;
        while (c0 < s.latent - 1 &&
               std::abs(row[c0] - want.data()[c0]) <= bound * (std::abs(want.data()[c0]) + 0.01)) {
          ++c0;
        }
        ADD_FAILURE() << what << ": query " << i << " head " << h << " error " << error
                      << ", column " << c0 << " is " << row[c0] << " but has to be "
                      << want.data()[c0] << "; columns 0, 64, 256 are " << row[0] << " "
                      << row[std::min(64, s.latent - 1)] << " " << row[std::min(256, s.latent - 1)]
                      << " want " << want.data()[0] << " "
                      << want.data()[std::min(64, s.latent - 1)] << " "
                      << want.data()[std::min(256, s.latent - 1)];
      }
    }
    EXPECT_EQ(bad, 0) << what;
    std::printf("%-52s worst error %.2e\n", what.c_str(), worst);
  }

  void check(const LatentShape& s, LatentFormat format, Precision precision, double bound,
             float size = 1, float row_size = 1) {
    const std::string what =
        cat("T=", s.queries, " S=", s.rows, " H=", s.heads, " L=", s.latent, " R=", s.rope, " ",
            name(format), precision == Precision::kBF16 ? " bf16 products" : " f32 products");
    LatentCase c = make(s, format, precision, static_cast<std::uint64_t>(s.rows * 7 + s.heads),
                        size, 0, row_size);
    const LatentAttention problem = c.problem();
    run({&problem, 1});
    expect_right(c, bound, what);
  }
};

bool same_bits(const Mat<float>& a, const Mat<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_F(CudaLatentAttentionTest, FastShapesAgree) {
  for (const LatentFormat format : {LatentFormat::kBF16, LatentFormat::kFp8}) {
    for (const LatentShape& s : std::vector<LatentShape>{{1, 1, 1},
                                                         {1, 33, 16},
                                                         {1, 63, 16},
                                                         {1, 64, 16},
                                                         {1, 65, 20},
                                                         {1, 1000, 16},
                                                         {1, 1000, 128},
                                                         {2, 64, 128},
                                                         {2, 300, 16},
                                                         {5, 1000, 20},
                                                         {5, 65, 128},
                                                         {5, 63, 1},
                                                         {70, 70, 16},
                                                         {70, 150, 128},
                                                         {1, 5000, 16},
                                                         {1, 5000, 128},
                                                         {2, 9000, 32},
                                                         {1, 20000, 64}}) {
      check(s, format, Precision::kBF16, 1e-2);
    }
  }
}

// Scales past 2^7, and of several sizes in a tile.
TEST_F(CudaLatentAttentionTest, LargeScalesOfCodes) {
  for (const int heads : {16, 24, 128}) {
    for (const float size : {4e4F, 1e20F, 1e-20F}) {
      check({1, 500, heads}, LatentFormat::kFp8, Precision::kBF16, 1e-2, 1 / size, size);
      check({3, 1500, heads}, LatentFormat::kFp8, Precision::kBF16, 1e-2, 1 / size, size);
    }
  }
}

// Many pieces of a row, whose chunks grow.
TEST_F(CudaLatentAttentionTest, LongContextsAgree) {
  for (const LatentFormat format : {LatentFormat::kBF16, LatentFormat::kFp8}) {
    check({1, 36001, 16}, format, Precision::kBF16, 1e-2);
    check({2, 36001, 24}, format, Precision::kBF16, 1e-2);
    check({1, 36001, 128}, format, Precision::kBF16, 1e-2);
  }
}

TEST_F(CudaLatentAttentionTest, OtherShapesAgree) {
  for (const LatentFormat format : {LatentFormat::kF32, LatentFormat::kBF16, LatentFormat::kFp8}) {
    for (const LatentShape& s : std::vector<LatentShape>{{1, 1, 1, 1, 0},
                                                         {1, 2, 1, 3, 2},
                                                         {2, 63, 3, 16, 8},
                                                         {3, 64, 2, 31, 5},
                                                         {1, 65, 16, 32, 16},
                                                         {5, 130, 29, 48, 7},
                                                         {70, 70, 2, 16, 4},
                                                         {2, 1025, 2, 130, 8},
                                                         {1, 100, 2, 5000, 64}}) {
      check(s, format, Precision::kF32, 1e-5);
    }
    check({2, 300, 16}, format, Precision::kF32, 1e-5);
    check({2, 130, 3, 48, 8}, format, Precision::kBF16, 1e-2);
    check({1, 1000, 16}, format, Precision::kF32, 1e-5);
  }
  check({2, 300, 16}, LatentFormat::kF32, Precision::kBF16, 1e-2);
}

TEST_F(CudaLatentAttentionTest, LargeScoresStayFinite) {
  for (const int heads : {16, 128}) {
    check({2, 700, heads}, LatentFormat::kBF16, Precision::kBF16, 1e-2, 1000);
    check({2, 700, heads}, LatentFormat::kFp8, Precision::kBF16, 1e-2, 1000);
  }
  check({2, 700, 3, 32, 8}, LatentFormat::kF32, Precision::kF32, 1e-4, 1000);
}

TEST_F(CudaLatentAttentionTest, NeitherOtherProblemsNorPlacesChangeBits) {
  for (const LatentFormat format : {LatentFormat::kBF16, LatentFormat::kFp8}) {
    for (const int heads : {16, 128}) {
      std::vector<LatentCase> cases;
      std::vector<Mat<float>> alone;
      std::uint64_t seed = 1;
      const std::vector<LatentShape> shapes{{1, 3000, heads}, {2, 50, heads},  {1, 1, heads},
                                            {4, 1500, heads}, {1, 700, heads}, {1, 9000, heads}};
      for (const LatentShape& s : shapes) {
        LatentCase c = make(s, format, Precision::kBF16, ++seed);
        const LatentAttention problem = c.problem();
        run({&problem, 1});
        alone.push_back(down(c.out_device));
      }
      seed = 1;
      std::vector<LatentAttention> problems;
      for (const LatentShape& s : shapes) {
        cases.push_back(make(s, format, Precision::kBF16, ++seed, 1, 4096));
      }
      for (LatentCase& c : cases) problems.push_back(c.problem());
      run(problems);
      for (std::size_t i = 0; i < cases.size(); ++i) {
        EXPECT_TRUE(same_bits(down(cases[i].out_device), alone[i]))
            << name(format) << " heads " << heads << " problem " << i << ", error "
            << relative_error(down(cases[i].out_device), alone[i]);
      }
    }
  }
}

TEST_F(CudaLatentAttentionTest, SeveralQueriesGiveTheBitsOfOneAtATime) {
  for (const LatentFormat format : {LatentFormat::kF32, LatentFormat::kBF16, LatentFormat::kFp8}) {
    for (const int heads : {8, 16, 128}) {
      for (const int rows : {1026, 2051}) {
        LatentCase c = make({5, rows, heads}, format, Precision::kBF16);
        LatentAttention problem = c.problem();
        run({&problem, 1});
        const Mat<float> together = down(c.out_device);
        c.out_device = room<float>(5, heads * 512);
        for (int i = 0; i < 5; ++i) {
          LatentAttention one = c.problem();
          one.q = one.q.sub_rows(i, 1);
          one.out = one.out.sub_rows(i, 1);
          one.cache = one.cache.first(rows - 5 + 1 + i);
          run({&one, 1});
        }
        EXPECT_TRUE(same_bits(down(c.out_device), together))
            << name(format) << " heads " << heads << " rows " << rows << ", error "
            << relative_error(down(c.out_device), together);
      }
    }
  }
}

TEST_F(CudaLatentAttentionTest, NothingToDo) {
  run({});
  LatentCase c = make({1, 10, 16}, LatentFormat::kBF16, Precision::kBF16);
  LatentAttention none = c.problem();
  none.q = none.q.sub_rows(0, 0);
  none.out = none.out.sub_rows(0, 0);
  run({&none, 1});
}

}  // namespace
}  // namespace cachalot::cuda::testing
