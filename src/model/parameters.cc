#include "model/parameters.h"

#include <algorithm>
#include <limits>

#include "base/rng.h"
#include "kernels/profile.h"
#include "kernels/saved.h"
#include "model/binding.h"
#include "model/weight_format.h"
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
  nn::WeightRef matrix(const std::string& name, int rows, int cols) {
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
  nn::WeightRef shared_copy(const std::string&, int, int, nn::WeightRef main) { return main; }
};

// The router's product is float (nn/moe.h), and so are the embedding's rows.
bool is_read_as_floats(const std::string& name) {
  return name.ends_with(".mlp.gate.weight") || name == "model.embed_tokens.weight";
}

// Whether FP8 products read its codes.
bool has_codes(const Parameter& p) { return p.is_matrix() && is_fp8_weight(p.name, p.shape()); }

// Hands the arena's pieces out in the order they were planned.
template <class M, class V>
struct Views {
  const std::vector<Parameter>& list;
  const std::vector<RouterBias>* biases;  // null: gradients, which biases have none of
  float* arena;
  const std::vector<Fp8View>* codes = nullptr;
  const std::vector<Fp8View>* turned = nullptr;
  const Bf16* rounded = nullptr;         // null: matrices are read as floats
  bool all_rounded = false;              // not only those that never have codes
  const float* device_biases = nullptr;  // null: the biases lie where `biases` says
  std::size_t next = 0;
  std::size_t next_bias = 0;

  M matrix(const std::string& name, int rows, int cols) {
    const Parameter& p = list[next];
    M m(MatView<float>{arena + p.offset, rows, cols, cols});
    if constexpr (std::is_same_v<M, nn::WeightRef>) {
      if (rounded != nullptr && !is_read_as_floats(name) && (all_rounded || !has_codes(p))) {
        m = nn::WeightRef(MatView<const Bf16>{rounded + p.offset, rows, cols, cols});
      }
      if (codes != nullptr) {
        m.fp8 = (*codes)[next];
        m.fp8_turned = (*turned)[next];
      }
    }
    ++next;
    return m;
  }
  V vector(const std::string&, int n) {
    const Parameter& p = list[next++];
    return V(arena + p.offset, static_cast<std::size_t>(n));
  }
  V router_bias(const std::string&, int n) {
    if constexpr (std::is_same_v<V, nn::VecRef>) {
      if (device_biases != nullptr) {
        const float* at = device_biases;
        device_biases += n;
        return V(at, static_cast<std::size_t>(n));
      }
      if (biases != nullptr) return V((*biases)[next_bias++].value);
    }
    return V();
  }
  M shared_copy(const std::string&, int, int, M main) { return main; }
};

}  // namespace

Parameters::Parameters(const Config& config, Device* device) : config_(config), device_(device) {
  Planner planner{list_, biases_};
  bind<nn::WeightRef, nn::VecRef>(config_, planner);
  for (const Parameter& p : list_) count_ += p.size();
  constexpr std::int64_t kRow = 1 << 12;  // a Mat counts rows and columns in ints
  const std::int64_t rows = (planner.end + kRow - 1) / kRow;
  if (rows > std::numeric_limits<int>::max()) {
    throw Error(Code::kConfig, cat("a model of ", count_, " parameters is too large to train"));
  }
  const MemoryScope scope(device_);
  values_ = Mat<float>(static_cast<int>(rows), kRow);
  gradients_ = Mat<float>(static_cast<int>(rows), kRow);
  if (device_ != nullptr) {
    std::size_t count = 0;
    for (const RouterBias& b : biases_) count += b.value.size();
    device_biases_ = Mat<float>(1, static_cast<int>(count));
  }
  bind_weights();
  Views<MatView<float>, nn::VecView> gradients{list_, nullptr, gradients_.data()};
  gradient_tree_ = bind<MatView<float>, nn::VecView>(config_, gradients);
}

