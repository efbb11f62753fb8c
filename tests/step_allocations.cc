// A training step allocates nothing: counts every allocation of the process while steps run.
//
// A program of its own, since it stands in for malloc and its relatives; operator new comes here
// through malloc. After a first step of a size none may follow, however the experts' load turns
// out: router biases send the tokens of one step to a few experts, of the next to others.
#include <execinfo.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>

#include "base/rng.h"
#include "kernels/table.h"
#include "model/optimizer.h"
#include "model/train_graph.h"
#include "runtime/runtime.h"
#include "testing/fixtures.h"
#include "train/trainer.h"

// The C library's own, which the functions below stand in front of.
extern "C" {
void* __libc_malloc(std::size_t);                 // NOLINT(bugprone-reserved-identifier)
void* __libc_calloc(std::size_t, std::size_t);    // NOLINT(bugprone-reserved-identifier)
void* __libc_realloc(void*, std::size_t);         // NOLINT(bugprone-reserved-identifier)
void* __libc_memalign(std::size_t, std::size_t);  // NOLINT(bugprone-reserved-identifier)
}

namespace {

std::atomic<bool> g_counting{false};
std::atomic<int> g_count{0};
// Who allocated first, for the message of a failure.
std::array<void*, 32> g_who;
int g_who_depth = 0;

void note() {
  if (!g_counting.load(std::memory_order_relaxed)) return;
  if (g_count.fetch_add(1) > 0) return;
  g_who_depth = backtrace(g_who.data(), static_cast<int>(g_who.size()));
}

}  // namespace

extern "C" {
void* malloc(std::size_t n) {
  note();
  return __libc_malloc(n);
}
void* calloc(std::size_t n, std::size_t size) {
  note();
  return __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t n) {
  note();
  return __libc_realloc(p, n);
}
void* memalign(std::size_t align, std::size_t n) {
  note();
  return __libc_memalign(align, n);
}
void* aligned_alloc(std::size_t align, std::size_t n) {
  note();
  return __libc_memalign(align, n);
}
int posix_memalign(void** out, std::size_t align, std::size_t n) {
  note();
  *out = __libc_memalign(align, n);
  return *out == nullptr ? ENOMEM : 0;
}
}

