#include "model/weights.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>

#include "kernels/table.h"
#include "model/binding.h"
#include "model/device_copies.h"
#include "model/packed_copies.h"
#include "model/packed_weights.h"
#include "model/read_ahead.h"
#include "model/resident.h"
#include "model/same_weight.h"
#include "model/weight_format.h"
#include "numeric/group_quant.h"

namespace cachalot::model {

namespace {

void check_shape(const io::TensorView& t, const std::string& name, const Shape& has,
                 const Shape& wanted) {
  if (has != wanted) {
    throw Error(Code::kShape, cat(t.file, ": tensor '", name, "' has shape ", to_string(has),
                                  ", but config.json asks for ", to_string(wanted),
                                  ". The weights and the config.json belong to different models."));
  }
}

// Multiplies codes by their block's scale; `values` holds the decoded codes.
void apply_block_scales(const Config& config, const StoredFp8& fp8, std::vector<float>& values) {
  const std::int64_t rows = fp8.codes->shape[0];
  const std::int64_t cols = fp8.codes->shape[1];
  const std::vector<float> scale = fp8.scales->to_floats();
  const std::int64_t scale_cols = fp8.scales->shape[1];
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* row_scale = scale.data() + i / config.fp8.block_rows * scale_cols;
    float* row = values.data() + i * cols;
    for (std::int64_t j = 0; j < cols; ++j) row[j] *= row_scale[j / config.fp8.block_cols];
  }
}

std::vector<float> multiplied_out(const StoredPacked& p) {
  std::vector<float> values(static_cast<std::size_t>(count(p.shape)));
  float* out = values.data();
  // Scales may be misaligned in the file: bytes are copied.
  const auto* scales = static_cast<const char*>(p.view.scales);
  for (int i = 0; i < p.view.rows; ++i) {
    for (int j = 0; j < p.view.cols; j += p.view.group) {
      Bf16 scale;
      std::memcpy(&scale, scales + (i * p.view.scale_stride + j / p.view.group) * 2, sizeof(scale));
      const int end = std::min(p.view.cols, j + p.view.group);
      for (int k = j; k < end; ++k) {
        *out++ = numeric::decode_code(p.view.code, p.view.row(i), k) * to_float(scale);
      }
    }
  }
  return values;
}

bool is_aligned(const void* p, std::size_t size) {
  return reinterpret_cast<std::uintptr_t>(p) % size == 0;
}

}  // namespace

std::vector<float> read_floats(const Config& config, const io::Safetensors& file,
                               const std::string& name, const Shape& shape) {
  if (const auto packed = find_packed(config, file, name)) {
    check_shape(*packed->codes, name, packed->shape, shape);
    return multiplied_out(*packed);
  }
  const io::TensorView& t = file.at(name);
  check_shape(t, name, t.shape, shape);
  std::vector<float> values = t.to_floats();
  if (t.dtype == DType::kF8E4M3) apply_block_scales(config, find_fp8(config, file, name), values);
  return values;
}

struct Model::State {
  Config config;
  io::Safetensors file;
  LoadOptions options;
  nn::Numerics numerics;
  nn::Weights weights;
  std::deque<Mat<float>> floats;  // in huge pages where they are large; a Mat's memory never moves
  std::deque<Mat<Bf16>> bf16s;
  std::uint64_t copied = 0;
  std::uint64_t codes = 0;
  ResidentCopies resident = {};
  PackedCopies packs = {};
  DeviceCopies on_device = DeviceCopies();
  ReadAhead ahead = {};
  std::vector<std::string> remarks = {};

