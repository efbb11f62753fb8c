#include "model/init.h"

#include <map>

#include "model/binding.h"
#include "model/new_folder.h"
#include "model/packed_weights.h"
#include "model/random_weights.h"
#include "model/weight_encoder.h"

namespace cachalot::model {

namespace fs = std::filesystem;

namespace {

// Lists the tensors that a config asks for, and draws them.
class RandomModel {
 public:
  RandomModel(const Context& ctx, const Config& config, const InitOptions& options)
      : ctx_(ctx),
        options_(options),
        std_(static_cast<float>(options.std > 0 ? options.std : config.initializer_range)),
        encoder_(
            ctx, options.format,
            packed_for(config, options.packed.value_or(packed_config(options.format))),
            {options.fp8_head && !config.tie_word_embeddings, config.fp8.ue8m0_scales},
            [this](const std::string& name, const Shape& shape) { return draw(name, shape); }) {
    bind<nn::WeightRef, nn::VecRef>(config, *this);
  }

  // The Source of binding.h.
  nn::WeightRef matrix(const std::string& name, int rows, int cols) {
    add(name, {rows, cols}, name, 0);
    parameters_ += static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(cols);
    return {};
  }
  nn::VecRef vector(const std::string& name, int n) {
    add(name, {n}, name, 1);
    parameters_ += static_cast<std::uint64_t>(n);
    return {};
  }
  nn::VecRef router_bias(const std::string& name, int n) {
    add(name, {n}, name, 0);
    return {};
  }
  nn::WeightRef shared_copy(const std::string& name, int rows, int cols, const nn::WeightRef&) {
    const bool head = name.ends_with("shared_head.head.weight");
    const bool own_head = drawn_.contains("lm_head.weight");
    add(name, {rows, cols}, head && own_head ? "lm_head.weight" : "model.embed_tokens.weight", 0);
    return {};
  }

  InitReport report() const {
    InitReport report;
    report.parameters = parameters_;
    report.tensors = encoder_.tensors().size();
    report.bytes = encoder_.bytes();
    for (const io::TensorToWrite& t : encoder_.tensors()) {
      if (t.dtype == DType::kF8E4M3) ++report.fp8_tensors;
      if (!packed_owner(t.name).empty()) ++report.packed_tensors;
    }
    return report;
  }
  const WeightEncoder& encoder() const noexcept { return encoder_; }

  void write(const fs::path& folder) {
    std::uint64_t done = 0;
    const std::uint64_t all = encoder_.bytes();
    io::write_model_safetensors(
        folder, encoder_.tensors(), options_.shard_bytes, [&](const io::TensorToWrite& t) {
          if (options_.progress) options_.progress(done, all);
          done += static_cast<std::uint64_t>(count(t.shape)) * size_of(t.dtype);
          return encoder_.make(t);
        });
    if (options_.progress) options_.progress(all, all);
  }

 private:
  struct Draw {
    std::string values_of;  // whose values it has
    float mean;
  };
  void add(const std::string& name, const Shape& shape, const std::string& values_of, float mean) {
    encoder_.add(name, shape);
    drawn_[name] = {values_of, mean};
  }
  std::span<const float> draw(const std::string& name, const Shape& shape) {
    const Draw& d = drawn_.at(name);
    floats_.resize(static_cast<std::size_t>(count(shape)));
    fill_.fill(ctx_, options_.seed, d.values_of, d.mean, std_, floats_);
    return floats_;
  }

  const Context& ctx_;
  const InitOptions& options_;
  const float std_;
  NormalFill fill_;
  std::map<std::string, Draw> drawn_;
  std::vector<float> floats_;
  std::uint64_t parameters_ = 0;
  WeightEncoder encoder_;
};

}  // namespace

WeightFormat format_of(const Config& config) noexcept {
  if (config.fp8.enabled) return WeightFormat::kFp8;
  if (config.packed.enabled) {
    return config.packed.linear.bits == 4 ? WeightFormat::kInt4 : WeightFormat::kInt8;
  }
  return config.torch_dtype == "float32" ? WeightFormat::kF32 : WeightFormat::kBf16;
}

InitReport init_model(const Context& ctx, const Config& config, std::string_view config_json,
                      const fs::path& target, const InitOptions& options) {
  const fs::path final_path = NewFolder::checked(target);
  RandomModel random(ctx, config, options);
  const InitReport report = random.report();
  NewFolder folder(final_path, report.bytes);
  random.write(folder.path());
  for (const fs::path& file : options.files) copy_whole_file(file, folder.path() / file.filename());
  folder.commit(stored_config(config_json, "config.json", options.format, random.encoder().packed(),
                              random.encoder().fp8()));
  return report;
}

}  // namespace cachalot::model
