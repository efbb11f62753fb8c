// What a recipe's single ranges cannot say: values that contradict each other.
#include <utility>

#include "base/checker.h"
#include "kernels/adamw.h"
#include "train/recipe.h"

namespace cachalot::train {

namespace {

// The system would cut such a name short and open another file.
void check_name(const std::string& name, const Checker& check) {
  check.need(name.find('\0') == std::string::npos, "a file name with a NUL character");
}

void check_model(const ModelRecipe& m, const Checker& check) {
  check_name(m.config, check);
  check_name(m.init_from, check);
  check.need(m.config.empty() || m.init_from.empty(),
             "model.config and model.init_from are both given; give one");
  check.need(m.init_from.empty() || m.init_std == ModelRecipe{}.init_std,
             "model.init_std draws weights, and model.init_from gives them; remove one of the two");
  check.need(m.init_from.empty() || m.init_embedding_mean == 0,
             "model.init_embedding_mean draws weights, and model.init_from gives them; remove one "
             "of the two");
  if (!m.has_inline_sizes()) return;
  check.need(m.qk_rope_head_dim % 2 == 0, "model.qk_rope_head_dim = ", m.qk_rope_head_dim,
             "; rotary pairs need an even number");
  check.need(m.first_k_dense_replace <= m.num_hidden_layers,
             "model.first_k_dense_replace = ", m.first_k_dense_replace,
             " is more than num_hidden_layers = ", m.num_hidden_layers);
  check.need((m.scoring_func == Scoring::kSigmoid) == (m.topk_method == TopkMethod::kNoauxTc),
             "model.scoring_func and model.topk_method do not fit; sigmoid goes with noaux_tc, "
             "softmax with greedy or group_limited_greedy");
  if (m.n_routed_experts == 0) return;
  check.need(m.num_experts_per_tok <= m.n_routed_experts,
             "model.num_experts_per_tok = ", m.num_experts_per_tok,
             " is more than n_routed_experts = ", m.n_routed_experts);
  if (m.topk_method == TopkMethod::kGreedy) return;  // looks at no groups, as in a config.json
  check.need(m.n_routed_experts % m.n_group == 0, "model.n_routed_experts = ", m.n_routed_experts,
             " cannot be split into n_group = ", m.n_group, " equal groups");
  check.need(m.topk_group <= m.n_group, "model.topk_group = ", m.topk_group,
             " is more than n_group = ", m.n_group);
  const std::int64_t reachable = std::int64_t{m.topk_group} * (m.n_routed_experts / m.n_group);
  check.need(m.num_experts_per_tok <= reachable,
             "model.num_experts_per_tok = ", m.num_experts_per_tok,
             ", but topk_group = ", m.topk_group, " groups hold only ", reachable, " experts");
}

// Keys about text, beside data that is no text.
void check_text_keys(const DataRecipe& d, const Checker& check) {
  if (!d.corpus.empty()) return;
  const char* source = !d.conversations.empty() ? "data.conversations"
                       : d.tokens.empty()       ? "data.random_tokens"
                                                : "data.tokens";
  check.need(d.document_separator.empty(),
             "data.document_separator is about text, and the data is ", source);
  if (!d.conversations.empty()) return;
  const char* rest = d.tokens.empty() ? "" : "; a second token file is the held-out one";
  check.need(d.validation_fraction == DataRecipe{}.validation_fraction,
             "data.validation_fraction cuts a text, and the data is ", source, rest);
}

void check_conversations(const DataRecipe& d, const Checker& check) {
  check.need(d.held_out_conversations.empty() || !d.conversations.empty(),
             "data.held_out_conversations needs data.conversations to train on");
  if (d.conversations.empty()) return;
  check.need(
      d.held_out_conversations.empty() || d.validation_fraction == DataRecipe{}.validation_fraction,
      "data.held_out_conversations and data.validation_fraction both say what is held out; "
      "remove one of the two");
}

void check_data(const Recipe& recipe, const Checker& check) {
  const DataRecipe& d = recipe.data;
  check_name(d.tokenizer, check);
  const int sources = (d.corpus.empty() ? 0 : 1) + (d.tokens.empty() ? 0 : 1) +
                      (d.conversations.empty() ? 0 : 1) + (d.random_tokens > 0 ? 1 : 0);
  check.need(sources > 0,
             "nothing to train on; name text files in data.corpus, conversations in "
             "data.conversations or token files in data.tokens");
  check.need(sources == 1,
             "of data.corpus, data.conversations, data.tokens and data.random_tokens more than one "
             "is given; give one");
  check.need(
      d.random_tokens == 0 || (recipe.model.vocab_size > 0 && recipe.model.has_inline_sizes()),
      "data.random_tokens needs the model's sizes in the recipe, model.vocab_size among them");
  for (const auto* names : {&d.corpus, &d.tokens, &d.conversations, &d.held_out_conversations}) {
    for (const std::string& name : *names) {
      check.need(!name.empty(), "data has an empty file name");
      check_name(name, check);
    }
  }
  check.need(d.tokenizer.empty() || d.train_bpe == 0,
             "data.tokenizer and data.train_bpe are both given; give one");
  check.need(d.train_bpe == 0 || !d.corpus.empty(),
             "data.train_bpe needs text in data.corpus to train on");
  // Byte-level BPE starts from the 256 bytes, 3 special tokens and 2 of the chat.
  check.need(d.train_bpe == 0 || d.train_bpe == kByteVocabulary || d.train_bpe >= 261,
             "data.train_bpe = ", d.train_bpe,
             "; a byte-level vocabulary has at least 261 entries, or is 256: the bytes alone");
  check.need(d.end_documents || !d.corpus.empty(),
             "data.end_documents is about text, and data.corpus names none");
  if (d.random_tokens > 0) {
    check.need(d.tokenizer.empty() && d.train_bpe == 0,
               "data.random_tokens has no text, so no tokenizer: leave data.tokenizer and "
               "data.train_bpe out");
  } else if (recipe.model.init_from.empty()) {
    check.need(!d.tokenizer.empty() || d.train_bpe > 0,
               "no tokenizer; give data.tokenizer (a folder) or data.train_bpe (a size)");
  } else {
    check.need(d.train_bpe == 0,
               "data.train_bpe cannot be with model.init_from: its weights know its own tokenizer");
  }
  if (recipe.model.has_inline_sizes()) {
    check.need(
        d.seq_len <= recipe.model.max_position_embeddings, "data.seq_len = ", d.seq_len,
        " is more than model.max_position_embeddings = ", recipe.model.max_position_embeddings);
  }
  check_text_keys(d, check);
  check_conversations(d, check);
}

void check_optimizer(const Recipe& recipe, const Checker& check) {
  const OptimizerRecipe& o = recipe.optimizer;
  const DType moments = recipe.moment_type();
  for (const auto& [name, beta] : {std::pair{"beta1", o.beta1}, std::pair{"beta2", o.beta2}}) {
    check.need(moments_can_decay(moments, beta), "optimizer.", name, " = ", beta,
               " with moments kept in bf16: a step would change them by less than bf16 can hold, "
               "and they would never fall. At most 0.99609375 is possible (1 - 2^-8); else set "
               "optimizer.moments = \"f32\"");
  }
}

void check_schedule(const Recipe& recipe, const Checker& check) {
  const ScheduleRecipe& s = recipe.schedule;
  check.need(
      s.epochs == 0 || s.steps == ScheduleRecipe{}.steps,
      "schedule.epochs and schedule.steps both say how long to train; remove one of the two");
  check.need(
      s.epochs == 0 || recipe.run.fit_minutes == 0,
      "schedule.epochs and run.fit_minutes both say how long to train; remove one of the two");
  check.need(s.epochs > 0 || s.warmup_steps + s.constant_steps <= s.steps,
             "schedule.warmup_steps = ", s.warmup_steps, " and constant_steps = ", s.constant_steps,
             " are together more than steps = ", s.steps);
  check.need(s.batch_start <= s.batch, "schedule.batch_start = ", s.batch_start,
             " is more than batch = ", s.batch);
  check.need((s.batch_start > 0) == (s.ramp_steps > 0),
             "schedule.batch_start and ramp_steps describe one ramp; give both or neither");
  check.need(s.micro_batch == 0 || s.batch % s.micro_batch == 0, "schedule.batch = ", s.batch,
             " is not a multiple of micro_batch = ", s.micro_batch);
}

void check_run(const Recipe& recipe, const Checker& check) {
  check.need(recipe.run.eval_stride <= recipe.data.seq_len,
             "run.eval_stride = ", recipe.run.eval_stride,
             " is more than data.seq_len = ", recipe.data.seq_len,
             ": the tokens between two windows would not be scored");
}

void check_loss(const Recipe& recipe, const Checker& check) {
  const int batch = recipe.schedule.batch, micro = recipe.schedule.micro_batch;
  check.need(recipe.loss.balance_over == BalanceOver::kSequence || micro == 0 || micro == batch,
             "loss.balance_over = \"batch\" needs the whole batch in one pass, and "
             "schedule.micro_batch = ",
             micro, " of batch = ", batch,
             " cuts it; leave schedule.micro_batch out, or balance over \"sequence\"");
}

void check_numerics(const Recipe& recipe, const Checker& check) {
  const int interval = recipe.numerics.promotion_interval;
  check.need(
      interval % 32 == 0, "numerics.promotion_interval = ", interval,
      "; products are summed 32 at a time, so it has to be a multiple of 32, or 0 for never");
  check.need(recipe.numerics.accumulator == Accumulator::kHopper ||
                 interval == NumericsRecipe{}.promotion_interval,
             "numerics.promotion_interval = ", interval,
             " is about numerics.accumulator = \"hopper\"; with \"f32\" nothing is promoted");
  check.need(recipe.numerics.accumulator == Accumulator::kFloat || interval == 128 ||
                 recipe.numerics.scale == numeric::ScaleKind::kPow2 ||
                 recipe.numerics.scale == numeric::ScaleKind::kOfficialUe8m0,
             "numerics.promotion_interval = ", interval,
             " goes on past the end of a scale's block, which needs scales that are powers of two: "
             "numerics.scale pow2 or official_ue8m0");
  if (recipe.run.precision == RecipePrecision::kFp8) return;
  const NumericsRecipe& n = recipe.numerics;
  const NumericsRecipe unset;
  const auto only_fp8 = [&](std::string_view key, bool given) {
    check.need(!given, "numerics.", key,
               " is given, but only run.precision = \"fp8\" uses it; give both or neither");
  };
  only_fp8("scale", n.scale != unset.scale);
  only_fp8("activation_tile", n.activation_tile != unset.activation_tile);
  only_fp8("gradient_tile", n.gradient_tile != unset.gradient_tile);
  only_fp8("weight_tile", n.weight_tile != unset.weight_tile);
  only_fp8("accumulator", n.accumulator != unset.accumulator);
  only_fp8("promotion_interval", n.promotion_interval != unset.promotion_interval);
}

}  // namespace

void validate(const Recipe& recipe, const std::string& file_name) {
  const Checker check(file_name);
  check_model(recipe.model, check);
  check_data(recipe, check);
  check_optimizer(recipe, check);
  check_schedule(recipe, check);
  check_run(recipe, check);
  check_loss(recipe, check);
  check_numerics(recipe, check);
}

}  // namespace cachalot::train
