// Operands of products in the type that the products read: float to bf16 (nearest, ties to even)
// and back, many matrices in one launch.
#include <algorithm>

#include "kernels/cuda/gemm_parts.cuh"

namespace cachalot::cuda {

namespace {

constexpr int kThreads = 256, kChunk = kThreads * 32;  // elements of a block

struct Job {
  const void* from;
  void* to;
  std::int64_t rows, cols, from_stride, to_stride;
  int first;           // block
  int rows_per_block;  // of narrow matrices
  int blocks_per_row;  // of wide ones
  bool vectors;
};

using Jobs = JobList<Job, 16>;

template <class From, class To>
__global__ void __launch_bounds__(kThreads) convert_kernel(const __grid_constant__ Jobs jobs) {
  const Job& job = jobs_of(jobs)[job_of_block(jobs, static_cast<int>(blockIdx.x))];
  const int chunk = static_cast<int>(blockIdx.x) - job.first;
  const std::int64_t row0 =
      static_cast<std::int64_t>(chunk / job.blocks_per_row) * job.rows_per_block;
  const std::int64_t col0 = static_cast<std::int64_t>(chunk % job.blocks_per_row) * kChunk;
  const int width = static_cast<int>(min(job.cols - col0, static_cast<std::int64_t>(kChunk)));
  const int rows =
      static_cast<int>(min(job.rows - row0, static_cast<std::int64_t>(job.rows_per_block)));
  const int vectors = (width + 7) / 8;
  for (int i = static_cast<int>(threadIdx.x); i < rows * vectors; i += kThreads) {
    const int r = i / vectors;
    const int c = i % vectors * 8;
    const auto* from = static_cast<const From*>(job.from) + (row0 + r) * job.from_stride + col0;
    To* to = static_cast<To*>(job.to) + (row0 + r) * job.to_stride + col0 + c;
    if constexpr (sizeof(From) == 4) {
      // The padding up to whole vectors is the copy's own.
      *reinterpret_cast<uint4*>(to) = eight_bf16(from, c, width - c, true, job.vectors);
    } else {
      const uint4 v = eight_bf16(from, c, width - c, false, job.vectors);
      const float4 a = {low_bf16(v.x), high_bf16(v.x), low_bf16(v.y), high_bf16(v.y)};
      const float4 b = {low_bf16(v.z), high_bf16(v.z), low_bf16(v.w), high_bf16(v.w)};
      *reinterpret_cast<float4*>(to) = a;
      *reinterpret_cast<float4*>(to + 4) = b;
    }
  }
}

// Rows of one matrix that operands read, as they lie.
struct Span {
  const char* data;
  std::int64_t rows, cols;
  std::ptrdiff_t row_bytes;
  std::size_t at = 0;      // in scratch
  std::int64_t to_stride;  // elements
};

struct Use {
  MatRef* operand;
  std::size_t span = 0;
};

std::ptrdiff_t row_bytes(const MatRef& m) {
  const std::ptrdiff_t stride = std::max<std::ptrdiff_t>(m.stride, m.cols);
  return stride * static_cast<std::ptrdiff_t>(size_of(m.dtype));
}

// Whether the rows of `m` begin inside the span or right behind it, in step with its rows.
bool continues(const Span& s, const MatRef& m) {
  if (s.cols != m.cols || s.row_bytes != row_bytes(m)) return false;
  const std::ptrdiff_t offset = static_cast<const char*>(m.data) - s.data;
  return offset % s.row_bytes == 0 && offset / s.row_bytes <= s.rows;
}

std::vector<Span> spans_of(std::vector<Use>& uses) {
  std::sort(uses.begin(), uses.end(), [](const Use& x, const Use& y) {
    const MatRef &a = *x.operand, &b = *y.operand;
    if (a.cols != b.cols) return a.cols < b.cols;
    if (row_bytes(a) != row_bytes(b)) return row_bytes(a) < row_bytes(b);
    return static_cast<const char*>(a.data) < static_cast<const char*>(b.data);
  });
  std::vector<Span> spans;
  for (Use& u : uses) {
    const MatRef& m = *u.operand;
    if (spans.empty() || !continues(spans.back(), m)) {
      spans.push_back({static_cast<const char*>(m.data), 0, m.cols, row_bytes(m), 0,
                       (std::int64_t{m.cols} + 7) / 8 * 8});
    }
    Span& s = spans.back();
    const std::int64_t first = (static_cast<const char*>(m.data) - s.data) / s.row_bytes;
    s.rows = std::max(s.rows, first + m.rows);
    u.span = spans.size() - 1;
  }
  return spans;
}

Job job_of(const Span& s, std::size_t from_size, void* to, int first) {
  Job job{s.data,      to,    s.rows, s.cols, s.row_bytes / static_cast<std::ptrdiff_t>(from_size),
          s.to_stride, first, 1,      1,      in_vectors(s.data, s.row_bytes, 1)};
  if (job.from_stride == job.cols && job.to_stride == job.cols) {  // one long row
    job.cols *= job.rows;
    job.rows = 1;
  }
  if (job.cols >= kChunk) {
    job.blocks_per_row = ceil_div(job.cols, kChunk);
  } else {
    job.rows_per_block =
        std::max(1, static_cast<int>(kChunk / std::max<std::int64_t>(8, job.cols)));
  }
  return job;
}

}  // namespace

void convert_operands(const Context& ctx, DType to, std::span<Gemm> problems) {
  std::vector<MatRef*> operands;
  for (Gemm& g : problems) {
    operands.push_back(&g.a);
    operands.push_back(&g.b);
  }
  convert_operands(ctx, to, operands);
}

void convert_operands(const Context& ctx, DType to, std::span<MatRef* const> operands) {
  std::vector<Use> uses;
  for (MatRef* m : operands) {
    if (m->dtype != to && !m->empty()) uses.push_back({m});
  }
  if (uses.empty()) return;
  std::vector<Span> spans = spans_of(uses);
  const std::size_t from_size = to == DType::kBF16 ? 4 : 2, to_size = size_of(to);
  std::size_t bytes = 0;
  for (Span& s : spans) {
    s.at = bytes;
    bytes += (static_cast<std::size_t>(s.rows * s.to_stride) * to_size + 255) / 256 * 256;
  }
  char* scratch = static_cast<char*>(device_of(ctx).scratch(kScratchA, bytes));
  std::vector<Job> jobs;
  jobs.reserve(spans.size());
  int blocks = 0;
  for (const Span& s : spans) {
    const Job job = job_of(s, from_size, scratch + s.at, blocks);
    blocks += ceil_div(job.rows, job.rows_per_block) * job.blocks_per_row;
    jobs.push_back(job);
  }
  const Jobs list = job_list<16>(ctx, jobs, blocks);
  const auto grid = static_cast<unsigned>(blocks);
  if (to == DType::kBF16) {
    convert_kernel<float, __nv_bfloat16><<<grid, kThreads, 0, stream_of(ctx)>>>(list);
  } else {
    convert_kernel<__nv_bfloat16, float><<<grid, kThreads, 0, stream_of(ctx)>>>(list);
  }
  check_launch("convert_operands");
  for (const Use& u : uses) {
    const Span& s = spans[u.span];
    MatRef& m = *u.operand;
    const std::int64_t first = (static_cast<const char*>(m.data) - s.data) / s.row_bytes;
    m.data = scratch + s.at + static_cast<std::size_t>(first * s.to_stride) * to_size;
    m.dtype = to;
    m.stride = s.to_stride;
  }
}

}  // namespace cachalot::cuda