  // Where matrix data of the file is to be read by products.
  const void* in_place(const void* data, std::size_t bytes) {
    using enum LoadOptions::Placement;
    const bool copied = options.placement == kCopied || options.placement == kPacked;
    return copied ? resident.reserve(data, bytes) : data;
  }
  template <class T>
  Mat<T>& fresh(std::deque<Mat<T>>& copies, int rows, int cols) {
    copies.emplace_back().resize(rows, cols);
    copied += copies.back().size() * sizeof(T);
    return copies.back();
  }
  MatRef keep(const std::vector<float>& values, int rows, int cols) {
    Mat<float>& m = fresh(floats, rows, cols);
    std::copy(values.begin(), values.end(), m.data());
    return m.cview();
  }
  MatRef keep_in(Precision wanted, const std::vector<float>& values, int rows, int cols) {
    if (wanted == Precision::kF32) return keep(values, rows, cols);
    Mat<Bf16>& m = fresh(bf16s, rows, cols);
    std::transform(values.begin(), values.end(), m.data(), to_bf16);
    return m.cview();
  }
  template <class T>
  const T* keep_scales(const io::TensorView& t, std::deque<Mat<T>>& copies) {
    if (is_aligned(t.data, sizeof(T))) return static_cast<const T*>(in_place(t.data, t.bytes));
    Mat<T>& m = fresh(copies, static_cast<int>(t.shape[0]), static_cast<int>(t.shape[1]));
    std::memcpy(m.data(), t.data, t.bytes);
    return m.data();
  }

  // What a product of the numerics' own kind reads: `kv_b_proj` is read both ways.
  static bool is_projection(const std::string& name, const Shape& shape) {
    return is_fp8_weight(name, shape) && !name.ends_with("kv_b_proj.weight");
  }
  bool keeps_codes(const std::string& name, const Shape& shape) const {
    const bool exact = options.precision == Precision::kF32 &&
                       options.activations == LoadOptions::Activations::kBf16;
    return options.keep_codes && !exact && (is_projection(name, shape) || is_head(name));
  }
  // Matrices that only products read, one way.
  bool is_packed(const std::string& name, const Shape& shape) const {
    return packs_pairs() &&
           (is_projection(name, shape) || is_head(name) || name.ends_with("eh_proj.weight"));
  }
  bool packs_heads(const std::string& name) const {
    return packs_pairs() && name.ends_with("kv_b_proj.weight");
  }
  bool in_panels() const { return options.placement == LoadOptions::Placement::kPacked; }
  // Where a level would pack bf16 as floats, few rows are multiplied faster with what is not
  // packed.
  bool packs_pairs() const {
    return in_panels() && options.precision == Precision::kBF16 &&
           packs_bf16_in_pairs(*options.context);
  }
  nn::WeightRef panels(const QuantView& view) {
    codes += view.bytes();
    return nn::WeightRef(resident.reserve_panels(view));
  }
  nn::WeightRef packed_codes(const StoredPacked& p) {
    QuantView view = p.view;
    if (in_panels() && is_aligned(p.scales->data, sizeof(Bf16))) return panels(view);
    view.scales = keep_scales(*p.scales, bf16s);
    view.codes = static_cast<const std::uint8_t*>(in_place(p.codes->data, p.codes->bytes));
    codes += view.bytes();
    return nn::WeightRef(view);
  }
  nn::WeightRef fp8_codes(const std::string& name) {
    const StoredFp8 f = find_fp8(config, file, name);
    QuantView view;
    view.code = QuantCode::kE4m3;
    view.rows = static_cast<int>(f.codes->shape[0]);
    view.cols = static_cast<int>(f.codes->shape[1]);
    view.codes = static_cast<const std::uint8_t*>(f.codes->data);
    view.stride = view.cols;
    view.scale_stride = view.groups();
    if (f.scales->dtype == DType::kF32) {
      view.scales = keep_scales(*f.scales, floats);
    } else {
      view.scales = keep(f.scales->to_floats(), static_cast<int>(f.scales->shape[0]),
                         static_cast<int>(f.scales->shape[1]))
                        .data;
    }
    const bool tiles = options.activations == LoadOptions::Activations::kFp8;
    if (in_panels() && !tiles) return panels(view);
    view.codes = static_cast<const std::uint8_t*>(in_place(f.codes->data, f.codes->bytes));
    codes += view.bytes();
    nn::WeightRef w(view);
    if (!tiles) return w;
    w.fp8 = {view.codes,
             view.rows,
             view.cols,
             view.stride,
             static_cast<const float*>(view.scales),
             view.scale_stride,
             ScaleTile::kBlock};
    return w;
  }

  // What was reserved for copies is filled.
  void copy() {
    if (options.placement == LoadOptions::Placement::kMapped) return;
    if (on_device.active()) {
      copied = on_device.bytes();
      file.forget_pages();
      options.context = nullptr;
      return;
    }
    const Context alone{&kReferenceTable};
    const Context& ctx = options.context != nullptr ? *options.context : alone;
    resident.copy(ctx);
    copied += resident.bytes();
    packs.pack(ctx, options.precision);
    copied += packs.bytes();
    file.forget_pages();
    options.context = nullptr;  // need not outlive this call
  }

