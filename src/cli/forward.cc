// cachalot forward: everything one pass over a token list computes, as a safetensors file.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "cli/cache_options.h"
#include "cli/command.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "cli/output_file.h"
#include "cli/remarks.h"
#include "cli/session.h"
#include "io/safetensors.h"
#include "kernels/elementwise.h"
#include "model/forward.h"
#include "tensor/host_copy.h"

namespace cachalot::cli {

namespace {

struct Options {
  std::string model, tokens, out;
  std::string precision = "f32";
  std::string attention = "auto";
  CacheOptions cache;
};

model::AttentionMode parse_attention(const std::string& text) {
  if (text == "auto") return model::AttentionMode::kAuto;
  if (text == "naive") return model::AttentionMode::kNaive;
  if (text == "absorbed") return model::AttentionMode::kAbsorbed;
  throw Error(Code::kUsage,
              cat("--attention is `", text, "`, but must be naive, absorbed or auto"));
}

// Tensors to be written, with the memory of those that had to be put together.
class Dump {
 public:
  void add(const std::string& name, const Mat<float>& m) {
    tensors_.push_back({name, DType::kF32, {m.rows(), m.cols()}, m.data()});
  }
  void add(const std::string& name, const Mat<std::int32_t>& m) {
    std::vector<std::int64_t>& wide = ints_.emplace_back(m.span().begin(), m.span().end());
    tensors_.push_back({name, DType::kI64, {m.rows(), m.cols()}, wide.data()});
  }
  // Matrices of one shape, [n, rows, cols].
  void add(const std::string& name, const std::vector<Mat<float>>& layers) {
    std::vector<float>& all = floats_.emplace_back();
    for (const Mat<float>& m : layers) all.insert(all.end(), m.span().begin(), m.span().end());
    tensors_.push_back(
        {name,
         DType::kF32,
         {static_cast<std::int64_t>(layers.size()), layers.front().rows(), layers.front().cols()},
         all.data()});
  }
  void add(int layer, const model::LayerTap& tap) {
    const std::string p = "layer" + std::to_string(layer) + ".";
    add(p + "kv_c", tap.kv_c);
    add(p + "k_rope", tap.k_rope);
    if (tap.scores.size() == 0) return;  // a dense layer
    add(p + "scores", tap.scores);
    add(p + "topk_idx", tap.topk_idx);
    add(p + "topk_weight", tap.topk_weight);
  }
  const std::vector<io::TensorToWrite>& tensors() const noexcept { return tensors_; }

