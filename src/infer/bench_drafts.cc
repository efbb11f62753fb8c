#include "infer/bench_drafts.h"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "cost/pass.h"
#include "infer/bench_infer.h"

namespace cachalot::infer {

namespace {

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Experts that passes behind the prompt read, per layer. Counted in the turn that is not timed.
class ExpertCount {
 public:
  bool active = false;

  // Which experts one layer chose for the rows of a pass.
  void hear(MatView<const std::int32_t> chosen) {
    if (!active) return;
    ids_.clear();
    for (int i = 0; i < chosen.rows; ++i) {
      ids_.insert(ids_.end(), chosen.row(i), chosen.row(i) + chosen.cols);
    }
    std::sort(ids_.begin(), ids_.end());
    sum_ += std::unique(ids_.begin(), ids_.end()) - ids_.begin();
    ++layers_;
  }
  double mean() const {
    return layers_ > 0 ? static_cast<double>(sum_) / static_cast<double>(layers_) : 0;
  }

 private:
  std::vector<std::int32_t> ids_;
  std::int64_t sum_ = 0, layers_ = 0;
};

// One way to answer, with an engine of its own: what `auto` has learned stays from turn to turn.
struct Way {
  MtpMode mode;
  int drafts;
  std::unique_ptr<ExpertCount> experts;  // the engine reports to it
  std::unique_ptr<Engine> engine;
  std::vector<double> speed, cpu;  // tokens/s and seconds per token, of each turn
  MtpStats mtp;
  std::int64_t tokens = 0;  // after the first of each turn
};

void check(const model::Model& model, const DraftBenchOptions& o) {
  if (!model.has_mtp()) {
    throw Error(Code::kUsage, "this model has no MTP layer, so there is nothing to draft with");
  }
  if (o.request.max_tokens < 2 || o.request.n != 1) {
    throw Error(Code::kUsage, cat("drafts are measured on one answer of at least two tokens, but ",
                                  o.request.n, " of ", o.request.max_tokens, " are asked for"));
  }
  for (const int length : o.lengths) {
    if (length >= 1 && length <= kMaxDrafts) continue;
    throw Error(Code::kUsage, cat("a pass with ", length, " drafts is asked for, but 1 to ",
                                  kMaxDrafts, " can be made"));
  }
}

std::vector<Way> ways(const Context& ctx, const model::Model& model, const DraftBenchOptions& o) {
  std::vector<Way> all;
  const LatentFormat format =
      o.engine.cache.value_or(model::default_cache_format(model.precision()));
  // One text at a time, with the rows of its drafts, and as much again: pages are never short.
  const int rows = static_cast<int>(o.request.prompt.size()) + o.request.max_tokens + kMaxDrafts;
  const std::size_t cache = model::CachePool::bytes_for(model.config(), format, rows, 2);
  const auto add = [&](MtpMode mode, int drafts) {
    EngineConfig config = o.engine;
    config.mtp = mode;
    config.draft_length = std::max(1, drafts);
    config.kept_texts = 0;  // every turn reads the prompt, as the first one does
    config.store = nullptr;
    config.cache_bytes = cache;
    auto experts = std::make_unique<ExpertCount>();
    const int layers = model.config().num_hidden_layers;  // the MTP layer comes behind them
    config.on_routing = [count = experts.get(), layers](std::int64_t, int layer,
                                                        MatView<const std::int32_t> chosen) {
      if (layer < layers) count->hear(chosen);
    };
    all.push_back({mode,
                   drafts,
                   std::move(experts),
                   std::make_unique<Engine>(ctx, model, config),
                   {},
                   {},
                   {},
                   0});
  };
  add(MtpMode::kOff, 0);
  for (const int length : o.lengths) add(MtpMode::kOn, length);
  add(MtpMode::kAuto, 0);
  return all;
}

void answer(Way& way, const Request& asked, bool counts, std::vector<std::int32_t>& want) {
  Request request = asked;
  double begin = 0;
  request.on_token = [&](const NewToken&) {
    if (begin == 0) begin = cpu_seconds();
    way.experts->active = !counts;  // the prompt is read
    return true;
  };
  const Result result = way.engine->run(request);
  way.experts->active = false;
  const double cpu = cpu_seconds() - begin;
  if (want.empty()) want = result.tokens();
  if (result.tokens() != want) {
    throw Error(Code::kInternal,
                cat("the answer with --mtp ", name(way.mode),
                    " differs from that without drafts; please report this with the model"));
  }
  if (!counts) return;
  const auto after_first = static_cast<double>(result.tokens().size() - 1);
  way.speed.push_back(result.timings.decode_tokens_per_s());
  way.cpu.push_back(cpu / after_first);
  way.mtp.add(result.mtp());
  way.tokens += static_cast<std::int64_t>(after_first);
}

// a / b, turn by turn.
double median_ratio(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < a.size(); ++i) ratios.push_back(a[i] / b[i]);
  return perf::median(ratios);
}

DraftBenchCase summary(const Way& way, const Way& off) {
  DraftBenchCase c;
  c.mode = way.mode;
  c.drafts = way.drafts;
  c.tokens_per_s = perf::median(way.speed);
  c.cpu_seconds = perf::median(way.cpu);
  c.gain = median_ratio(way.speed, off.speed);
  c.cpu_gain = median_ratio(off.cpu, way.cpu);
  if (way.mtp.passes > 0) {
    c.tokens_per_pass = static_cast<double>(way.tokens) / static_cast<double>(way.mtp.passes);
  }
  const EngineStats stats = way.engine->stats();
  const auto passes = static_cast<double>(std::max<std::int64_t>(1, stats.passes));
  c.pass_seconds = stats.pass_seconds / passes;
  c.draft_seconds = stats.draft_seconds / passes;
  c.experts = way.experts->mean();
  for (std::size_t j = 0; j < way.mtp.drafted_at.size() && way.mtp.drafted_at[j] > 0; ++j) {
    c.right.push_back(static_cast<double>(way.mtp.accepted_at[j]) /
                      static_cast<double>(way.mtp.drafted_at[j]));
  }
  return c;
}

// What a pass of the text takes by what one of random tokens took, if reading is what takes time.
double seconds_of_text(const model::Model& model, const InferBenchCase& pass, double experts) {
  if (experts == 0) return pass.seconds;
  const cost::WeightBytes weights = cost::weight_bytes(model);
  const double layer = weights.moe_layers * weights.expert;
  // cost's bytes are those of the experts that it expects.
  const double dense = pass.cost.bytes() - layer * pass.cost.experts;
  return pass.seconds * (dense + layer * experts) / (dense + layer * pass.experts);
}

// Passes of these sizes by themselves, half way through the answer.
void predict(const Context& ctx, const model::Model& model, const DraftBenchOptions& o,
             std::vector<DraftBenchCase>& cases, const BenchProgress& progress) {
  InferBenchOptions passes;
  passes.turns = {.turns = 5, .limit_seconds = 2, .turn_seconds = 0.03};
  passes.cache = o.engine.cache.value_or(model::default_cache_format(model.precision()));
  passes.attention = o.engine.attention;
  passes.batches = {1};
  const int most = model.config().max_position_embeddings - 1 - kMaxDrafts;
  const int middle = static_cast<int>(o.request.prompt.size()) + o.request.max_tokens / 2;
  passes.contexts = {std::clamp(middle, 0, std::max(0, most))};
  for (const int length : o.lengths) passes.drafts.push_back(length);
  const auto measured = bench_decode(ctx, model, passes, progress);
  const double plain = seconds_of_text(model, measured.front(), cases.front().experts);
  for (DraftBenchCase& c : cases) {
    if (c.mode != MtpMode::kOn) continue;
    for (const InferBenchCase& pass : measured) {
      if (pass.drafts != c.drafts) continue;
      const double seconds = seconds_of_text(model, pass, c.experts) + pass.draft_seconds;
      c.predicted_gain = tokens_of_pass(c.right) * plain / seconds;
    }
  }
}

}  // namespace

