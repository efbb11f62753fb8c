#include "model/convert.h"

#include <algorithm>
#include <array>
#include <map>
#include <system_error>

#include "base/atomic_file.h"
#include "base/error.h"
#include "model/new_folder.h"
#include "model/packed_weights.h"
#include "model/weight_encoder.h"
#include "model/weights.h"

namespace cachalot::model {

namespace fs = std::filesystem;

namespace {

bool is_real(DType type) {
  return type == DType::kF64 || type == DType::kF32 || type == DType::kF16 ||
         type == DType::kBF16 || type == DType::kF8E4M3 || type == DType::kF8E5M2;
}

class Converter {
 public:
  Converter(const Context& ctx, const fs::path& source, const ConvertOptions& options)
      : options_(options),
        config_(load_config(source, &remarks_)),
        file_(io::Safetensors::open(source)),
        encoder_(ctx, options.format,
                 packed_for(config_, options.packed.value_or(packed_config(options.format))),
                 {options.fp8_head && !config_.tie_word_embeddings, config_.fp8.ue8m0_scales},
                 [this](const std::string& name, const Shape& shape) {
                   floats_ = read_floats(config_, file_, name, shape);
                   return std::span<const float>(floats_);
                 }) {
    for (const auto& [name, tensor] : file_.tensors()) plan(name, tensor);
  }
  const WeightEncoder& encoder() const noexcept { return encoder_; }

  void write(const fs::path& folder) {
    std::size_t done = 0;
    io::write_model_safetensors(
        folder, encoder_.tensors(), options_.shard_bytes, [&](const io::TensorToWrite& t) {
          const void* bytes = encoder_.is_foreign(t) ? file_.at(t.name).data : encoder_.make(t);
          if (options_.progress) {
            options_.progress(++done, encoder_.tensors().size());
          }
          return bytes;
        });
  }

  ConvertReport report() const {
    ConvertReport report;
    report.tensors = encoder_.tensors().size();
    report.bytes = encoder_.bytes();
    report.remarks = remarks_;
    for (const io::TensorToWrite& t : encoder_.tensors()) {
      if (t.dtype == DType::kF8E4M3) ++report.fp8_tensors;
      if (!packed_owner(t.name).empty()) ++report.packed_tensors;
    }
    return report;
  }

 private:
  void plan(const std::string& name, const io::TensorView& t) {
    if (is_part_of_weight(file_, name)) return;
    const std::string owner = packed_owner(name);
    if (!owner.empty()) return plan_packed_source(owner);
    if (!is_real(t.dtype)) return encoder_.add_foreign(name, t.dtype, t.shape);
    const bool fp8 = encoder_.is_fp8(name, t.shape);
    if (fp8 && t.dtype == DType::kF8E4M3 && plan_fp8_source(name, t)) return;
    const bool codes = fp8 || packed_form(encoder_.packed(), name, t.shape).has_value();
    if (!codes && t.dtype == encoder_.plain_type(name)) {
      return encoder_.add_foreign(name, t.dtype, t.shape);
    }
    encoder_.add(name, t.shape);
  }

  // Codes and scales that are there already are the better ones: nothing is rounded twice.
  bool plan_fp8_source(const std::string& name, const io::TensorView& t) {
    const std::string scales = name + "_scale_inv";
    const auto* given = file_.find(scales);
    const auto blocks = [](std::int64_t size) {
      return (size + numeric::kScaleBlock - 1) / numeric::kScaleBlock;
    };
    const Shape wanted{blocks(t.shape[0]), blocks(t.shape[1])};
    if (given == nullptr || given->dtype != DType::kF32 || given->shape != wanted) return false;
    encoder_.add_foreign(name, t.dtype, t.shape);
    encoder_.add_foreign(scales, given->dtype, given->shape);
    return true;
  }

  // A weight whose source is packed integers.
  void plan_packed_source(const std::string& name) {
    const StoredPacked from = *find_packed(config_, file_, name);
    const auto wanted = packed_form(encoder_.packed(), name, from.shape);
    if (!wanted || *wanted != stored_form(config_.packed, name)) {
      return encoder_.add(name, from.shape);
    }
    const PackedNames names(name);
    encoder_.add_foreign(names.codes, from.codes->dtype, from.codes->shape);
    encoder_.add_foreign(names.scales, from.scales->dtype, from.scales->shape);
    encoder_.add_packed_shape(name, from.shape);
  }

  const ConvertOptions& options_;
  std::vector<std::string> remarks_;
  Config config_;
  io::Safetensors file_;
  std::vector<float> floats_;
  WeightEncoder encoder_;
};

// Weights in any form, and what belongs to a training run rather than to a model.
bool is_copied(const std::string& name) {
  static constexpr std::array<std::string_view, 4> kOwn{"config.json", "trainer.json",
                                                        "checksums.json", "recipe.toml"};
  static constexpr std::array<std::string_view, 9> kWeights{
      ".safetensors", ".index.json", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"};
  if (name.starts_with(".") || std::find(kOwn.begin(), kOwn.end(), name) != kOwn.end()) {
    return false;
  }
  return std::none_of(kWeights.begin(), kWeights.end(),
                      [&](std::string_view suffix) { return name.ends_with(suffix); });
}

std::vector<std::string> other_files(const fs::path& source) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(source, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    std::error_code ignored;
    if (it->is_regular_file(ignored) && is_copied(name)) names.push_back(name);
  }
  if (error) {
    throw Error(Code::kIo, cat("cannot list ", source.string(), ": ", error.message(), "."));
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

ConvertReport convert_model(const Context& ctx, const fs::path& source, const fs::path& target,
                            const ConvertOptions& options) {
  std::error_code ignored;
  if (fs::equivalent(source, target, ignored)) {
    throw Error(Code::kUsage, cat("source and target are the same folder, ", source.string(),
                                  "; name another target."));
  }
  const fs::path final_path = NewFolder::checked(target);
  Converter converter(ctx, source, options);
  ConvertReport report = converter.report();
  report.copied_files = other_files(source);
  std::uint64_t bytes = report.bytes;
  for (const std::string& name : report.copied_files) bytes += fs::file_size(source / name);
  NewFolder folder(final_path, bytes);
  converter.write(folder.path());
  for (const std::string& name : report.copied_files) {
    copy_whole_file(source / name, folder.path() / name);
  }
  constexpr std::uint64_t kMostBytes = 16 << 20;
  const fs::path config = source / "config.json";
  folder.commit(stored_config(read_file(config, kMostBytes), config.string(), options.format,
                              converter.encoder().packed(), converter.encoder().fp8()));
  return report;
}

}  // namespace cachalot::model
