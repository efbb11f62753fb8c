#include "model/convert.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/atomic_file.h"
#include "base/error.h"
#include "model/packed_weights.h"
#include "model/weights.h"
#include "numeric/group_quant.h"
#include "numeric/quantize.h"

namespace cachalot::model {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kScaleSuffix = "_scale_inv";
constexpr int kInt4Group = 32;  // docs/performance.md: what each group costs in loss and bytes

// One tensor of the new folder: what it is made from, and how.
struct Plan {
  enum class How : std::uint8_t {
    kCopy,
    kConvert,
    kFp8Codes,
    kFp8Scales,
    kPackedCodes,
    kPackedScales,
    kPackedShape
  };
  std::string source;  // a weight, or for kCopy a tensor of the file
  How how = How::kCopy;
};

bool is_router_bias(std::string_view name) { return name.ends_with(".e_score_correction_bias"); }

bool is_real(DType type) {
  return type == DType::kF64 || type == DType::kF32 || type == DType::kF16 ||
         type == DType::kBF16 || type == DType::kF8E4M3 || type == DType::kF8E5M2;
}

class Converter {
 public:
  Converter(const Context& ctx, const fs::path& source, const ConvertOptions& options)
      : ctx_(ctx),
        options_(options),
        config_(load_config(source)),
        file_(io::Safetensors::open(source)) {
    target_.enabled =
        options.format == WeightFormat::kInt8 || options.format == WeightFormat::kInt4;
    target_.bits = options.format == WeightFormat::kInt4 ? 4 : 8;
    target_.group = options.group != 0 ? options.group : target_.bits == 4 ? kInt4Group : 128;
    for (const auto& [name, tensor] : file_.tensors()) plan(name, tensor);
  }
  const PackedConfig& packed() const noexcept { return target_; }

  void write(const fs::path& folder) {
    std::size_t done = 0;
    io::write_model_safetensors(folder, tensors_, options_.shard_bytes,
                                [&](const io::TensorToWrite& t) {
                                  const void* bytes = make(t);
                                  if (options_.progress) {
                                    options_.progress(++done, tensors_.size());
                                  }
                                  return bytes;
                                });
  }

  ConvertReport report() const {
    ConvertReport report;
    report.tensors = tensors_.size();
    for (const io::TensorToWrite& t : tensors_) {
      report.bytes += static_cast<std::uint64_t>(count(t.shape)) * size_of(t.dtype);
      if (t.dtype == DType::kF8E4M3) ++report.fp8_tensors;
      if (!packed_owner(t.name).empty()) ++report.packed_tensors;
    }
    return report;
  }

 private:
  void add(const std::string& name, DType dtype, const Shape& shape, const std::string& source,
           Plan::How how) {
    tensors_.push_back({name, dtype, shape, nullptr});
    plans_[name] = {source, how};
  }

  void plan(const std::string& name, const io::TensorView& t) {
    if (is_part_of_weight(file_, name)) return;
    const std::string owner = packed_owner(name);
    if (!owner.empty()) return plan_packed_source(owner);
    if (!is_real(t.dtype)) return add(name, t.dtype, t.shape, name, Plan::How::kCopy);
    if (options_.format == WeightFormat::kFp8 && is_fp8_weight(name, t.shape)) {
      return plan_fp8(name, &t);
    }
    if (target_.enabled && is_packed_weight(name, t.shape, target_.bits)) {
      return plan_packed(name, t.shape);
    }
    const bool f32 = options_.format == WeightFormat::kF32 || is_router_bias(name);
    const DType target = f32 ? DType::kF32 : DType::kBF16;
    add(name, target, t.shape, name, t.dtype == target ? Plan::How::kCopy : Plan::How::kConvert);
  }

  // A weight whose source is packed integers.
  void plan_packed_source(const std::string& name) {
    const StoredPacked from = *find_packed(config_, file_, name);
    if (options_.format == WeightFormat::kFp8 && is_fp8_weight(name, from.shape)) {
      return plan_fp8(name, nullptr);
    }
    if (target_.enabled && is_packed_weight(name, from.shape, target_.bits)) {
      return plan_packed(name, from.shape, &from);
    }
    const DType target = options_.format == WeightFormat::kF32 ? DType::kF32 : DType::kBF16;
    add(name, target, from.shape, name, Plan::How::kConvert);
  }