void Parameters::bind_weights() {
  Views<nn::WeightRef, nn::VecRef> views{
      list_,          &biases_,
      values_.data(), code_views_.empty() ? nullptr : &code_views_,
      &turned_views_, rounded_.size() == 0 ? nullptr : rounded_.data(),
      all_rounded_,   device_ != nullptr ? device_biases_.data() : nullptr};
  weights_ = bind<nn::WeightRef, nn::VecRef>(config_, views);
}

void Parameters::make_room_for_codes(ScaleTile tile) {
  const MemoryScope scope(device_);
  // A device's products read codes along what they sum over: a second copy, turned once a step.
  const bool turns = device_ != nullptr && tile == ScaleTile::kBlock;
  code_tile_ = tile;
  codes_ = std::vector<Fp8Mat>(list_.size());
  turned_ = std::vector<Fp8Mat>(turns ? list_.size() : 0);
  code_views_.assign(list_.size(), {});
  turned_views_.assign(list_.size(), {});
  code_jobs_.clear();
  for (std::size_t i = 0; i < list_.size(); ++i) {
    if (!has_codes(list_[i])) continue;
    // An MLP's gate and up lie in one piece: products may read both as one matrix.
    const bool pair = tile == ScaleTile::kBlock && list_[i].name.ends_with(".gate_proj.weight") &&
                      i + 1 < list_.size() && list_[i + 1].name.ends_with(".up_proj.weight") &&
                      list_[i + 1].cols == list_[i].cols && list_[i].rows % kScaleTileSize == 0;
    const int first = list_[i].rows, all = first + (pair ? list_[i + 1].rows : 0);
    Fp8Mat& codes = codes_[i];
    codes.resize(all, list_[i].cols, tile);
    if (turns) {
      const std::int32_t begins[] = {0, all};
      turned_[i].resize(begins, list_[i].cols, tile, /*transposed=*/true);
    }
    for (std::size_t j = i; j < i + (pair ? 2 : 1); ++j) {
      const Parameter& p = list_[j];
      const int begin = j == i ? 0 : first;
      QuantizeFp8 job{{}, {}, codes.out().sub_rows(begin, p.rows), {}};
      job.x = MatView<const float>{values_.data() + p.offset, p.rows, p.cols, p.cols};
      if (turns) job.also = turned_[i].out().sub_rows(begin, p.rows);
      code_views_[j] = job.out;
      turned_views_[j] = job.also;
      code_jobs_.push_back(job);
    }
    if (pair) ++i;
  }
  bind_weights();
}

void Parameters::quantize(const Context& ctx, const nn::Numerics& num) {
  if (codes_version_ == version_) return;
  const PartScope part(ctx, Part::kQuantize);
  if (codes_.empty() || code_tile_ != num.weight_tile) make_room_for_codes(num.weight_tile);
  for (QuantizeFp8& job : code_jobs_) job.kind = num.scale;
  quantize_fp8(ctx, code_jobs_);
  codes_version_ = version_;
}

std::size_t Parameters::code_bytes() const noexcept {
  std::size_t bytes = 0;
  for (const Fp8Mat& m : codes_) bytes += m.bytes();
  for (const Fp8Mat& m : turned_) bytes += m.bytes();
  return bytes;
}

void Parameters::set(const Parameter& p, std::span<const float> values) {
  const std::span<float> to = value(p);
  if (device_ != nullptr) {
    device_->upload(to.data(), values.data(), values.size_bytes());
  } else {
    std::copy(values.begin(), values.end(), to.begin());
  }
}

