#include "infer/bench_infer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/rng.h"
#include "kernels/elementwise.h"
#include "model/binding.h"
#include "perf/peaks.h"

namespace cachalot::infer {

namespace {

using Clock = std::chrono::steady_clock;

// `count` sequences with `context` random rows each in every layer, and room for `rows` more.
class Sequences {
 public:
  Sequences(const Context& ctx, const model::Config& config, LatentFormat format, int count,
            int context, int rows)
      : context_(context),
        pool_(config, format, model::CachePool::bytes_for(config, format, context + rows, count),
              ctx.device) {
    if (context + rows > config.max_position_embeddings) {
      throw Error(Code::kUsage,
                  cat("a pass of ", rows, " tokens after ", context, " does not fit the model's ",
                      config.max_position_embeddings, " (max_position_embeddings)"));
    }
    const model::CacheShape& shape = pool_.shape();
    const MemoryScope scope(ctx.device);
    Mat<float> latent, rope;
    for (int s = 0; s < count; ++s) {
      model::LatentCache& cache = caches_.emplace_back(pool_);
      if (!cache.reserve(0, context + rows)) {
        throw Error(Code::kInternal, "the pool of a benchmark is too small for its own sequences");
      }
      for (int layer = 0; layer < shape.layers() && context > 0; ++layer) {
        const Rng rng(static_cast<std::uint64_t>(s), static_cast<std::uint64_t>(layer));
        fill(rng, latent, context, shape.layout.latent);
        fill(rng, rope, context, shape.layout.rope);
        cache.write(ctx, layer, 0, latent.cview(), rope.cview());
      }
    }
    rewind();
  }
  // Back to the context, its pages kept.
  void rewind() {
    for (model::LatentCache& cache : caches_) {
      cache.set_length(context_);
      cache.set_mtp_length(context_);
    }
  }
  std::vector<model::LatentCache>& caches() noexcept { return caches_; }
  const model::CacheShape& shape() const noexcept { return pool_.shape(); }

 private:
  // Uniform numbers of variance 1, as after a norm.
  void fill(const Rng& rng, Mat<float>& to, int rows, int cols) {
    numbers_.resize(static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols));
    std::uint64_t at = 0;
    for (float& x : numbers_) x = static_cast<float>((rng.uniform(at++) - 0.5) * std::sqrt(12.0));
    to.resize(rows, cols);
    upload<float>(numbers_, to);
  }
  int context_;
  model::CachePool pool_;
  std::vector<model::LatentCache> caches_;
  std::vector<float> numbers_;
};

std::vector<std::int32_t> random_ids(int count, int vocab, std::uint64_t seed) {
  const Rng rng(seed, 9);
  std::vector<std::int32_t> ids;
  for (int i = 0; i < count; ++i) {
    ids.push_back(static_cast<std::int32_t>(rng.uniform(static_cast<std::uint64_t>(i)) * vocab));
  }
  return ids;
}

// Mean over the layers with experts of how many a pass chose.
double experts_touched(const model::Taps& taps) {
  double sum = 0;
  int layers = 0;
  for (const model::LayerTap& layer : taps.layers) {
    if (layer.topk_idx.rows() == 0) continue;
    std::set<std::int32_t> chosen;
    for (int i = 0; i < layer.topk_idx.rows(); ++i) {
      chosen.insert(layer.topk_idx.row(i), layer.topk_idx.row(i) + layer.topk_idx.cols());
    }
    sum += static_cast<double>(chosen.size());
    ++layers;
  }
  return layers > 0 ? sum / layers : 0;
}

// Reads the memory that weights lie in. Of a device: a copy, which reads half of what it moves.
class MemoryProbe {
 public:
  explicit MemoryProbe(const Context& ctx) : ctx_(ctx) {
    if (ctx.device == nullptr) {
      reader_.emplace();
      return;
    }
    const MemoryScope scope(ctx.device);
    from_ = Mat<float>(kRows, kCols);
    to_ = Mat<float>(kRows, kCols);
  }
  double gbps() const {
    if (reader_) return reader_->gbps(ctx_);
    Device& device = *ctx_.device;
    constexpr int kTimes = 4;
    const std::size_t bytes = from_.size() * sizeof(float);
    device.wait();
    const Clock::time_point begin = Clock::now();
    for (int i = 0; i < kTimes; ++i) device.copy(to_.data(), from_.data(), bytes);
    device.wait();
    const std::chrono::duration<double> seconds = Clock::now() - begin;
    return 1e-9 * kTimes * 2.0 * static_cast<double>(bytes) / seconds.count();
  }