 private:
  std::vector<io::TensorToWrite> tensors_;
  std::vector<std::vector<std::int64_t>> ints_;  // moving a vector keeps its memory in place
  std::vector<std::vector<float>> floats_;
};

// Rows of a pass, kept where the model runs.
Mat<float> kept(const Context& ctx, MatView<const float> from) {
  const MemoryScope scope(ctx.device);
  Mat<float> rows;
  rows.resize(from.rows, from.cols);
  copy_rows(ctx, from, rows.view());
  return rows;
}

template <class F>
Mat<float> logits_of(const Context& ctx, int rows, int vocab, F&& compute) {
  const MemoryScope scope(ctx.device);
  Mat<float> out;
  out.resize(rows, vocab);
  compute(out.view());
  return host_copy(out.cview(), ctx.device);
}

// The results are written all the same: they may be looked at for where it went wrong.
void warn_unless_finite(const std::string& name, const Mat<float>& logits) {
  for (int row = 0; row < logits.rows(); ++row) {
    const float* begin = logits.row(row);
    const float* end = begin + logits.cols();
    const float* bad = std::find_if_not(begin, end, [](float x) { return std::isfinite(x); });
    if (bad == end) continue;
    spdlog::warn(
        "{} are not finite: row {} (of 0 to {}) is the first, with {} for token {}; the weights or "
        "the config.json are damaged, or the sums leave the range of floats",
        name, row, logits.rows() - 1, std::isnan(*bad) ? "NaN" : "infinity", bad - begin);
    return;
  }
}

void run(const Options& o, const Globals& globals) {
  check_output_file("--out", o.out);
  const std::vector<std::int32_t> tokens = parse_tokens(o.tokens);
  const model::AttentionMode attention = parse_attention(o.attention);
  const runtime::Runtime rt({.threads = globals.threads, .cpu = {}, .on_device = true});
  const Context& ctx = rt.context();
  const auto model =
      model::Model::load(o.model, load_options(o.model, o.precision, ctx, ModelUse::kOnce));
  say_remarks(model.remarks());
  const model::Config& config = model.config();
  const int rows = static_cast<int>(tokens.size());

  model::Forward forward(ctx, model, attention);
  const LatentFormat format =
      o.cache.latent_format().value_or(model::default_cache_format(model.precision()));
  model::CachePool pool(config, format, model::CachePool::bytes_for(config, format, rows),
                        ctx.device);
  model::LatentCache cache(pool);
  const model::Chunk chunk{tokens, &cache};
  model::Taps taps, mtp_taps;
  const Mat<float> normed = kept(ctx, forward.run({&chunk, 1}, &taps));
  const Mat<float> final_norm = host_copy(normed.cview(), ctx.device);
  const Mat<float> logits = logits_of(
      ctx, rows, config.vocab_size, [&](MatView<float> to) { forward.logits(normed.cview(), to); });
  Mat<float> mtp_logits, mtp_hidden;

  Dump dump;
  dump.add("logits", logits);
  dump.add("hidden", taps.hidden);
  dump.add("final_norm", final_norm);
  for (std::size_t i = 0; i < taps.layers.size(); ++i) {
    dump.add(static_cast<int>(i), taps.layers[i]);
  }
  if (model.has_mtp() && rows > 1) {
    const model::Chunk next{std::span(tokens).subspan(1), &cache};
    const MatView<const float> out =
        forward.run_mtp({&next, 1}, normed.cview().sub_rows(0, rows - 1), &mtp_taps);
    mtp_hidden = host_copy(out, ctx.device);
    mtp_logits = logits_of(ctx, rows - 1, config.vocab_size,
                           [&](MatView<float> to) { forward.mtp_logits(out, to); });
    dump.add("mtp.logits", mtp_logits);
    dump.add("mtp.hidden", mtp_hidden);
    dump.add(config.num_hidden_layers, mtp_taps.layers.front());
  }
  io::write_safetensors(o.out, dump.tensors(),
                        {{"precision", o.precision}, {"attention", o.attention}});
  warn_unless_finite("logits", logits);
  warn_unless_finite("mtp.logits", mtp_logits);
  if (globals.json) {
    Json shapes = Json::object();
    for (const io::TensorToWrite& t : dump.tensors()) shapes[t.name] = t.shape;
    print_json({{"out", o.out}, {"tokens", rows}, {"tensors", shapes}});
  } else {
    print_line(fmt::format("{}: {} tensors of {} tokens", o.out, dump.tensors().size(), rows));
  }
}

}  // namespace

void add_forward(CLI::App& root, Globals& globals) {
  CLI::App* command = add_command(root, globals, "forward",
                                  "Write logits, hidden states, latent rows and routing of a pass");
  auto o = std::make_shared<Options>();
  add_model_folder(command, o->model);
  command->add_option("--tokens", o->tokens, "Token ids, as they are: LIST or @FILE")
      ->required()
      ->type_name("1,2,3");
  add_output_file(*command, "--out", o->out, "File to write")
      ->required()
      ->type_name("FILE.safetensors");
  add_precision(command, o->precision);
  add_kv_cache(command, o->cache);
  command
      ->add_option(
          "--attention", o->attention,
          "naive: keys and values rebuilt; absorbed: over the latent rows themselves; auto: "
          "the cheaper one")
      ->check(CLI::IsMember({"auto", "naive", "absorbed"}))
      ->type_name("auto|naive|absorbed");
  on_run(command, globals, o, run);
}

}  // namespace cachalot::cli