  // Of the host, or its copy on the device; then what it was made from is let go.
  template <class Ref>
  Ref placed(const Ref& ref) {
    if (!on_device.active()) return ref;
    const Ref there = on_device.copy(ref);
    floats.clear();
    bf16s.clear();
    if (options.progress) options.progress(on_device.bytes());
    return there;
  }

  // The Source of binding.h.
  nn::WeightRef matrix(const std::string& name, int rows, int cols) {
    nn::WeightRef there = host_matrix(name, rows, cols);
    if (packs_heads(name)) there.heads = packs.heads(there, block_dims(config).heads);
    return placed(there);
  }
  nn::WeightRef host_matrix(const std::string& name, int rows, int cols) {
    const Shape shape{rows, cols};
    const bool kept = keeps_codes(name, shape);
    if (const auto packed = find_packed(config, file, name)) {
      check_shape(*packed->codes, name, packed->shape, shape);
      if (kept) return packed_codes(*packed);
      return keep_in(options.precision, multiplied_out(*packed), rows, cols);
    }
    const io::TensorView& t = file.at(name);
    check_shape(t, name, t.shape, shape);
    if (t.dtype == DType::kF8E4M3) {
      if (kept) return fp8_codes(name);
      return keep_in(options.precision, read_floats(config, file, name, shape), rows, cols);
    }
    if (kept && !is_head(name) && options.activations == LoadOptions::Activations::kFp8) {
      throw Error(Code::kUnsupported,
                  cat(t.file, ": tensor '", name, "' is ", cachalot::name(t.dtype),
                      ", but FP8 activations need every projection in FP8. Convert the model with "
                      "`cachalot convert --dtype fp8`, or run it with --precision bf16."));
    }
    if ((t.dtype == DType::kBF16 || t.dtype == DType::kF32) &&
        is_aligned(t.data, size_of(t.dtype))) {
      const bool few_rows = name.ends_with("embed_tokens.weight") && !config.tie_word_embeddings;
      if (is_packed(name, shape)) return packs.matrix(MatRef(t.data, t.dtype, rows, cols, cols));
      return MatRef(few_rows ? t.data : in_place(t.data, t.bytes), t.dtype, rows, cols, cols);
    }
    return keep(read_floats(config, file, name, shape), rows, cols);
  }
  nn::VecRef vector(const std::string& name, int n) {
    keep(read_floats(config, file, name, {n}), 1, n);
    return placed(std::as_const(floats.back()).span());
  }
  nn::VecRef router_bias(const std::string& name, int n) { return vector(name, n); }
  nn::WeightRef shared_copy(const std::string& name, int rows, int cols,
                            const nn::WeightRef& main) {
    const bool there = file.find(name) != nullptr || file.find(PackedNames(name).codes) != nullptr;
    return there && !is_copied_with_main(name) ? matrix(name, rows, cols) : main;
  }
  // Published folders have the MTP layer's embedding and head twice, the same bytes (V3 report 2.2:
  // they are shared). Where matrices are copied, these then are once. A host leaves embeddings in
  // the file, where nothing is held twice.
  bool is_copied_with_main(const std::string& name) const {
    const bool copied = options.placement != LoadOptions::Placement::kMapped &&
                        (on_device.active() || is_head(name));
    if (!copied || config.tie_word_embeddings) return false;
    const Context alone{&kReferenceTable};
    return same_weight(options.context != nullptr ? *options.context : alone, file, name,
                       is_head(name) ? "lm_head.weight" : "model.embed_tokens.weight");
  }
};

