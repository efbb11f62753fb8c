// For the engine's tests: the oracle's prompts and greedy continuations of a model folder, and
// random requests.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "infer/engine.h"
#include "io/safetensors.h"
#include "model/forward.h"
#include "runtime/runtime.h"
#include "tensor/host_copy.h"
#include "testing/fixtures.h"

namespace cachalot::infer {

inline std::vector<std::int32_t> tokens_of(const io::Safetensors& file, const std::string& name) {
  const std::vector<std::int64_t> wide = file.at(name).to_ints();
  return {wide.begin(), wide.end()};
}

struct Golden {
  std::vector<std::vector<std::int32_t>> prompts, greedy;
};

inline Golden load_golden(const std::filesystem::path& folder) {
  const auto file = io::Safetensors::open(folder / "expected.safetensors");
  Golden golden;
  for (int n = 0;; ++n) {
    const std::string prefix = "s" + std::to_string(n) + ".";
    if (file.find(prefix + "greedy") == nullptr) break;
    golden.prompts.push_back(tokens_of(file, prefix + "tokens"));
    golden.greedy.push_back(tokens_of(file, prefix + "greedy"));
  }
  return golden;
}

inline std::vector<Request> requests_of(const Golden& golden, const SamplerConfig& sampling = {}) {
  std::vector<Request> requests;
  for (std::size_t i = 0; i < golden.prompts.size(); ++i) {
    Request r;
    r.prompt = golden.prompts[i];
    r.sampling = sampling;
    r.stream = i;
    r.max_tokens = static_cast<int>(golden.greedy[i].size());
    requests.push_back(std::move(r));
  }
  return requests;
}

inline std::vector<std::filesystem::path> model_folders() {
  const auto folders = testing::fixture_folders(testing::FixtureKind::kModel);
  EXPECT_FALSE(folders.empty()) << "no model fixtures below " << testing::fixtures_root();
  return folders;
}

// Of a Runtime on the device that $CACHALOT_DEVICE names, if it names one.
inline runtime::RuntimeOptions anywhere(int threads = 0) {
  return {.threads = threads, .cpu = {}, .on_device = true};
}

inline model::Model load_for(const runtime::Runtime& rt, const std::filesystem::path& folder,
                             Precision precision) {
  return model::Model::load(folder, {.precision = precision, .context = &rt.context()});
}

// One that has an MTP layer.
inline std::filesystem::path model_with_mtp() {
  for (const auto& folder : model_folders()) {
    if (model::Model::load(folder, Precision::kF32).has_mtp()) return folder;
  }
  ADD_FAILURE() << "no model fixture has an MTP layer";
  return {};
}

// `length` tokens that differ from seed to seed.
inline std::vector<std::int32_t> random_tokens(int length, int vocab, std::uint64_t seed) {
  const Rng rng(seed);
  std::vector<std::int32_t> tokens;
  for (int i = 0; i < length; ++i) {
    tokens.push_back(static_cast<std::int32_t>(rng.uniform(static_cast<std::uint64_t>(i)) * vocab));
  }
  return tokens;
}

// A model with drafts, and requests for it.
struct Fixture {
  runtime::Runtime rt{anywhere()};
  std::filesystem::path folder = model_with_mtp();
  model::Model model = load_for(rt, folder, Precision::kF32);
  int vocab = model.config().vocab_size;
  int context = model.config().max_position_embeddings;

  Request request(int prompt, int max_tokens, std::uint64_t seed) const {
    Request r;
    r.prompt = random_tokens(prompt, vocab, seed);
    r.max_tokens = max_tokens;
    r.sampling = {.temperature = 1, .seed = seed};
    return r;
  }
  Result alone(Request request, const EngineConfig& config = {.mtp = MtpMode::kOff}) const {
    request.on_token = nullptr;
    request.on_done = nullptr;
    return Engine(rt.context(), model, config).run(request);
  }
  // For a pass of one's own: where the model lies; and its logits, for the host to look at.
  model::CachePool pool(int count) const {
    return model::CachePool(model.config(), LatentFormat::kF32, pages(count), rt.context().device);
  }
  Mat<float> logits(model::Forward& forward, MatView<const float> row) const {
    const MemoryScope scope(rt.context().device);
    Mat<float> out;
    out.resize(1, vocab);
    forward.logits(row, out.view());
    return host_copy(out.cview(), rt.context().device);
  }
  std::size_t pages(int count) const {
    return model::CachePool::bytes_for(model.config(), LatentFormat::kF32, kLatentBlock, count);
  }
};

}  // namespace cachalot::infer
