#include "model/config.h"

#include <array>
#include <cmath>

#include "base/atomic_file.h"

namespace cachalot::model {

namespace {

// What any released model needs times 8 or more, and small enough that products of two sizes stay
// in an int where `check_products` does not say otherwise.
struct IntField {
  const char* name;
  int Config::*member;
  int min;
  int max;
};
constexpr std::array kIntFields{
    IntField{"vocab_size", &Config::vocab_size, 1, 1 << 24},
    IntField{"hidden_size", &Config::hidden_size, 1, 1 << 20},
    IntField{"intermediate_size", &Config::intermediate_size, 1, 1 << 22},
    IntField{"num_hidden_layers", &Config::num_hidden_layers, 1, 1 << 14},
    IntField{"first_k_dense_replace", &Config::first_k_dense_replace, 0, 1 << 14},
    IntField{"moe_layer_freq", &Config::moe_layer_freq, 1, 1 << 14},
    IntField{"num_attention_heads", &Config::num_attention_heads, 1, 1 << 14},
    IntField{"q_lora_rank", &Config::q_lora_rank, 0, 1 << 20},
    IntField{"kv_lora_rank", &Config::kv_lora_rank, 1, 1 << 20},
    IntField{"qk_nope_head_dim", &Config::qk_nope_head_dim, 1, 1 << 16},
    IntField{"qk_rope_head_dim", &Config::qk_rope_head_dim, 2, 1 << 16},
    IntField{"v_head_dim", &Config::v_head_dim, 1, 1 << 16},
    IntField{"n_shared_experts", &Config::n_shared_experts, 0, 1 << 10},
    IntField{"num_nextn_predict_layers", &Config::num_nextn_predict_layers, 0, 64},
    IntField{"max_position_embeddings", &Config::max_position_embeddings, 1, 1 << 30},
};
constexpr int kMaxMoeWidth = 1 << 22;
constexpr int kMaxExperts = 1 << 16;
// Of all parameters, so that no count of elements or bytes passes 63 bits.
constexpr double kMaxParameters = 0x1p53;

class Checker {
 public:
  explicit Checker(const std::string& file) : file_(file) {}

  [[noreturn]] void fail(const std::string& text) const {
    throw Error(Code::kConfig, cat(file_, ": ", text));
  }
  void whole(const char* field, std::int64_t met, std::int64_t min, std::int64_t max) const {
    if (met >= min && met <= max) return;
    fail(cat(field, " is ", met, "; a whole number from ", min, " to ", max, " is needed."));
  }
  // min is allowed only where `open` is false.
  void real(const char* field, double met, double min, double max, bool open = false) const {
    if (std::isfinite(met) && (open ? met > min : met >= min) && met <= max) return;
    fail(cat(field, " is ", met, "; a number ", open ? "above " : "from ", min, " to ", max,
             " is needed."));
  }