void Parameters::refresh(const Context& ctx, const nn::Numerics& num) {
  if (device_ == nullptr) return;
  std::vector<float> all;
  for (const RouterBias& b : biases_) all.insert(all.end(), b.value.begin(), b.value.end());
  upload<float>(all, device_biases_);
  const bool all_wanted = !num.fp8;  // FP8 products read codes
  if (num.products != Precision::kBF16) {
    if (rounded_.size() == 0) return;
    rounded_ = {};  // a pass in floats reads the values
    bind_weights();
    return;
  }
  if (rounded_.size() > 0 && rounded_version_ == version_ && (all_rounded_ || !all_wanted)) return;
  const PartScope part(ctx, Part::kQuantize);
  if (rounded_.size() == 0 || all_rounded_ != all_wanted) {
    const MemoryScope scope(device_);
    rounded_.resize(values_.rows(), values_.cols());
    all_rounded_ = all_wanted;
    bind_weights();
  }
  if (all_wanted) {
    store_bf16(ctx, values_.cview(), rounded_.view());
  } else {
    for (const Parameter& p : list_) {
      if (!p.is_matrix() || has_codes(p) || is_read_as_floats(p.name)) continue;
      store_bf16(ctx, {values_.data() + p.offset, p.rows, p.cols, p.cols},
                 {rounded_.data() + p.offset, p.rows, p.cols, p.cols});
    }
  }
  rounded_version_ = version_;
}

void Parameters::initialise(const Context& ctx, double std, std::uint64_t seed,
                            double embedding_mean) {
  std::vector<float> values;
  for (const Parameter& p : list_) {
    values.assign(static_cast<std::size_t>(p.size()), 1.0F);
    if (p.is_matrix()) {
      const Rng rng(seed, stream_of(p.name));
      ctx.for_each(p.size(), /*grain=*/1 << 14, [&](std::int64_t i) {
        const auto at = static_cast<std::size_t>(i);
        values[at] = static_cast<float>(std * rng.normal(at));
      });
    }
    if (p.name == "model.embed_tokens.weight" && embedding_mean != 0) {
      const Rng rng(seed, stream_of(p.name + " mean"));
      std::vector<float> common(static_cast<std::size_t>(p.cols));
      for (std::size_t column = 0; column < common.size(); ++column) {
        common[column] = static_cast<float>(embedding_mean * rng.normal(column));
      }
      for (std::size_t at = 0; at < values.size(); ++at) values[at] += common[at % common.size()];
    }
    set(p, values);
  }
  for (RouterBias& b : biases_) std::fill(b.value.begin(), b.value.end(), 0.0F);
}

void Parameters::load(const io::Safetensors& file, const Config& source) {
  for (const Parameter& p : list_) set(p, read_floats(source, file, p.name, p.shape()));
  for (RouterBias& b : biases_) {
    const auto n = static_cast<std::int64_t>(b.value.size());
    b.value = read_floats(source, file, b.name, {n});
  }
  // The tree's spans point at the old bias vectors.
  bind_weights();
}

std::vector<io::TensorToWrite> Parameters::tensors() const {
  const float* values = values_.data();
  if (device_ != nullptr) {
    file_copy_.resize(values_.rows(), values_.cols());
    download<float>(values_, file_copy_.span());
    values = file_copy_.data();
  }
  std::vector<const float*> biases;
  for (const RouterBias& b : biases_) biases.push_back(b.value.data());
  return tensors_with(values, biases);
}

std::vector<io::TensorToWrite> Parameters::tensors_with(
    const float* values, std::span<const float* const> biases) const {
  std::vector<io::TensorToWrite> out;
  const Parameter* embed = nullptr;
  const Parameter* head = nullptr;
  for (const Parameter& p : list_) {
    out.push_back({p.name, DType::kF32, p.shape(), values + p.offset});
    if (p.name == "model.embed_tokens.weight") embed = &p;
    if (p.name == "lm_head.weight") head = &p;
  }
  if (head == nullptr) head = embed;  // tied
  for (std::size_t i = 0; i < biases_.size(); ++i) {
    const RouterBias& b = biases_[i];
    out.push_back({b.name, DType::kF32, {static_cast<std::int64_t>(b.value.size())}, biases[i]});
  }
  for (int i = 0; i < config_.num_nextn_predict_layers; ++i) {
    const std::string p = "model.layers." + std::to_string(config_.num_hidden_layers + i) + ".";
    out.push_back({p + "embed_tokens.weight", DType::kF32, embed->shape(), values + embed->offset});
    out.push_back(
        {p + "shared_head.head.weight", DType::kF32, head->shape(), values + head->offset});
  }
  return out;
}

}  // namespace cachalot::model