  void plan_packed(const std::string& name, const Shape& shape,
                   const StoredPacked* from = nullptr) {
    const PackedNames names(name);
    const std::int64_t words = (shape[1] * target_.bits + 31) / 32;
    const std::int64_t groups = (shape[1] + target_.group - 1) / target_.group;
    const bool same = from != nullptr && config_.packed == target_;
    const auto source = [&](const std::string& part) { return same ? part : name; };
    const auto how = [&](Plan::How made) { return same ? Plan::How::kCopy : made; };
    add(names.codes, DType::kI32, {shape[0], words}, source(names.codes),
        how(Plan::How::kPackedCodes));
    add(names.scales, DType::kBF16, {shape[0], groups}, source(names.scales),
        how(Plan::How::kPackedScales));
    add(names.shape, DType::kI64, {2}, name, Plan::How::kPackedShape);
  }

  // `t`: the tensor of that name, if the source has one.
  void plan_fp8(const std::string& name, const io::TensorView* t) {
    const Shape shape = stored_shape(config_, file_, name);
    const std::string scales = name + std::string(kScaleSuffix);
    const auto blocks = [](std::int64_t size) {
      return (size + numeric::kScaleBlock - 1) / numeric::kScaleBlock;
    };
    const Shape scale_shape{blocks(shape[0]), blocks(shape[1])};
    // Codes and scales that are there already are the better ones: nothing is rounded twice.
    const bool codes = t != nullptr && t->dtype == DType::kF8E4M3;
    const auto* given = codes ? file_.find(scales) : nullptr;
    if (given != nullptr && given->dtype == DType::kF32 && given->shape == scale_shape) {
      add(name, DType::kF8E4M3, shape, name, Plan::How::kCopy);
      add(scales, DType::kF32, scale_shape, scales, Plan::How::kCopy);
      return;
    }
    add(name, DType::kF8E4M3, shape, name, Plan::How::kFp8Codes);
    add(scales, DType::kF32, scale_shape, name, Plan::How::kFp8Scales);
  }

  const void* make(const io::TensorToWrite& t) {
    const Plan& plan = plans_.at(t.name);
    switch (plan.how) {
      case Plan::How::kCopy:
        return file_.at(plan.source).data;
      case Plan::How::kConvert:
        return converted(plan.source, t);
      case Plan::How::kFp8Codes:
        quantise(plan.source);
        return codes_.data();
      case Plan::How::kFp8Scales:
        quantise(plan.source);
        return scales_.data();
      case Plan::How::kPackedCodes:
        pack(plan.source);
        return codes_.data();
      case Plan::How::kPackedScales:
        pack(plan.source);
        return bf16_.data();
      case Plan::How::kPackedShape:
        packed_shape_ = stored_shape(config_, file_, plan.source);
        return packed_shape_.data();
    }
    return nullptr;
  }

  const void* converted(const std::string& name, const io::TensorToWrite& to) {
    floats_ = read_floats(config_, file_, name, to.shape);
    if (to.dtype == DType::kF32) return floats_.data();
    bf16_.resize(floats_.size());
    constexpr std::int64_t kGrain = 1 << 16;
    ctx_.for_each(static_cast<std::int64_t>(floats_.size()), kGrain, [&](std::int64_t i) {
      bf16_[static_cast<std::size_t>(i)] = to_bf16(floats_[static_cast<std::size_t>(i)]);
    });
    return bf16_.data();
  }

  // A file lists scales (4 bytes) before codes (1 byte), so a weight's turn comes twice and it is
  // quantised twice: that costs time once per model, and holds no second copy of it.
  void quantise(const std::string& name) {
    const Shape shape = stored_shape(config_, file_, name);
    floats_ = read_floats(config_, file_, name, shape);
    const MatView<const float> m{floats_.data(), static_cast<int>(shape[0]),
                                 static_cast<int>(shape[1]), shape[1]};
    codes_.resize(floats_.size());
    const int scale_rows = numeric::blocks_of(m.rows, numeric::kScaleBlock);
    const int scale_cols = numeric::blocks_of(m.cols, numeric::kScaleBlock);
    scales_.resize(static_cast<std::size_t>(scale_rows) * static_cast<std::size_t>(scale_cols));
    const MatView<std::uint8_t> codes{codes_.data(), m.rows, m.cols, m.cols};
    const MatView<float> scales{scales_.data(), scale_rows, scale_cols, scale_cols};
    ctx_.for_each(scale_rows, 1, [&](std::int64_t block) {
      const int b = static_cast<int>(block), row = b * numeric::kScaleBlock;
      const int rows = std::min(numeric::kScaleBlock, m.rows - row);
      numeric::quantize_blocks(m.sub_rows(row, rows), numeric::ScaleKind::kPlain,
                               codes.sub_rows(row, rows), scales.sub_rows(b, 1));
    });
  }