 private:
  static constexpr int kRows = 1024, kCols = 128 << 10;  // 512 MiB
  const Context& ctx_;
  std::optional<perf::ReadProbe> reader_;
  Mat<float> from_;
  mutable Mat<float> to_;
};

// One kind of pass, ready to be repeated.
struct Pass {
  Pass(const Context& context, const model::Model& m, const InferBenchOptions& o, int batch,
       int depth, int each)
      : ctx(context),
        model(m),
        sequences(ctx, model.config(), o.cache, batch, depth, each),
        forward(ctx, model, o.attention) {
    for (int s = 0; s < batch; ++s) {
      tokens.push_back(random_ids(each, model.config().vocab_size, static_cast<std::uint64_t>(s)));
    }
  }
  std::vector<model::Chunk> chunks() {
    std::vector<model::Chunk> list;
    for (std::size_t s = 0; s < tokens.size(); ++s) {
      list.push_back({tokens[s], &sequences.caches()[s]});
    }
    return list;
  }
  // `last`: logits of the last row of each sequence alone.
  void run(bool last, model::Taps* taps = nullptr) {
    const MemoryScope scope(ctx.device);
    sequences.rewind();
    const auto list = chunks();
    const MatView<const float> rows = forward.run(list, taps);
    const int each = static_cast<int>(tokens.front().size());
    if (last) {
      picked.resize(static_cast<int>(tokens.size()), rows.cols);
      for (int s = 0; s < picked.rows(); ++s) {
        copy_rows(ctx, rows.sub_rows((s + 1) * each - 1, 1), picked.view().sub_rows(s, 1));
      }
    }
    const MatView<const float> wanted = last ? picked.cview() : rows;
    logits.resize(wanted.rows, model.config().vocab_size);
    forward.logits(wanted, logits.view());
    if (ctx.device != nullptr) ctx.device->wait();
  }
  // The MTP layer over one row of each sequence, `times` times, with logits: drafting.
  void draft(int times) {
    const MemoryScope scope(ctx.device);
    sequences.rewind();
    picked.resize(static_cast<int>(tokens.size()), model.config().hidden_size);
    logits.resize(picked.rows(), model.config().vocab_size);
    std::vector<model::Chunk> list = chunks();
    for (model::Chunk& chunk : list) chunk.tokens = chunk.tokens.first(1);
    for (int i = 0; i < times; ++i) {
      forward.mtp_logits(forward.run_mtp(list, picked.cview()), logits.view(), picked.view());
    }
    if (ctx.device != nullptr) ctx.device->wait();
  }

  const Context& ctx;
  const model::Model& model;
  Sequences sequences;
  model::Forward forward;
  std::vector<std::vector<std::int32_t>> tokens;
  Mat<float> picked, logits;
};

double gflops_peak(const Context& ctx, const model::Model& model) {
  if (ctx.device != nullptr) return 1e-9 * ctx.device->bf16_flops();  // as sold
  const double fma = perf::fma_gflops(ctx);
  return model.precision() == Precision::kBF16 ? std::max(fma, perf::bf16_gflops(ctx)) : fma;
}

void put(InferBenchCase& c, const perf::Measured& m, double work) {
  c.rate = m.value;
  c.seconds = work / m.value;
  c.ceiling = m.ceiling;
  c.fraction = m.fraction;
  c.valid = m.valid;
  c.turns = m.turns;
}

// The chance that each of k drafts is right from which 1 + a + ... + a^k tokens in `drafted`
// seconds are as many per second as one in `plain`; 2 where not even sure drafts pay.
double break_even(int k, double plain, double drafted) {
  const auto tokens = [k](double a) {
    double sum = 1, chain = 1;
    for (int j = 0; j < k; ++j) sum += (chain *= a);
    return sum;
  };
  if (tokens(1) / drafted < 1 / plain) return 2;
  double low = 0, high = 1;
  for (int i = 0; i < 50; ++i) {
    const double middle = (low + high) / 2;
    (tokens(middle) / drafted < 1 / plain ? low : high) = middle;
  }
  return high;
}

}  // namespace

