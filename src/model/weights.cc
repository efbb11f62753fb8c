#include "model/weights.h"

#include <algorithm>
#include <cstring>
#include <deque>

#include "model/binding.h"

namespace cachalot::model {

namespace {

void check_shape(const io::TensorView& t, const std::string& name, const Shape& shape) {
  if (t.shape != shape) {
    throw Error(Code::kShape, cat(t.file, ": tensor '", name, "' has shape ", to_string(t.shape),
                                  ", but config.json asks for ", to_string(shape),
                                  ". The weights and the config.json belong to different models."));
  }
}

// Multiplies codes by their block's scale; `values` holds the decoded codes.
void apply_block_scales(const Config& config, const io::Safetensors& file, const std::string& name,
                        const Shape& shape, std::vector<float>& values) {
  const io::TensorView& scales = file.at(name + "_scale_inv");
  const std::int64_t rows = shape[0];
  const std::int64_t cols = shape[1];
  const std::int64_t block_rows = config.fp8.block_rows;
  const std::int64_t block_cols = config.fp8.block_cols;
  check_shape(scales, name + "_scale_inv",
              {(rows + block_rows - 1) / block_rows, (cols + block_cols - 1) / block_cols});
  const std::vector<float> scale = scales.to_floats();
  const std::int64_t scale_cols = scales.shape[1];
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* row_scale = scale.data() + i / block_rows * scale_cols;
    float* row = values.data() + i * cols;
    for (std::int64_t j = 0; j < cols; ++j) row[j] *= row_scale[j / block_cols];
  }
}

bool is_aligned(const void* p, std::size_t size) {
  return reinterpret_cast<std::uintptr_t>(p) % size == 0;
}

}  // namespace

std::vector<float> read_floats(const Config& config, const io::Safetensors& file,
                               const std::string& name, const Shape& shape) {
  const io::TensorView& t = file.at(name);
  check_shape(t, name, shape);
  std::vector<float> values = t.to_floats();
  if (t.dtype == DType::kF8E4M3) {
    if (shape.size() != 2) {
      throw Error(Code::kFormat,
                  cat(t.file, ": tensor '", name,
                      "' is F8_E4M3 but no matrix; only matrices have block scales"));
    }
    apply_block_scales(config, file, name, shape, values);
  }
  return values;
}

struct Model::State {
  Config config;
  io::Safetensors file;
  Precision precision;
  nn::Weights weights;
  std::deque<std::vector<float>> floats;  // a deque: elements never move
  std::deque<std::vector<Bf16>> bf16s;
  std::uint64_t copied = 0;

  MatRef keep(std::vector<float> values, int rows, int cols) {
    copied += values.size() * sizeof(float);
    floats.push_back(std::move(values));
    return {floats.back().data(), DType::kF32, rows, cols, cols};
  }

  // The Source of binding.h.
  MatRef matrix(const std::string& name, int rows, int cols) {
    const io::TensorView& t = file.at(name);
    const Shape shape{rows, cols};
    check_shape(t, name, shape);
    if ((t.dtype == DType::kBF16 || t.dtype == DType::kF32) &&
        is_aligned(t.data, size_of(t.dtype))) {
      return {t.data, t.dtype, rows, cols, cols};
    }
    std::vector<float> values = read_floats(config, file, name, shape);
    if (t.dtype == DType::kF8E4M3 && precision == Precision::kBF16) {
      std::vector<Bf16> rounded(values.size());
      std::transform(values.begin(), values.end(), rounded.begin(), to_bf16);
      copied += rounded.size() * sizeof(Bf16);
      bf16s.push_back(std::move(rounded));
      return {bf16s.back().data(), DType::kBF16, rows, cols, cols};
    }
    return keep(std::move(values), rows, cols);
  }
  nn::VecRef vector(const std::string& name, int n) {
    keep(read_floats(config, file, name, {n}), 1, n);
    return floats.back();
  }
  nn::VecRef router_bias(const std::string& name, int n) { return vector(name, n); }
  MatRef shared_copy(const std::string& name, int rows, int cols, MatRef main) {
    return file.find(name) != nullptr ? matrix(name, rows, cols) : main;
  }
};

Model Model::load(const std::filesystem::path& folder, Precision precision) {
  Config config = load_config(folder);
  auto state = std::make_unique<State>(
      State{std::move(config), io::Safetensors::open(folder), precision, {}, {}, {}, 0});
  // Published folders may leave the MTP layer out although config.json counts it.
  const std::string mtp =
      "model.layers." + std::to_string(state->config.num_hidden_layers) + ".eh_proj.weight";
  if (state->config.num_nextn_predict_layers > 0 && state->file.find(mtp) == nullptr) {
    state->config.num_nextn_predict_layers = 0;
  }
  state->weights = bind<nn::WeightRef, nn::VecRef>(state->config, *state);
  return Model(std::move(state));
}

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;
Model::~Model() = default;

const Config& Model::config() const noexcept { return state_->config; }
const nn::Weights& Model::weights() const noexcept { return state_->weights; }
Precision Model::precision() const noexcept { return state_->precision; }
std::uint64_t Model::copied_bytes() const noexcept { return state_->copied; }
std::uint64_t Model::mapped_bytes() const noexcept { return state_->file.file_bytes(); }

}  // namespace cachalot::model