namespace {

nn::Numerics numerics_of(const Config& config, const LoadOptions& options,
                         const std::filesystem::path& folder) {
  using Activations = LoadOptions::Activations;
  nn::Numerics n = nn::Numerics::inference(options.precision);
  if (options.activations == Activations::kBf16) return n;
  const bool fp8 = options.activations == Activations::kFp8;
  if (!(fp8 ? config.fp8.enabled : config.packed.enabled)) {
    throw Error(Code::kUnsupported,
                cat(folder.string(), ": its weights are not in ",
                    fp8 ? "FP8 (quantization_config of \"fp8\")"
                        : "integers (quantization_config of \"compressed-tensors\")",
                    ", which --precision ", fp8 ? "fp8" : "int8",
                    " multiplies. Convert the model with `cachalot convert --dtype ",
                    fp8 ? "fp8" : "int8", "`, or run it with --precision bf16."));
  }
  if (fp8) {
    n.fp8 = true;
    n.scale = config.fp8.ue8m0_scales ? numeric::ScaleKind::kOfficialUe8m0
                                      : numeric::ScaleKind::kOfficial;
    n.accumulation = options.accumulation;
  } else {
    n.quant_activations = QuantActivations::kInt8;
  }
  return n;
}

}  // namespace

void drop_absent_mtp(Config& config, const io::Safetensors& file,
                     std::vector<std::string>* remarks) {
  const int promised = config.num_nextn_predict_layers;
  const std::string name = cat("model.layers.", config.num_hidden_layers, ".eh_proj.weight");
  if (promised == 0 || file.find(name) != nullptr) return;
  config.num_nextn_predict_layers = 0;
  config.first_k_dense_replace = std::min(config.first_k_dense_replace, config.num_hidden_layers);
  if (remarks == nullptr) return;
  remarks->push_back(cat(
      "config.json promises ", promised, promised == 1 ? " MTP layer" : " MTP layers",
      " (num_nextn_predict_layers), but the model's files have no ", name,
      ": it is used without, so nothing is drafted. Fetch the files that hold it, or set the key "
      "to 0"));
}

Precision precision_for(const io::Safetensors& file) {
  std::uint64_t wide = 0, all = 0;  // beside codes, scales are in F32 too, and norms may be
  for (const auto& [name, tensor] : file.tensors()) {
    all += tensor.bytes;
    if (tensor.dtype == DType::kF32 || tensor.dtype == DType::kF64) wide += tensor.bytes;
  }
  return wide > all / 2 ? Precision::kF32 : Precision::kBF16;
}

Model Model::load(const std::filesystem::path& folder, const LoadOptions& options) {
  std::vector<std::string> remarks;
  Config config = load_config(folder, &remarks);
  auto state = std::make_unique<State>(
      State{std::move(config), io::Safetensors::open(folder), options, {}, {}, {}, {}, 0, 0});
  if (options.placement == LoadOptions::Placement::kPacked && options.context == nullptr) {
    state->options.placement = LoadOptions::Placement::kCopied;
  }
  if (options.context != nullptr && options.context->device != nullptr) {
    state->options.placement = LoadOptions::Placement::kOnDevice;
    state->on_device = DeviceCopies(options.context->device);
  }
  if (options.precision_of_weights) state->options.precision = precision_for(state->file);
  state->numerics = numerics_of(state->config, state->options, folder);
  drop_absent_mtp(state->config, state->file, &remarks);
  state->remarks = std::move(remarks);
  state->weights = bind<nn::WeightRef, nn::VecRef>(state->config, *state);
  state->copy();
  if (!state->on_device.active()) state->ahead.link(state->weights);
  return Model(std::move(state));
}

std::string_view name(LoadOptions::Placement placement) noexcept {
  switch (placement) {
    case LoadOptions::Placement::kMapped:
      return "mapped";
    case LoadOptions::Placement::kCopied:
      return "copied";
    case LoadOptions::Placement::kPacked:
      return "packed";
    case LoadOptions::Placement::kOnDevice:
      return "on the device";
  }
  return "";
}

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;
Model::~Model() = default;

const Config& Model::config() const noexcept { return state_->config; }
const nn::Weights& Model::weights() const noexcept { return state_->weights; }
Precision Model::precision() const noexcept { return state_->options.precision; }
const nn::Numerics& Model::numerics() const noexcept { return state_->numerics; }
LoadOptions::Placement Model::placement() const noexcept { return state_->options.placement; }
const std::vector<std::string>& Model::remarks() const noexcept { return state_->remarks; }
std::uint64_t Model::code_bytes() const noexcept { return state_->codes; }
std::uint64_t Model::copied_bytes() const noexcept { return state_->copied; }
std::uint64_t Model::mapped_bytes() const noexcept { return state_->file.file_bytes(); }

}  // namespace cachalot::model
