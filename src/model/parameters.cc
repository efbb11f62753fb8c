#include "model/parameters.h"

#include <algorithm>
#include <limits>

#include "base/rng.h"
#include "model/binding.h"
#include "model/weights.h"

namespace cachalot::model {

namespace {

constexpr std::int64_t kAlign = 16;  // floats: one cache line

// Writes the list of parameters and lays them out.
struct Planner {
  std::vector<Parameter>& list;
  std::vector<RouterBias>& biases;
  std::int64_t end = 0;

  void add(const std::string& name, int rows, int cols) {
    list.push_back({name, rows, cols, end});
    end += (list.back().size() + kAlign - 1) / kAlign * kAlign;
  }
  MatRef matrix(const std::string& name, int rows, int cols) {
    add(name, rows, cols);
    return {};
  }
  nn::VecRef vector(const std::string& name, int n) {
    add(name, 0, n);
    return {};
  }
  nn::VecRef router_bias(const std::string& name, int n) {
    // model.layers.{l}.mlp...
    const int layer = std::stoi(name.substr(std::string("model.layers.").size()));
    biases.push_back({name, layer, std::vector<float>(static_cast<std::size_t>(n), 0.0F)});
    return {};
  }
  MatRef shared_copy(const std::string&, int, int, MatRef main) { return main; }
};

// Hands the arena's pieces out in the order they were planned.
template <class M, class V>
struct Views {
  const std::vector<Parameter>& list;
  const std::vector<RouterBias>* biases;  // null: gradients, which biases have none of
  float* arena;
  std::size_t next = 0;
  std::size_t next_bias = 0;

  M matrix(const std::string&, int rows, int cols) {
    const Parameter& p = list[next++];
    return M(MatView<float>{arena + p.offset, rows, cols, cols});
  }
  V vector(const std::string&, int n) {
    const Parameter& p = list[next++];
    return V(arena + p.offset, static_cast<std::size_t>(n));
  }
  V router_bias(const std::string&, int) {
    if constexpr (std::is_same_v<V, nn::VecRef>) {
      if (biases != nullptr) return V((*biases)[next_bias++].value);
    }
    return V();
  }
  M shared_copy(const std::string&, int, int, M main) { return main; }
};

}  // namespace

Parameters::Parameters(const Config& config) : config_(config) {
  Planner planner{list_, biases_};
  bind<MatRef, nn::VecRef>(config_, planner);
  for (const Parameter& p : list_) count_ += p.size();
  constexpr std::int64_t kRow = 1 << 12;  // a Mat counts rows and columns in ints
  const std::int64_t rows = (planner.end + kRow - 1) / kRow;
  if (rows > std::numeric_limits<int>::max()) {
    throw Error(Code::kConfig, cat("a model of ", count_, " parameters is too large to train"));
  }
  values_ = Mat<float>(static_cast<int>(rows), kRow);
  gradients_ = Mat<float>(static_cast<int>(rows), kRow);
  Views<MatRef, nn::VecRef> values{list_, &biases_, values_.data()};
  weights_ = bind<MatRef, nn::VecRef>(config_, values);
  Views<MatView<float>, nn::VecView> gradients{list_, nullptr, gradients_.data()};
  gradient_tree_ = bind<MatView<float>, nn::VecView>(config_, gradients);
}

void Parameters::initialise(double std, std::uint64_t seed) {
  for (const Parameter& p : list_) {
    const std::span<float> values = value(p);
    if (!p.is_matrix()) {
      std::fill(values.begin(), values.end(), 1.0F);
      continue;
    }
    std::uint64_t stream = 14695981039346656037ull;  // FNV-1a of the name
    for (const char c : p.name)
      stream = (stream ^ static_cast<unsigned char>(c)) * 1099511628211ull;
    const Rng rng(seed, stream);
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(std * rng.normal(i));
    }
  }
  for (RouterBias& b : biases_) std::fill(b.value.begin(), b.value.end(), 0.0F);
}

void Parameters::load(const io::Safetensors& file, const Config& source) {
  for (const Parameter& p : list_) {
    const std::vector<float> read = read_floats(source, file, p.name, p.shape());
    std::copy(read.begin(), read.end(), value(p).begin());
  }
  for (RouterBias& b : biases_) {
    const auto n = static_cast<std::int64_t>(b.value.size());
    b.value = read_floats(source, file, b.name, {n});
  }
  // The tree's spans point at the old bias vectors.
  Views<MatRef, nn::VecRef> views{list_, &biases_, values_.data()};
  weights_ = bind<MatRef, nn::VecRef>(config_, views);
}

std::vector<io::TensorToWrite> Parameters::tensors() const {
  std::vector<io::TensorToWrite> out;
  const Parameter* embed = nullptr;
  const Parameter* head = nullptr;
  for (const Parameter& p : list_) {
    out.push_back({p.name, DType::kF32, p.shape(), values_.data() + p.offset});
    if (p.name == "model.embed_tokens.weight") embed = &p;
    if (p.name == "lm_head.weight") head = &p;
  }
  if (head == nullptr) head = embed;  // tied
  for (const RouterBias& b : biases_) {
    out.push_back(
        {b.name, DType::kF32, {static_cast<std::int64_t>(b.value.size())}, b.value.data()});
  }
  for (int i = 0; i < config_.num_nextn_predict_layers; ++i) {
    const std::string p = "model.layers." + std::to_string(config_.num_hidden_layers + i) + ".";
    out.push_back(
        {p + "embed_tokens.weight", DType::kF32, embed->shape(), values_.data() + embed->offset});
    out.push_back(
        {p + "shared_head.head.weight", DType::kF32, head->shape(), values_.data() + head->offset});
  }
  return out;
}

}  // namespace cachalot::model
