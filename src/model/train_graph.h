// One training micro-batch: forward, losses, backward, all written out.
//
// total = main + mtp_lambda * mtp + balance_alpha * balance
//   main:    mean over B * T positions of -log softmax(logits)[next token]
//   mtp:     mean over B * (T - 1) rows (V3 report eq. 24, normalised by its own rows)
//   balance: per MoE layer the mean over sequences (eq. 17-20), or over the micro-batch as one
//            sequence, summed over layers; sequences of several lengths count by their rows
// Of sequences whose tokens are not all learnt the first two are means over those that are.
// Owns:    activations, scratch and the losses it returns, reused from step to step. The first pass
//          of a size allocates what it needs; what follows the experts' load has room for every
//          load from then on, so that later passes of that size (or of fewer sequences) allocate
//          nothing.
// Threads: one caller per graph.
// Errors:  kUsage for token ids past the vocabulary.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/parameters.h"
#include "model/sequences.h"
#include "model/train_head.h"
#include "nn/block.h"

namespace cachalot::model {

struct LossOptions {
  float mtp_lambda = 0.3F;
  float balance_alpha = 1e-4F;
  bool balance_over_batch = false;  // the balance loss over the whole micro-batch, not per sequence
  LossShare share;
  // forward_backward only: dropout (nn/dropout.h), its seed, and the number in the run of the
  // micro-batch's first sequence, which with the seed determines the masks.
  double dropout = 0;
  std::uint64_t dropout_seed = 0;
  std::int64_t first_sequence = 0;
  // Numbers of rows that a sequence's number stands for; 0: as many as each has. Where sequences
  // are of several lengths they are numbered by the window that they came in
  // (text/packed_samples.h), and the masks depend on how windows are dealt into micro-batches.
  int rows_per_sequence = 0;
  // forward_backward only: gradients are written, whatever they were, instead of added to. For the
  // first micro-batch of a step, which then needs no zeroed gradients.
  bool fresh_gradients = false;
  // Rows of logits in memory at a time; 0: 32 MiB of them, but at least 512 rows.
  int head_rows = 0;
  // The first rows of each sequence are context: losses (but balance), counts and gradients are of
  // the rest; of the MTP layer from the row before on, which predicts the same tokens. 0 where
  // sequences say which tokens are learnt.
  int score_from = 0;
};

struct Losses {
  double main = 0;
  double mtp = 0;
  double balance = 0;
  double total = 0;
  std::int64_t main_correct = 0;  // argmax equals the next token
  std::int64_t mtp_correct = 0;   // MTP argmax equals the token after next
  std::int64_t mtp_accepted = 0;  // MTP argmax equals the main model's argmax one row later
  std::int64_t main_rows = 0;
  std::int64_t mtp_rows = 0;
  std::vector<double> balance_per_layer;  // MoE layers, the MTP layer last
  // Likewise, always of all of them: tokens routed to each expert.
  std::vector<std::vector<std::int64_t>> expert_load;
};

class TrainGraph {
 public:
  TrainGraph(const Context& ctx, const Config& config, const nn::Numerics& numerics);
  // Numerics::f32() or Numerics::bf16().
  TrainGraph(const Context& ctx, const Config& config, Precision precision);

  // tokens [B, T + 1], the host's. Adds the gradients of the weighted total to the parameters'
  // gradients, or writes them. The losses stand until the next pass.
  const Losses& forward_backward(Parameters& parameters, MatView<const std::int32_t> tokens,
                                 const LossOptions& options);
  const Losses& forward_backward(Parameters& parameters, const Sequences& sequences,
                                 const LossOptions& options);
  // The losses alone.
  const Losses& evaluate(Parameters& parameters, MatView<const std::int32_t> tokens,
                         const LossOptions& options);
  const Losses& evaluate(Parameters& parameters, const Sequences& sequences,
                         const LossOptions& options);

  // Bytes kept between forward and backward of the last micro-batch, by kind; and its tokens.
  nn::KeptBytes kept_bytes() const;
  std::int64_t tokens() const noexcept { return static_cast<std::int64_t>(inputs_.size()); }
  // The experts that a main layer, an MoE layer, chose in the last pass, [B * T, k], on the host.
  Mat<std::int32_t> chosen_experts(int layer) const;

 private:
  // Rows of the sequences of a pass: what does not depend on the tokens.
  struct Layout {
    nn::RopeRows rope;
    std::vector<AttentionSpan> spans;
    std::vector<int> runs;    // rows of each sequence that has some
    std::vector<int> tabled;  // what `runs` was when the tables were filled
    Mat<float> cos, sin;
  };

  const Losses& run(Parameters& parameters, const Sequences& sequences, const LossOptions& options,
                    bool backward);
  Sequences rows_of(MatView<const std::int32_t> tokens);
  void lay_out(Layout& out);
  void prepare(const Sequences& sequences, bool mtp, int score_from);
  void set_dropout(const Sequences& sequences, const LossOptions& options, bool backward);
  void begin_losses();
  void forward_main(const nn::Weights& w);
  void forward_mtp(const nn::MtpWeights& w);
  double backward_mtp(const nn::MtpWeights& w, const nn::MtpGradients& g,
                      const nn::BalanceTerm& balance);
  void backward_main(const nn::Weights& w, const nn::Gradients& g, const nn::BalanceTerm& balance);
  std::vector<std::int64_t>& next_load();
  void add_load(const ExpertOrder& order);
  void add_no_load();
  void zero_added_gradients(Parameters& parameters, bool mtp) const;
  double balance_of(const nn::BlockSaved& saved, std::span<const int> runs) const;
  void count_hits();
  // Dropout of a row's entry into the residual stream, forward and backward alike.
  void drop_entry(const nn::LayerDropout& drop, MatView<float> x) const;

  const Context& ctx_;
  Config config_;
  nn::BlockDims dims_;
  nn::Numerics num_;

  Layout layout_, mtp_layout_;
  Mat<float> cos_, sin_;              // of positions 0, 1, ...; the host's
  Mat<float> row_cos_, row_sin_;      // of the rows laid out last, on their way to the ops
  std::vector<std::int32_t> copied_;  // tokens and lengths of equal sequences
  std::vector<std::int32_t> lengths_;
  nn::LayerDropout drop_, mtp_drop_;  // of this pass; the first as of layer 0

  Losses losses_;
  std::size_t loads_ = 0;              // MoE layers whose load is in losses_
  std::vector<double> layer_balance_;  // of every layer

  std::vector<nn::BlockSaved> layers_;
  nn::BlockScratch scratch_;
  // [T, D]. The gradient of x_ takes the place of normed_; logits lie in the experts' rows.
  Mat<float> x_, normed_, dnormed_;
  Mat<float> norm_rstd_;  // [1, T]
  RowIndices inputs_;
  TrainHead head_;
  std::vector<std::int32_t> targets_, argmax_;  // of every row, or kNoTarget

  nn::BlockSaved mtp_block_;
  Mat<float> mtp_embed_, mtp_hidden_, mtp_joined_, mtp_x_, mtp_normed_, mtp_dnormed_, mtp_dx_,
      mtp_djoined_;
  Mat<float> enorm_rstd_, hnorm_rstd_, mtp_rstd_;
  RowIndices mtp_inputs_, mtp_rows_;
  std::vector<std::int32_t> mtp_targets_, mtp_argmax_;
};

}  // namespace cachalot::model