double tokens_of_pass(std::span<const double> right) {
  double sum = 1, chain = 1;
  for (const double share : right) sum += (chain *= share);
  return sum;
}

DraftBenchResult bench_drafts(const Context& ctx, const model::Model& model,
                              const DraftBenchOptions& o,
                              const std::function<void(const std::string&)>& progress) {
  check(model, o);
  Request request = o.request;
  request.eos.clear();
  request.stop.clear();
  std::vector<Way> all = ways(ctx, model, o);
  DraftBenchResult result;
  for (int turn = 0; turn <= o.turns; ++turn) {
    progress(fmt::format("turn {} of {}", turn, o.turns));
    // Each begins with another way, so that none always comes after the same one.
    for (std::size_t i = 0; i < all.size(); ++i) {
      Way& way = all[turn == 0 ? i : (i + static_cast<std::size_t>(turn)) % all.size()];
      answer(way, request, turn > 0, result.tokens);
    }
  }
  for (const Way& way : all) result.cases.push_back(summary(way, all.front()));
  const auto best = std::max_element(
      result.cases.begin(), result.cases.end() - 1,
      [](const DraftBenchCase& a, const DraftBenchCase& b) { return a.gain < b.gain; });
  const Way& other = all[static_cast<std::size_t>(best - result.cases.begin())];
  result.auto_of_best = median_ratio(all.back().speed, other.speed);
  result.auto_of_best_cpu = median_ratio(other.cpu, all.back().cpu);
  predict(ctx, model, o, result.cases, progress);
  return result;
}

}  // namespace cachalot::infer
