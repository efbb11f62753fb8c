#include "train/compare_gradients.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <span>

#include "base/rng.h"
#include "model/optimizer.h"
#include "model/train_graph.h"
#include "tensor/host_copy.h"
#include "train/memory_bound.h"
#include "train/run_model.h"
#include "train/schedule.h"

namespace cachalot::train {

namespace {

// "model.layers.3.mlp.experts.17.up_proj.weight" without its beginning and its numbers.
std::string kind_of(std::string name) {
  if (name.starts_with("model.")) name.erase(0, 6);
  std::string out;
  for (std::size_t i = 0; i < name.size(); ++i) {
    const bool digit = name[i] >= '0' && name[i] <= '9';
    if (!digit || (i > 0 && name[i - 1] != '.' && name[i - 1] != '*')) {
      out += name[i];
    } else if (out.back() != '*') {
      out += '*';
    }
  }
  return out;
}

struct Sums {
  double ab = 0, aa = 0, bb = 0;
  void add(const Sums& o) {
    ab += o.ab;
    aa += o.aa;
    bb += o.bb;
  }
  double cosine() const { return ab / std::sqrt(aa * bb); }
  double ratio() const { return std::sqrt(bb / aa); }
  bool some() const { return aa > 0; }
};

Sums sums_of(const Context& ctx, std::span<const float> a, std::span<const float> b) {
  constexpr std::int64_t kPiece = 1 << 18;
  const auto n = static_cast<std::int64_t>(a.size());
  std::vector<Sums> pieces(static_cast<std::size_t>((n + kPiece - 1) / kPiece));
  ctx.for_each(static_cast<std::int64_t>(pieces.size()), 1, [&](std::int64_t p) {
    Sums& s = pieces[static_cast<std::size_t>(p)];
    const std::int64_t end = std::min(n, (p + 1) * kPiece);
    for (std::int64_t i = p * kPiece; i < end; ++i) {
      const auto x = static_cast<double>(a[static_cast<std::size_t>(i)]);
      const auto y = static_cast<double>(b[static_cast<std::size_t>(i)]);
      s.ab += x * y;
      s.aa += x * x;
      s.bb += y * y;
    }
  });
  Sums all;
  for (const Sums& s : pieces) all.add(s);
  return all;
}

void note(GradientAgreement& k, const Sums& s, const std::string& name) {
  ++k.parameters;
  if (!s.some()) return;
  // A NaN is the worst there is.
  if (!(s.cosine() >= k.worst_cosine)) {
    k.worst_cosine = s.cosine();
    k.worst = name;
  }
  k.least_ratio = std::min(k.least_ratio, s.ratio());
  k.most_ratio = std::max(k.most_ratio, s.ratio());
}

void close(GradientAgreement& k, const Sums& s) {
  if (!s.some()) return;
  k.norm = std::sqrt(s.aa);
  k.cosine = s.cosine();
  k.ratio = s.ratio();
}

// The case that the steps before are trained by.
std::size_t trained_by(const std::vector<GradientCase>& cases) {
  return std::min<std::size_t>(1, cases.size() - 1);
}

// Before memory is taken for any of it.
void check_memory_of_cases(const std::vector<GradientCase>& cases, const model::Config& config,
                           const GradientOptions& options, double memory) {
  for (std::size_t i = 0; i < cases.size(); ++i) {
    Recipe recipe = cases[i].recipe;
    // Without an optimiser there are copies of the gradients in the place of the moments: of four
    // bytes at least, which is what moments in bf16 take.
    const bool has_moments = options.steps > 0 && i == trained_by(cases);
    if (!has_moments) recipe.optimizer.moments = MomentType::kBf16;
    check_memory(recipe, config, micro_batch_size(recipe, recipe.schedule.steps - 1), memory);
  }
}

// One model, which any of the cases computes with.
class Study {
 public:
  Study(const runtime::Runtime& runtime, const Recipe& recipe, const model::Config& config,
        const GradientOptions& options)
      : options_(options),
        ctx_(runtime.context()),
        config_(config),
        parameters_(config_, ctx_.device),
        seed_(static_cast<std::uint64_t>(recipe.run.seed)) {
    initialise(ctx_, recipe, parameters_);
    if (!options.hold_routing) return;
    for (model::RouterBias& b : parameters_.biases()) {
      std::fill_n(b.value.begin(), config_.route.topk, 100.0F);
    }
  }