 private:
  const std::string& file_;
};

void check_route(const Config& c, const Checker& check) {
  const RouteConfig& r = c.route;
  check.whole("n_routed_experts", r.experts, 0, kMaxExperts);
  if (r.experts == 0) return;
  check.whole("moe_intermediate_size", c.moe_intermediate_size, 1, kMaxMoeWidth);
  check.whole("num_experts_per_tok", r.topk, 1, r.experts);
  const bool sigmoid = r.scoring == Scoring::kSigmoid;
  if (sigmoid != (r.method == TopkMethod::kNoauxTc)) {
    check.fail(
        "scoring_func and topk_method do not fit: sigmoid goes with noaux_tc, softmax with "
        "greedy or group_limited_greedy.");
  }
  check.real("routed_scaling_factor", r.routed_scaling, 0, 1e6, /*open=*/true);
  if (r.method == TopkMethod::kGreedy) return;  // looks at no groups, so they may be of any size
  check.whole("n_group", r.groups, 1, r.experts);
  check.whole("topk_group", r.topk_groups, 1, r.groups);
  if (r.experts % r.groups != 0) {
    check.fail(cat("n_routed_experts is ", r.experts, ", which n_group = ", r.groups,
                   " does not divide; groups have equal sizes."));
  }
  const int group = r.experts / r.groups;
  if (r.method == TopkMethod::kNoauxTc && r.groups > 1 && group < 2) {
    check.fail(cat("n_group is ", r.groups, " of ", r.experts,
                   " experts; noaux_tc ranks a group by its two best, so a group needs two."));
  }
  if (r.topk > group * r.topk_groups) {
    check.fail(cat("num_experts_per_tok is ", r.topk, ", but topk_group = ", r.topk_groups,
                   " groups of ", group, " experts hold only ", group * r.topk_groups, "."));
  }
}

void check_rope(const Config& c, const Checker& check) {
  if (c.qk_rope_head_dim % 2 != 0) {
    check.fail(cat("qk_rope_head_dim is ", c.qk_rope_head_dim,
                   "; rotation works on pairs, so an even number is needed."));
  }
  if (c.rope.dim != c.qk_rope_head_dim) {
    check.fail(cat("the rotation's width is ", c.rope.dim, ", but qk_rope_head_dim is ",
                   c.qk_rope_head_dim, "."));
  }
  check.real("rope_theta", c.rope.theta, 1, 1e15, /*open=*/true);
  if (!c.rope.yarn) return;
  const YarnConfig& y = c.rope.scaling;
  check.real("rope_scaling.factor", y.factor, 1, 1e6);
  check.real("rope_scaling.original_max_position_embeddings", y.original_max_position, 1, 1 << 30);
  check.real("rope_scaling.beta_slow", y.beta_slow, 0, 1e6, /*open=*/true);
  check.real("rope_scaling.beta_fast", y.beta_fast, y.beta_slow, 1e6);
  check.real("rope_scaling.mscale", y.mscale, 0, 1e3);
  check.real("rope_scaling.mscale_all_dim", y.mscale_all_dim, 0, 1e3);
}

// Sizes may be in range one by one and too large together.
void check_products(const Config& c, const Checker& check) {
  constexpr std::int64_t kMaxInt = (std::int64_t{1} << 31) - 1;
  const auto fits = [&](const char* what, std::int64_t a, std::int64_t b) {
    if (a * b <= kMaxInt) return;
    check.fail(
        cat(what, " is ", a, " x ", b, " = ", a * b, "; at most ", kMaxInt, " is possible."));
  };
  fits("num_attention_heads x (qk_nope_head_dim + qk_rope_head_dim)", c.num_attention_heads,
       c.qk_head_dim());
  fits("num_attention_heads x (qk_nope_head_dim + v_head_dim)", c.num_attention_heads,
       std::int64_t{c.qk_nope_head_dim} + c.v_head_dim);
  fits("num_attention_heads x (kv_lora_rank + qk_rope_head_dim)", c.num_attention_heads,
       c.cache_row_width());
  fits("n_shared_experts x moe_intermediate_size", c.n_shared_experts, c.moe_intermediate_size);

  const double d = c.hidden_size, heads = c.num_attention_heads;
  const double query = heads * c.qk_head_dim();
  const double attention =
      (c.q_lora_rank > 0 ? c.q_lora_rank * (d + query) : d * query) + d * c.cache_row_width() +
      c.kv_lora_rank * heads * (c.qk_nope_head_dim + c.v_head_dim) + heads * c.v_head_dim * d;
  const double experts = double(c.route.experts) + c.n_shared_experts;
  const double mlp = 3 * d * (c.intermediate_size + experts * c.moe_intermediate_size);
  const double layers = double(c.num_hidden_layers) + c.num_nextn_predict_layers;
  const double all = 2 * c.vocab_size * d + layers * (attention + mlp + 2 * d * d);
  if (all > kMaxParameters) {
    check.fail(cat("the sizes together mean ", all, " parameters or more; at most ", kMaxParameters,
                   " are possible."));
  }
}

}  // namespace

void validate(const Config& c, const std::string& file_name) {
  const Checker check(file_name);
  for (const IntField& f : kIntFields) check.whole(f.name, c.*f.member, f.min, f.max);
  if (c.first_k_dense_replace > c.num_hidden_layers + c.num_nextn_predict_layers) {
    check.fail(cat("first_k_dense_replace is ", c.first_k_dense_replace, ", but there are only ",
                   c.num_hidden_layers, " layers (num_hidden_layers)",
                   c.num_nextn_predict_layers > 0
                       ? cat(" and ", c.num_nextn_predict_layers, " of MTP.")
                       : std::string(".")));
  }
  // Even where it is not used (no experts), it enters no product as a negative number.
  check.whole("moe_intermediate_size", c.moe_intermediate_size, 0, kMaxMoeWidth);
  check.real("rms_norm_eps", c.rms_norm_eps, 0, 1, /*open=*/true);
  check.real("initializer_range", c.initializer_range, 0, 1e3);
  check.whole("bos_token_id", c.bos_token_id, -1, c.vocab_size - 1);
  if (c.eos_token_ids.size() > 1024) check.fail("eos_token_id has more than 1024 entries.");
  for (const int id : c.eos_token_ids) check.whole("eos_token_id", id, 0, c.vocab_size - 1);
  check_route(c, check);
  check_rope(c, check);
  check_products(c, check);
}

bool Config::is_moe_layer(int layer) const noexcept {
  return route.experts > 0 && layer >= first_k_dense_replace && layer % moe_layer_freq == 0;
}

int Config::moe_layer_or_first(int wanted, bool mtp) const {
  int first = 0;
  while (first < num_hidden_layers && !is_moe_layer(first)) ++first;
  if (first == num_hidden_layers) {
    throw Error(Code::kUsage, cat("none of the model's ", num_hidden_layers,
                                  " layers has routed experts, so no token chooses any"));
  }
  if (wanted == -1) return first;
  const int layers = num_hidden_layers + (mtp ? 1 : 0);
  if (wanted < 0 || wanted >= layers || !is_moe_layer(wanted)) {
    throw Error(Code::kUsage,
                cat("layer ", wanted, " has no routed experts: of the model's ", num_hidden_layers,
                    " layers, numbered from 0, the first with experts is ", first));
  }
  return wanted;
}

double Config::softmax_scale() const { return attention_scale(rope, qk_nope_head_dim); }

// The text has every field, and numbers in it are exact.
bool operator==(const Config& a, const Config& b) { return to_json(a) == to_json(b); }

Config load_config(const std::filesystem::path& folder, std::vector<std::string>* remarks) {
  std::error_code ignored;
  const auto file =
      std::filesystem::is_directory(folder, ignored) ? folder / "config.json" : folder;
  constexpr std::uint64_t kMaxBytes = 16 << 20;
  return parse_config(read_file(file, kMaxBytes), file.string(), remarks);
}

}  // namespace cachalot::model