std::vector<InferBenchCase> bench_decode(const Context& ctx, const model::Model& model,
                                         const InferBenchOptions& o,
                                         const BenchProgress& progress) {
  const cost::WeightBytes weights = cost::weight_bytes(model);
  const MemoryProbe reader(ctx);
  std::vector<InferBenchCase> cases;
  for (const int context : o.contexts) {
    for (const int batch : o.batches) {
      double plain = 0;
      for (const int drafts : o.drafts) {
        InferBenchCase c;
        c.kind = "decode";
        c.batch = batch;
        c.context = context;
        c.drafts = drafts;
        progress(cat("decode, batch ", batch, ", context ", context, ", ", drafts, " drafts"));
        Pass pass(ctx, model, o, batch, context, 1 + drafts);
        model::Taps taps;
        pass.run(false, &taps);
        c.experts = experts_touched(taps);
        const int rows = batch * (1 + drafts);
        c.cost = cost::pass_cost(model.config(), weights,
                                 {.rows = rows,
                                  .sequences = batch,
                                  .context = context,
                                  .logits = rows,
                                  .cache_bytes_per_token = static_cast<double>(
                                      pass.sequences.shape().bytes_per_token())});
        // Bytes by the experts that were really read.
        cost::PassCost read = c.cost;
        read.weight_bytes += weights.moe_layers * (c.experts - c.cost.experts) * weights.expert;
        const double work = 1e-9 * read.bytes();
        const auto measured = perf::measure(
            {{"pass", [&] { pass.run(false); }}}, work,
            [&] {
              return perf::Ceilings{reader.gbps(), 0};
            },
            o.turns);
        put(c, measured.front(), work);
        std::vector<double> peaks;
        for (int i = 0; i < 3; ++i) peaks.push_back(gflops_peak(ctx, model));
        c.predicted_seconds = cost::predicted_seconds(
            read, {.read_gbps = c.ceiling, .product_gflops = perf::median(peaks)});
        if (drafts > 0) {
          std::vector<double> times;
          for (int i = 0; i < 5; ++i) {
            const Clock::time_point begin = Clock::now();
            pass.draft(drafts);
            times.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
          }
          c.draft_seconds = perf::median(times);
        }
        if (drafts == 0) plain = c.seconds;
        const double whole = c.seconds + c.draft_seconds;
        c.tokens_per_s = batch * (1 + drafts) / whole;
        c.plain_tokens_per_s = batch / whole;
        if (drafts > 0 && plain > 0) c.pays_from = break_even(drafts, plain, whole);
        cases.push_back(c);
      }
    }
  }
  return cases;
}

std::vector<InferBenchCase> bench_prefill(const Context& ctx, const model::Model& model,
                                          const InferBenchOptions& o,
                                          const BenchProgress& progress) {
  const cost::WeightBytes weights = cost::weight_bytes(model);
  std::vector<InferBenchCase> cases;
  const MemoryProbe reader(ctx);
  for (const int context : o.contexts) {
    for (const int prompt : o.prompts) {
      InferBenchCase c;
      c.kind = "prefill";
      c.context = context;
      c.prompt = prompt;
      progress(cat("prefill of ", prompt, " tokens after ", context));
      Pass pass(ctx, model, o, 1, context, prompt);
      model::Taps taps;
      pass.run(true, &taps);
      c.experts = experts_touched(taps);
      const bool absorbed =
          o.attention == model::AttentionMode::kAbsorbed ||
          (o.attention == model::AttentionMode::kAuto &&
           model::absorbed_is_cheaper(model::block_dims(model.config()), context, prompt));
      c.cost = cost::pass_cost(
          model.config(), weights,
          {.rows = prompt,
           .sequences = 1,
           .context = context,
           .logits = 1,
           .cache_bytes_per_token = static_cast<double>(pass.sequences.shape().bytes_per_token()),
           .absorbed = absorbed});
      const double work = 1e-9 * c.cost.useful_flops;
      const auto measured = perf::measure(
          {{"pass", [&] { pass.run(true); }}}, work,
          [&] {
            return perf::Ceilings{gflops_peak(ctx, model), 0};
          },
          o.turns);
      put(c, measured.front(), work);
      c.tokens_per_s = prompt / c.seconds;
      std::vector<double> reads;
      for (int i = 0; i < 3; ++i) reads.push_back(reader.gbps());
      c.predicted_seconds = cost::predicted_seconds(
          c.cost, {.read_gbps = perf::median(reads), .product_gflops = c.ceiling});
      cases.push_back(c);
    }
  }
  return cases;
}

}  // namespace cachalot::infer