  // Codes as little-endian words into codes_, scales into bf16_.
  void pack(const std::string& name) {
    const Shape shape = stored_shape(config_, file_, name);
    floats_ = read_floats(config_, file_, name, shape);
    const int rows = static_cast<int>(shape[0]), cols = static_cast<int>(shape[1]);
    const int groups = numeric::blocks_of(cols, target_.group);
    const int row_bytes = numeric::blocks_of(cols * target_.bits, 32) * 4;
    codes_.assign(static_cast<std::size_t>(rows) * static_cast<std::size_t>(row_bytes), 0);
    bf16_.resize(static_cast<std::size_t>(rows) * static_cast<std::size_t>(groups));
    std::atomic<bool> finite{true};
    ctx_.for_each(rows, 4, [&](std::int64_t row) {
      const float* x = floats_.data() + row * cols;
      std::uint8_t* to = codes_.data() + row * row_bytes;
      std::uint8_t group[128];
      for (int g = 0; g < groups; ++g) {
        const int begin = g * target_.group, n = std::min(target_.group, cols - begin);
        if (!numeric::quantize_group({x + begin, static_cast<std::size_t>(n)}, target_.bits, group,
                                     bf16_[static_cast<std::size_t>(row * groups + g)])) {
          finite = false;
          return;
        }
        for (int j = 0; j < n; ++j) {
          const int bit = (begin + j) * target_.bits;
          to[bit / 8] = static_cast<std::uint8_t>(to[bit / 8] | group[j] << bit % 8);
        }
      }
    });
    if (finite) return;
    throw Error(Code::kNumeric, cat("tensor '", name,
                                    "' holds a NaN or an infinity, which no integer stands for. "
                                    "Convert to bf16, or mend the model."));
  }

  const Context& ctx_;
  const ConvertOptions& options_;
  Config config_;
  io::Safetensors file_;
  std::vector<io::TensorToWrite> tensors_;
  std::map<std::string, Plan> plans_;
  std::vector<float> floats_;
  std::vector<Bf16> bf16_;
  std::vector<std::uint8_t> codes_;
  std::vector<float> scales_;
  Shape packed_shape_;
  PackedConfig target_;
};

// The source's own config.json with the keys that say how weights are stored; every other key, also
// one this program does not know, stays.
std::string converted_config(const fs::path& file, WeightFormat format,
                             const PackedConfig& packed) {
  constexpr std::uint64_t kMostBytes = 16 << 20;
  auto json = nlohmann::ordered_json::parse(read_file(file, kMostBytes), nullptr, false);
  if (!json.is_object()) {
    throw Error(Code::kFormat, cat(file.string(), ": not a JSON object."));
  }
  const char* dtype = format == WeightFormat::kF32 ? "float32" : "bfloat16";
  const auto adapt = [&](nlohmann::ordered_json& level) {
    level.erase("quantization_config");
    for (const char* key : {"torch_dtype", "dtype"}) {
      if (level.contains(key)) level[key] = dtype;
    }
  };
  adapt(json);
  if (json.contains("text_config") && json["text_config"].is_object()) adapt(json["text_config"]);
  if (!json.contains("dtype")) json["torch_dtype"] = dtype;
  if (format == WeightFormat::kFp8) {
    json["quantization_config"] = {
        {"activation_scheme", "dynamic"},
        {"fmt", "e4m3"},
        {"quant_method", "fp8"},
        {"weight_block_size", {numeric::kScaleBlock, numeric::kScaleBlock}}};
  }
  if (packed.enabled) json["quantization_config"] = quantization_json(packed);
  return json.dump(2) + "\n";
}

// Weights in any form, and what belongs to a training run rather than to a model.
bool is_copied(const std::string& name) {
  static constexpr std::array<std::string_view, 4> kOwn{"config.json", "trainer.json",
                                                        "checksums.json", "recipe.toml"};
  static constexpr std::array<std::string_view, 6> kWeights{".safetensors", ".index.json", ".bin",
                                                            ".pt",          ".pth",        ".gguf"};
  if (name.starts_with(".") || std::find(kOwn.begin(), kOwn.end(), name) != kOwn.end()) {
    return false;
  }
  return std::none_of(kWeights.begin(), kWeights.end(),
                      [&](std::string_view suffix) { return name.ends_with(suffix); });
}

[[noreturn]] void fail(const char* what, const fs::path& path, const std::error_code& error) {
  throw Error(Code::kIo, cat("cannot ", what, " ", path.string(), ": ", error.message(), "."));
}

std::vector<std::string> copy_other_files(const fs::path& source, const fs::path& target) {
  constexpr std::uint64_t kMostBytes = 1ull << 30;
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(source, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    std::error_code ignored;
    if (it->is_regular_file(ignored) && is_copied(name)) names.push_back(name);
  }
  if (error) fail("list", source, error);
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    write_file_atomically(target / name, read_file(source / name, kMostBytes));
  }
  return names;
}