  void train(const Recipe& recipe, int steps) {
    model::Optimizer optimizer(parameters_, {recipe.moment_type(), 0});
    model::TrainGraph graph(ctx_, config_, recipe.resolved_numerics());
    for (int step = 0; step < steps; ++step) {
      one_step(graph, recipe, step);
      model::OptimizerStep o;
      o.adamw = {learning_rate(recipe, step), recipe.optimizer.beta1, recipe.optimizer.beta2,
                 recipe.optimizer.eps, recipe.optimizer.weight_decay};
      o.clip_norm = recipe.optimizer.clip_norm;
      o.bias_gamma = options_.hold_routing ? 0 : recipe.loss.bias_gamma;
      optimizer.step(ctx_, parameters_, load_, o);
    }
  }

  // The gradients of a step in `gradients`, and the experts that tokens of its last micro-batch
  // chose.
  GradientComparison compute(const GradientCase& c, Mat<float>& gradients,
                             std::vector<std::int32_t>& chosen) {
    model::TrainGraph graph(ctx_, config_, c.recipe.resolved_numerics());
    GradientComparison out;
    out.name = c.name;
    one_step(graph, c.recipe, options_.steps);
    out.loss = loss_;
    out.mtp_loss = mtp_loss_;
    const std::span<const float> g = std::as_const(parameters_).gradients();
    constexpr int kRow = 1 << 12;
    const MatView<const float> view{g.data(), static_cast<int>(g.size() / kRow), kRow, kRow};
    gradients = host_copy(view, ctx_.device);
    chosen.clear();
    for (int l = 0; l < config_.num_hidden_layers; ++l) {
      if (!config_.is_moe_layer(l)) continue;
      Mat<std::int32_t> index = graph.chosen_experts(l);
      for (int t = 0; t < index.rows(); ++t) {
        std::sort(index.row(t), index.row(t) + index.cols());
      }
      chosen.insert(chosen.end(), index.data(), index.data() + index.size());
    }
    return out;
  }

  void compare(const Mat<float>& want, const Mat<float>& got, GradientComparison& out) const {
    std::map<std::string, std::size_t> place;
    std::vector<Sums> sums;
    GradientAgreement all;
    Sums all_sums;
    all.kind = "all";
    for (const model::Parameter& p : parameters_.list()) {
      const std::string kind = kind_of(p.name);
      const auto [at, fresh] = place.emplace(kind, out.kinds.size());
      if (fresh) {
        out.kinds.emplace_back().kind = kind;
        sums.emplace_back();
      }
      const auto n = static_cast<std::size_t>(p.size());
      const Sums s = sums_of(ctx_, {want.data() + p.offset, n}, {got.data() + p.offset, n});
      note(out.kinds[at->second], s, p.name);
      note(all, s, p.name);
      sums[at->second].add(s);
      all_sums.add(s);
    }
    for (std::size_t i = 0; i < sums.size(); ++i) close(out.kinds[i], sums[i]);
    close(all, all_sums);
    out.kinds.push_back(all);
    out.norm = std::sqrt(all_sums.bb);
  }