namespace cachalot {
namespace {

// Allocations of all threads while fn runs.
template <class F>
int count_of(bool report, F&& fn) {
  std::array<void*, 4> warm;
  backtrace(warm.data(), 4);  // loads a library when it is first called
  g_count = 0;
  g_counting = true;
  fn();
  g_counting = false;
  if (report && g_count > 0) backtrace_symbols_fd(g_who.data(), g_who_depth, STDERR_FILENO);
  return g_count;
}

TEST(Counting, SeesEveryKind) {
  const auto kept = [](void* p) {
    static void* volatile last;
    last = p;
    std::free(last);
  };
  int error = 0;
  const int count = count_of(false, [&] {
    kept(std::malloc(8));
    kept(std::calloc(2, 8));
    kept(std::realloc(nullptr, 8));
    kept(std::aligned_alloc(64, 64));
    void* p = nullptr;
    error = posix_memalign(&p, 64, 64);
    kept(p);
    ::operator delete(::operator new(8));
    ::operator delete (::operator new (64, std::align_val_t{64}), std::align_val_t{64});
  });
  EXPECT_EQ(error, 0);
  EXPECT_EQ(count, 7);
}

model::Config small() {
  model::Config c;
  c.family = model::Family::kDeepseekV3;
  c.vocab_size = 211;
  c.hidden_size = 136;
  c.intermediate_size = 152;
  c.moe_intermediate_size = 24;
  c.num_hidden_layers = 3;
  c.first_k_dense_replace = 1;
  c.num_attention_heads = 3;
  c.q_lora_rank = 20;
  c.kv_lora_rank = 24;
  c.qk_nope_head_dim = 12;
  c.qk_rope_head_dim = 8;
  c.v_head_dim = 16;
  c.n_shared_experts = 1;
  c.num_nextn_predict_layers = 1;
  c.max_position_embeddings = 256;
  c.rope.dim = 8;
  c.route.experts = 16;
  c.route.topk = 2;
  c.route.groups = 4;
  c.route.topk_groups = 2;
  c.route.scoring = Scoring::kSigmoid;
  c.route.method = TopkMethod::kNoauxTc;
  c.route.norm_topk_prob = true;
  return c;
}

// Pulls every layer's tokens to experts [first, first + 2) and away from all others; none: as the
// scores say.
void pull_to(model::Parameters& parameters, int first) {
  for (model::RouterBias& b : parameters.biases()) {
    std::fill(b.value.begin(), b.value.end(), 0.0F);
    if (first < 0) continue;
    b.value[static_cast<std::size_t>(first)] = b.value[static_cast<std::size_t>(first) + 1] = 9;
  }
}

// A step of `batch` sequences in micro-batches of two, as the trainer takes it.
void step(model::TrainGraph& graph, model::Parameters& parameters, model::Optimizer& optimizer,
          const Context& ctx, MatView<const std::int32_t> tokens) {
  model::OptimizerStep options;
  options.adamw.lr = 1e-3;
  const model::Losses* losses = nullptr;
  for (int done = 0; done < tokens.rows; done += 2) {
    model::LossOptions pass;
    const int n = std::min(2, tokens.rows - done);
    pass.share = model::LossShare::equal(static_cast<float>(n) / static_cast<float>(tokens.rows));
    pass.dropout = 0.1;
    pass.first_sequence = done;
    pass.fresh_gradients = done == 0;
    losses = &graph.forward_backward(parameters, tokens.sub_rows(done, n), pass);
  }
  optimizer.step(ctx, parameters, losses->expert_load, options);
}

// Numerics, threads, and the kernels of every level but the definitions, which do allocate.
TEST(StepAllocations, NoneAfterTheFirstStepWhateverTheLoad) {
  struct Case {
    const char* name;
    nn::Numerics numerics;
    DType moments;
  };
  nn::Numerics by_tensor = nn::Numerics::report_fp8();  // FP8 with what it is compared with
  by_tensor.activation_tile = by_tensor.gradient_tile = ScaleTile::kBlock;
  by_tensor.weight_tile = ScaleTile::kTensor;
  for (const auto& c : {Case{"f32", nn::Numerics::f32(), DType::kF32},
                        Case{"bf16", nn::Numerics::bf16(), DType::kBF16},
                        Case{"fp8", nn::Numerics::report_fp8(), DType::kBF16},
                        Case{"fp8 by blocks", by_tensor, DType::kBF16}}) {
    for (const char* level : {"avx2", "avx512", "avx512bf16"}) {
      for (const int threads : {1, 2}) {
        std::unique_ptr<runtime::Runtime> runtime;
        try {
          runtime = std::make_unique<runtime::Runtime>(runtime::RuntimeOptions{threads, level});
        } catch (const Error&) {
          continue;  // not on this machine
        }
        const Context& ctx = runtime->context();
        model::Parameters parameters(small());
        parameters.initialise(0.05, 7);
        model::Optimizer optimizer(parameters, {c.moments, 0.99});
        model::TrainGraph graph(ctx, parameters.config(), c.numerics);
        Mat<std::int32_t> tokens(3, 67);
        const Rng rng(3);
        int number = 0;
        for (const int pull : {0, -1, 14, 6}) {
          for (std::size_t i = 0; i < tokens.size(); ++i) {
            const auto at = static_cast<std::uint64_t>(number) * tokens.size() + i;
            tokens.data()[i] = static_cast<std::int32_t>(rng.below(at, 211));
          }
          pull_to(parameters, pull);
          const int count = count_of(
              number > 0, [&] { step(graph, parameters, optimizer, ctx, tokens.cview()); });
          if (number == 0) {
            EXPECT_GT(count, 0);
          } else {
            EXPECT_EQ(count, 0) << c.name << " " << level << ", " << threads << " threads, step "
                                << number;
          }
          ++number;
        }
      }
    }
  }
}

// The trainer from one step to the next: data, step, reports. Its lines of metrics, evaluations and
// checkpoints do allocate, and are left out.
TEST(StepAllocations, NoneInTheTrainersLoop) {
  const testing::TempDir dir;
  const std::string toml = R"(
[model]
vocab_size = 300
hidden_size = 32
num_hidden_layers = 2
first_k_dense_replace = 1
intermediate_size = 48
moe_intermediate_size = 16
num_attention_heads = 2
q_lora_rank = 16
kv_lora_rank = 16
qk_nope_head_dim = 8
qk_rope_head_dim = 4
v_head_dim = 8
n_routed_experts = 8
num_experts_per_tok = 2
init_std = 0.05
max_position_embeddings = 64
[data]
random_tokens = 20000
seq_len = 24
[optimizer]
lr = 1e-2
[schedule]
steps = 12
warmup_steps = 2
batch = 4
micro_batch = 2
[run]
checkpoint_every = 0
eval_every = 0
log_every = 1000
)";
  const runtime::Runtime runtime({2, ""});
  if (runtime.context().ops().name == std::string("ref")) GTEST_SKIP() << "no level but ref here";
  for (const char* precision : {"f32", "bf16", "fp8"}) {
    const std::string set[] = {std::string("run.precision=") + precision};
    const train::Recipe recipe = train::parse_recipe(toml, "test.toml", set, dir.path());
    std::array<int, 16> counts{};
    train::TrainHooks hooks;
    hooks.on_step = [&](const train::StepReport& r) {
      g_counting = false;
      counts.at(static_cast<std::size_t>(r.step)) = g_count;
      g_count = 0;
      g_counting = r.step < r.steps;
    };
    train::train(recipe, {dir.path() / precision, false}, runtime, hooks);
    for (std::size_t s = 2; s <= 12; ++s) EXPECT_EQ(counts.at(s), 0) << precision << " step " << s;
  }
}

}  // namespace
}  // namespace cachalot