// Where the new folder grows until it is renamed to its name.
class FolderBeside {
 public:
  explicit FolderBeside(const fs::path& target)
      : path_(target.parent_path() / cat(".", target.filename().string(), ".tmp-", ::getpid())) {
    std::error_code error;
    fs::remove_all(path_, error);
    if (!fs::create_directories(path_, error) || error) fail("create the folder", path_, error);
  }
  ~FolderBeside() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  FolderBeside(const FolderBeside&) = delete;
  FolderBeside& operator=(const FolderBeside&) = delete;
  const fs::path& path() const noexcept { return path_; }

 private:
  fs::path path_;
};

// The target with its name last (no "/" at the end, no "."), after checking that it may be written.
fs::path checked_target(const fs::path& source, const fs::path& target) {
  std::error_code error;
  fs::path clean = fs::absolute(target, error).lexically_normal();
  if (!clean.has_filename()) clean = clean.parent_path();
  if (fs::equivalent(source, clean, error)) {
    throw Error(Code::kUsage, cat("source and target are the same folder, ", source.string(),
                                  "; name another target."));
  }
  if (!fs::exists(clean, error)) return clean;
  const bool empty = fs::is_directory(clean, error) && fs::is_empty(clean, error);
  if (!empty || error) {
    throw Error(Code::kUsage, cat(clean.string(),
                                  " is there already and not an empty folder; "
                                  "nothing is written over. Name another target."));
  }
  return clean;
}

}  // namespace

std::string_view name(WeightFormat format) noexcept {
  switch (format) {
    case WeightFormat::kF32:
      return "f32";
    case WeightFormat::kBf16:
      return "bf16";
    case WeightFormat::kFp8:
      return "fp8";
    case WeightFormat::kInt8:
      return "int8";
    case WeightFormat::kInt4:
      return "int4";
  }
  return "bf16";
}

WeightFormat parse_weight_format(std::string_view text) {
  for (const auto format : {WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kFp8,
                            WeightFormat::kInt8, WeightFormat::kInt4}) {
    if (name(format) == text) return format;
  }
  throw Error(Code::kUsage,
              cat("'", text, "' is no weight format; use f32, bf16, fp8, int8 or int4."));
}

bool is_fp8_weight(std::string_view name, const Shape& shape) {
  static constexpr std::array<std::string_view, 9> kProjections{
      "q_proj", "q_a_proj",  "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj",
      "o_proj", "gate_proj", "up_proj",  "down_proj"};
  constexpr std::string_view kWeight = ".weight";
  if (shape.size() != 2 || !name.ends_with(kWeight)) return false;
  name.remove_suffix(kWeight.size());
  const auto dot = name.rfind('.');
  if (dot == std::string_view::npos || name.find("model.layers.") == std::string_view::npos) {
    return false;
  }
  return std::find(kProjections.begin(), kProjections.end(), name.substr(dot + 1)) !=
         kProjections.end();
}

ConvertReport convert_model(const Context& ctx, const fs::path& source, const fs::path& target,
                            const ConvertOptions& options) {
  const fs::path final_path = checked_target(source, target);
  Converter converter(ctx, source, options);
  const FolderBeside folder(final_path);
  converter.write(folder.path());
  ConvertReport report = converter.report();
  report.copied_files = copy_other_files(source, folder.path());
  write_file_atomically(
      folder.path() / "config.json",
      converted_config(source / "config.json", options.format, converter.packed()));
  sync_folder(folder.path());
  // Replaces an empty folder, and fails on one that has been filled meanwhile.
  std::error_code error;
  fs::rename(folder.path(), final_path, error);
  if (error) fail("rename to", final_path, error);
  sync_folder(final_path.parent_path());
  return report;
}

}  // namespace cachalot::model