 private:
  void one_step(model::TrainGraph& graph, const Recipe& recipe, std::int64_t step) {
    const int batch = recipe.schedule.batch;
    const int micro = micro_batch_size(recipe, recipe.schedule.steps - 1);
    loss_ = mtp_loss_ = 0;
    load_.clear();
    for (int done = 0; done < batch; done += micro) {
      const int n = std::min(micro, batch - done);
      draw(step * batch + done, n, recipe.data.seq_len + 1);
      model::LossOptions options;
      options.mtp_lambda = static_cast<float>(recipe.loss.mtp_lambda);
      options.balance_alpha = static_cast<float>(recipe.loss.balance_alpha);
      options.balance_over_batch = recipe.loss.balance_over == BalanceOver::kBatch;
      options.share = model::LossShare::equal(static_cast<float>(n) / static_cast<float>(batch));
      options.fresh_gradients = done == 0;
      const model::Losses& l = graph.forward_backward(parameters_, tokens_.cview(), options);
      loss_ += l.main * n / batch;
      mtp_loss_ += l.mtp * n / batch;
      load_.resize(l.expert_load.size());
      for (std::size_t i = 0; i < load_.size(); ++i) {
        load_[i].resize(l.expert_load[i].size());
        for (std::size_t e = 0; e < load_[i].size(); ++e) load_[i][e] += l.expert_load[i][e];
      }
    }
  }

  void draw(std::int64_t first, int sequences, int length) {
    tokens_.resize(sequences, length);
    const Rng rng(seed_, 77);
    const auto n = static_cast<std::size_t>(length);
    if (!options_.text.empty() && options_.text.size() < n) {
      throw Error(Code::kUsage, cat("the text has ", options_.text.size(), " bytes; a sequence of ",
                                    length, " tokens is needed: give a longer one"));
    }
    for (int s = 0; s < sequences; ++s) {
      const auto at = static_cast<std::uint64_t>(first + s);
      for (std::size_t i = 0; i < n; ++i) {
        std::int32_t& to = tokens_.row(s)[i];
        if (options_.text.empty()) {
          to = static_cast<std::int32_t>(
              rng.below(at * n + i, static_cast<std::uint64_t>(config_.vocab_size)));
        } else {
          const std::size_t begin = rng.below(at, options_.text.size() - n + 1);
          to = static_cast<unsigned char>(options_.text[begin + i]);
        }
      }
    }
  }

  const GradientOptions& options_;
  const Context& ctx_;
  model::Config config_;
  model::Parameters parameters_;
  std::uint64_t seed_;
  Mat<std::int32_t> tokens_;
  double loss_ = 0, mtp_loss_ = 0;
  std::vector<std::vector<std::int64_t>> load_;
};

}  // namespace

std::vector<GradientComparison> compare_gradients(
    const runtime::Runtime& runtime, const std::vector<GradientCase>& cases, int vocab_size,
    const GradientOptions& options, const std::function<void(const std::string&)>& progress) {
  const Recipe& recipe = cases.front().recipe;
  const model::Config config = model_config(recipe, {.vocab_size = vocab_size});
  check_memory_of_cases(cases, config, options, memory_to_check(runtime.context()));
  Study study(runtime, recipe, config, options);
  if (options.steps > 0) {
    const GradientCase& by = cases[trained_by(cases)];
    progress(cat(options.steps, " steps of training as ", by.name));
    study.train(by.recipe, options.steps);
  }
  std::vector<GradientComparison> out;
  Mat<float> want, got;
  std::vector<std::int32_t> want_chosen, chosen;
  for (const GradientCase& c : cases) {
    progress(cat("gradients as ", c.name));
    const bool first = out.empty();
    GradientComparison one = study.compute(c, first ? want : got, first ? want_chosen : chosen);
    study.compare(want, first ? want : got, one);
    if (!first && !chosen.empty()) {
      std::size_t same = 0;
      for (std::size_t i = 0; i < chosen.size(); ++i) same += chosen[i] == want_chosen[i];
      one.same_experts = static_cast<double>(same) / static_cast<double>(chosen.size());
    }
    out.push_back(std::move(one));
  }
  return out;
}

}  // namespace cachalot::train
