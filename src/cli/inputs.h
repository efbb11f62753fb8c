// What commands read: token lists, prompts, text files; and the flags for them.
//
// Errors: kUsage names the flag and the bad item, kIo the file.
#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "infer/sampler.h"
#include "kernels/context.h"
#include "model/weights.h"

namespace cachalot::cli {

// "1,2,3", or @FILE with ids separated by commas or white space. At least one.
std::vector<std::int32_t> parse_tokens(const std::string& list);
// The ids of `text`; `where` is for messages.
// Ids between commas or white space; may be none.
std::vector<std::int32_t> parse_token_text(const std::string& text, const std::string& where);
std::string join_tokens(const std::vector<std::int32_t>& tokens);

// A whole file, "-" for standard input.
std::string read_text(const std::string& path);
// kUsage unless `text` is UTF-8; `what` begins the message ("--prompt").
void require_utf8(std::string_view text, std::string_view what);

// How long a command uses a model: a copy of the weights in the order in which products read them
// takes seconds to make (memory that the system clears page by page), which many passes win back.
enum class ModelUse : std::uint8_t { kOnce, kLong };
// How a model is loaded for --precision f32, bf16, fp8, int8 or auto on this machine.
model::LoadOptions load_options(const std::string& folder, const std::string& precision,
                                const Context& ctx, ModelUse use);

// The positional MODEL, and flags that several commands share. The bound values must outlive `app`.
void add_model_folder(CLI::App* app, std::string& folder);
void add_precision(CLI::App* app, std::string& precision);
// The same for commands that generate: auto too, which is what they compute in unless told.
inline constexpr const char* kAutoPrecision = "auto";
void add_precision_or_auto(CLI::App* app, std::string& precision);
void add_sampling(CLI::App* app, infer::SamplerConfig& config);
// The same without --seed, for a server: what requests get that do not say.
void add_sampling_defaults(CLI::App* app, infer::SamplerConfig& config);

}  // namespace cachalot::cli
