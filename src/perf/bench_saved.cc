// Storing and loading saved activations, and payloads of the combine. The ceiling of each is a
// plain pass that reads and writes as many bytes, in about the same proportion.
#include <cmath>

#include "base/error.h"
#include "kernels/table.h"
#include "perf/bench_cases.h"
#include "perf/bench_fill.h"
#include "perf/peaks.h"

namespace cachalot::perf {

namespace {

constexpr int kRows = 4096, kCols = 2048;
constexpr double kValues = 1.0 * kRows * kCols;

struct Data {
  Mat<float> x = filled(kRows, kCols, 1), back = Mat<float>(kRows, kCols);
  Mat<Bf16> half = Mat<Bf16>(kRows, kCols);
  E5m6Mat packed;
  Data() { packed.resize(kRows, kCols); }
};

struct SavedCase {
  const char* name;
  double bytes;  // per value, read and written
  struct {
    int reads, writes;
    bool in_place;
  } pass;
  void (*run)(const Context&, Data&);
};

void to_half(const Context& ctx, Data& d) { store_bf16(ctx, d.x.cview(), d.half.view()); }
void from_half(const Context& ctx, Data& d) { load_bf16(ctx, d.half.cview(), d.back.view()); }
void pack(const Context& ctx, Data& d) { store_e5m6(ctx, d.x.cview(), d.packed); }
void unpack(const Context& ctx, Data& d) { load_e5m6(ctx, d.packed, d.back.view()); }
template <numeric::Payload kPayload>
void send(const Context& ctx, Data& d) {
  payload_round_trip(ctx, kPayload, d.back.view());
}

using numeric::Payload;
constexpr double kPacked = 193.0 / 128;  // 12 bits and a byte per tile
constexpr SavedCase kCases[] = {
    {"store_bf16", 6, {2, 1, false}, to_half},
    {"load_bf16", 6, {1, 2, false}, from_half},
    {"store_e5m6", 4 + kPacked, {8, 3, false}, pack},
    {"load_e5m6", 4 + kPacked, {1, 3, false}, unpack},
    {"payload bf16", 8, {1, 1, true}, send<Payload::kBf16>},
    {"payload e4m3", 8, {1, 1, true}, send<Payload::kE4m3>},
    {"payload e5m2", 8, {1, 1, true}, send<Payload::kE5m2>},
    {"payload logfmt8", 8, {1, 1, true}, send<Payload::kLogFmt8>},
    {"payload logfmt10", 8, {1, 1, true}, send<Payload::kLogFmt10>},
};

// All but LogFMT give the reference's bits; LogFMT may take the neighbour of a near tie, which
// is no further away than the nearest one, but for the logarithm's own error.
void check(const SavedCase& c, const Data& got, const Data& want) {
  const bool logfmt = std::string_view(c.name).find("logfmt") != std::string_view::npos;
  for (std::size_t i = 0; i < got.back.size(); ++i) {
    const float x = got.back.data()[i], y = want.back.data()[i];
    const double bound = logfmt ? 0.2 * std::abs(double{y}) : 0;  // a step of 8 bits is 2^0.25
    if (std::abs(double{x} - double{y}) <= bound) continue;
    throw Error(Code::kNumeric, cat("bench: ", c.name, " gives ", x, " instead of ", y,
                                    "; its speed means nothing"));
  }
}

void fill_all(const Context& ctx, Data& d) {
  to_half(ctx, d);
  pack(ctx, d);
  std::copy(d.x.span().begin(), d.x.span().end(), d.back.data());
}

ReadyCase prepare(const SavedCase& c, const BenchEnvironment& env) {
  const auto data = std::make_shared<Data>();
  const Context& ctx = env.ctx;
  {
    const Context reference{&kReferenceTable, ctx.pool};
    Data want;
    fill_all(reference, want);
    fill_all(ctx, *data);
    c.run(reference, want);
    c.run(ctx, *data);
    if (c.run == to_half) {
      from_half(reference, want);
      from_half(reference, *data);
    }
    if (c.run == pack) {
      unpack(reference, want);
      unpack(reference, *data);
    }
    check(c, *data, want);
  }
  ReadyCase ready;
  ready.contestants.push_back({"cachalot", [&ctx, &c, data] { c.run(ctx, *data); }});
  const int arrays = c.pass.reads + c.pass.writes;
  const auto probe = std::make_shared<StreamProbe>(
      c.pass.reads, c.pass.writes, c.pass.in_place,
      static_cast<std::size_t>(c.bytes * kValues) / static_cast<std::size_t>(arrays));
  ready.ceiling = [&ctx, probe] { return Ceilings{probe->gbps(ctx), 0}; };
  return ready;
}

}  // namespace

std::vector<BenchCase> saved_cases() {
  std::vector<BenchCase> cases;
  for (const SavedCase& s : kCases) {
    BenchCase c;
    c.group = "saved";
    c.name = s.name;
    c.precision = "f32";
    c.memory = true;
    c.bytes = s.bytes * kValues;
    c.prepare = [&s](const BenchEnvironment& env) { return prepare(s, env); };
    cases.push_back(std::move(c));
  }
  return cases;
}

}  // namespace cachalot::perf
