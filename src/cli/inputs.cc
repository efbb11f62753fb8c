#include "cli/inputs.h"

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <iterator>

#include "base/atomic_file.h"
#include "base/error.h"
#include "cli/finite.h"
#include "kernels/quant_linear.h"
#include "kernels/table.h"
#include "runtime/memory.h"
#include "tensor/device.h"
#include "text/utf8.h"

namespace cachalot::cli {

namespace {

constexpr std::uint64_t kMaxTextBytes = std::uint64_t{8} << 30;

std::uint64_t weight_bytes(const std::string& folder) {
  std::uint64_t bytes = 0;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (entry.path().extension() != ".safetensors") continue;
    const std::uintmax_t size = entry.file_size(ignored);
    if (!ignored) bytes += size;
  }
  return bytes;
}

// Where weights are to lie. Packed ones are read fastest, but are a copy: they must fit beside what
// is kept anyway, with room for a cache.
model::LoadOptions::Placement placement(const std::string& folder, const Context& ctx,
                                        ModelUse use) {
  using enum model::LoadOptions::Placement;
  const char* asked = std::getenv("CACHALOT_WEIGHTS");
  const std::string_view where = asked != nullptr && *asked != 0 ? asked : "auto";
  if (ctx.device != nullptr) {
    if (where == "auto") return kOnDevice;
    throw Error(Code::kUsage,
                cat("CACHALOT_WEIGHTS is `", where, "`, but on a device (", ctx.device->name(),
                    ") weights lie in its memory: unset it, or leave --device out"));
  }
  if (where == "mapped") return kMapped;
  if (where == "copied") return kCopied;
  if (where == "packed") return quant_panels_are_fast(ctx) ? kPacked : kCopied;
  if (where != "auto") {
    throw Error(Code::kUsage, cat("CACHALOT_WEIGHTS is `", where,
                                  "`, but must be auto, mapped, copied or packed"));
  }
  if (use == ModelUse::kOnce) return kMapped;
  const bool fits = runtime::available_memory() / 3 * 2 > weight_bytes(folder);
  return fits && quant_panels_are_fast(ctx) ? kPacked : kMapped;
}

constexpr const char* kPrecisionHelp =
    "Of the products: f32 is exact to the oracle, bf16 rounds activations to bfloat16 and halves "
    "the cache, fp8 and int8 quantise them in tiles of 1 x 128, for a model whose weights are FP8 "
    "or integers. Weights are used as the file has them";

constexpr const char* kSamplingGroup = "Sampling";

bool separates(char c) { return c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

}  // namespace

std::vector<std::int32_t> parse_tokens(const std::string& list) {
  const bool is_file = list.starts_with('@');
  const std::string where = is_file ? list.substr(1) : "--tokens";
  auto tokens = parse_token_text(is_file ? read_text(where) : list, where);
  if (tokens.empty()) {
    throw Error(Code::kUsage, cat(where, ": no token ids; at least one is needed, as in 1,2,3"));
  }
  return tokens;
}

std::vector<std::int32_t> parse_token_text(const std::string& text, const std::string& where) {
  std::vector<std::int32_t> tokens;
  for (std::size_t at = 0; at < text.size();) {
    if (separates(text[at])) {
      ++at;
      continue;
    }
    std::size_t end = at;
    while (end < text.size() && !separates(text[end])) ++end;
    const std::string_view item(text.data() + at, end - at);
    std::int32_t id = 0;
    const auto [stopped, error] = std::from_chars(item.begin(), item.end(), id);
    if (error != std::errc() || stopped != item.end() || id < 0) {
      throw Error(Code::kUsage, cat(where, ": item ", tokens.size(), " is `", item.substr(0, 40),
                                    "`, but a token id from 0 up is needed, as in 1,2,3"));
    }
    tokens.push_back(id);
    at = end;
  }
  return tokens;
}

std::string join_tokens(const std::vector<std::int32_t>& tokens) {
  std::string text;
  for (const std::int32_t token : tokens) {
    if (!text.empty()) text += ',';
    text += std::to_string(token);
  }
  return text;
}

std::string read_text(const std::string& path) {
  if (path != "-") return read_file(path, kMaxTextBytes);
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

void require_utf8(std::string_view text, std::string_view what) {
  const std::size_t at = text::first_invalid_utf8(text);
  if (at < text.size()) {
    throw Error(Code::kUsage, cat(what, ": byte ", at, " of ", text.size(),
                                  " is not part of a UTF-8 character; convert the text to UTF-8 "
                                  "(iconv -t UTF-8)"));
  }
}

model::LoadOptions load_options(const std::string& folder, const std::string& precision,
                                const Context& ctx, ModelUse use) {
  model::LoadOptions o;
  o.placement = placement(folder, ctx, use);
  o.context = &ctx;
  if (precision == "f32") {
    o.precision = Precision::kF32;
    return o;
  }
  // A machine without a kernel for them is better off with weights multiplied out once.
  o.keep_codes = quant_linear_is_fast(ctx);
  o.precision_of_weights = precision == kAutoPrecision;
  if (precision == "bf16" || o.precision_of_weights) return o;
  o.keep_codes = true;
  if (precision == "fp8") {
    o.activations = model::LoadOptions::Activations::kFp8;
    return o;
  }
  if (precision == "int8") {
    o.activations = model::LoadOptions::Activations::kInt8;
    return o;
  }
  throw Error(Code::kUsage,
              cat("--precision is `", precision, "`, but must be f32, bf16, fp8, int8 or auto"));
}

void add_model_folder(CLI::App* app, std::string& folder) {
  app->add_option("model", folder, "Model folder: config.json and *.safetensors")
      ->required()
      ->type_name("MODEL");
}

void add_precision(CLI::App* app, std::string& precision) {
  app->add_option("--precision", precision, kPrecisionHelp)
      ->check(CLI::IsMember({"f32", "bf16", "fp8", "int8"}))
      ->type_name("f32|bf16|fp8|int8");
}

void add_precision_or_auto(CLI::App* app, std::string& precision) {
  app->add_option("--precision", precision,
                  cat(kPrecisionHelp, "; auto: f32 where the file has F32, else bf16"))
      ->check(CLI::IsMember({kAutoPrecision, "f32", "bf16", "fp8", "int8"}))
      ->type_name("auto|f32|bf16|fp8|int8");
}

void add_sampling_defaults(CLI::App* app, infer::SamplerConfig& c) {
  const std::string group = kSamplingGroup;
  app->add_option("--temperature", c.temperature, "0 is greedy: the most likely token, always")
      ->type_name("T")
      ->group(group);
  app->add_option("--top-k", c.top_k, "Only the K most likely tokens; 0: all")
      ->type_name("K")
      ->group(group);
  app->add_option("--top-p", c.top_p, "Only the most likely tokens that together reach P; 1: all")
      ->type_name("P")
      ->group(group);
  app->add_option("--min-p", c.min_p,
                  "Only tokens at least P times as likely as the most likely one; 0: all")
      ->type_name("P")
      ->group(group);
  app->add_option("--repetition-penalty", c.repetition_penalty,
                  "Divides positive logits of tokens seen in prompt or output; 1: off")
      ->type_name("X")
      ->group(group);
  app->add_option("--presence-penalty", c.presence_penalty,
                  "Taken off the logit of tokens in the output; 0: off")
      ->type_name("X")
      ->group(group);
  app->add_option("--frequency-penalty", c.frequency_penalty,
                  "Taken off once per occurrence in the output; 0: off")
      ->type_name("X")
      ->group(group);
}

void add_sampling(CLI::App* app, infer::SamplerConfig& c) {
  add_sampling_defaults(app, c);
  app->add_option("--seed", c.seed, "The same seed draws the same tokens")
      ->check(seed_range())
      ->type_name("S")
      ->group(kSamplingGroup);
}

}  // namespace cachalot::cli
