#include "model/forward_small.h"

#include <algorithm>
#include <numeric>

#include "kernels/elementwise.h"

namespace cachalot::model {

namespace {

constexpr int kPlainPasses = 2;           // of a shape, before one is recorded
constexpr std::size_t kMostShapes = 256;  // the one that was not seen for longest is forgotten

}  // namespace

Forward::Small* Forward::small_pass(std::span<const Chunk> chunks, bool mtp) {
  Device* device = ctx_.device;
  if (device == nullptr || !device->can_record() || routing_tap_.hear) return nullptr;
  int rows = 0;
  for (const Chunk& chunk : chunks) {
    const auto n = static_cast<int>(chunk.tokens.size());
    const int begin = mtp ? chunk.cache->mtp_length() : chunk.cache->length();
    if (n == 0 || !is_absorbed(begin, n)) return nullptr;
    rows += n;
  }
  if (rows == 0 || rows > Small::kMostRows) return nullptr;
  if (small_ == nullptr) small_ = std::make_unique<Small>(*this);
  small_->allow_recording(may_record_);
  return small_->takes(rows) ? small_.get() : nullptr;
}

bool Forward::Small::takes(int rows) {
  const auto known = taken_.find(rows);
  if (known != taken_.end()) return known->second;
  Forward& f = forward_;
  const nn::Weights& w = f.model_.weights();
  const auto routes = [&](const nn::BlockWeights& block) {
    return !block.is_moe || nn::routes_on_device(f.ctx_, f.num_, f.dims_, block.moe, rows, f.moe_);
  };
  bool all = !f.num_.fp8 && std::all_of(w.layers.begin(), w.layers.end(), routes);
  for (const nn::MtpWeights& mtp : w.mtp) all = all && routes(mtp.block);
  taken_[rows] = all;
  return all;
}

// Where rows are stored and what they attend over, of the first layer.
void Forward::Small::plan(std::span<const Chunk> chunks, bool mtp, int rows) {
  Forward& f = forward_;
  const nn::BlockDims& d = f.dims_;
  f.mla_.kv_a.resize(rows, d.cache_width());
  f.mla_.c_kv.resize(rows, d.kv_lora);
  f.mla_.q_latent.resize(rows, d.heads.heads * d.cache_width());
  f.mla_.context.resize(rows, d.heads.heads * d.kv_lora);
  planned_.stores.clear();
  planned_.problems.clear();
  const int layer = mtp ? f.model_.config().num_hidden_layers : 0;
  int row = 0;
  for (const Chunk& chunk : chunks) {
    const auto n = static_cast<int>(chunk.tokens.size());
    const int begin = mtp ? chunk.cache->mtp_length() : chunk.cache->length();
    chunk.cache->list_writes(layer, begin, f.mla_.c_kv.cview().sub_rows(row, n),
                             f.mla_.k_rope().sub_rows(row, n), planned_.stores);
    const nn::LatentSpan span{row, n, chunk.cache->rows(layer, begin + n)};
    planned_.problems.push_back(nn::latent_problem(f.num_, d, span, f.mla_));
    row += n;
  }
  plan_latents(f.ctx_, planned_);
}

void Forward::Small::launch(std::span<const Chunk> chunks, bool mtp) {
  if (mtp) {
    forward_.mtp_pass(chunks, hidden_.cview(), nullptr);
  } else {
    forward_.main_pass(chunks, nullptr);
  }
}

Forward::Small::Shape& Forward::Small::shape_of(bool mtp, int rows) {
  std::vector<std::int64_t> key = {mtp ? 1 : 0, rows};
  key.insert(key.end(), planned_.shape.begin(), planned_.shape.end());
  Shape& shape = shapes_[key];
  shape.last = ++passes_;
  if (shapes_.size() > kMostShapes) {
    const auto oldest = std::min_element(shapes_.begin(), shapes_.end(), [](auto& a, auto& b) {
      return a.second.last < b.second.last;
    });
    shapes_.erase(oldest);
  }
  return shape;
}

MatView<const float> Forward::Small::run(std::span<const Chunk> chunks, bool mtp,
                                         MatView<const float> hidden) {
  Forward& f = forward_;
  Device& device = *f.ctx_.device;
  const int rows = std::accumulate(chunks.begin(), chunks.end(), 0, [](int sum, const Chunk& c) {
    return sum + static_cast<int>(c.tokens.size());
  });
  const std::uint64_t before = device.allocations();
  f.x_.resize(rows, f.dims_.hidden);
  f.h_.resize(rows, f.dims_.hidden);
  if (mtp) {
    hidden_.resize(rows, f.dims_.hidden);
    copy_rows(f.ctx_, hidden, hidden_.view());
  }
  f.take_tokens(chunks, mtp);
  plan(chunks, mtp, rows);
  f.planned_ = &planned_;
  if (device.allocations() != before) shapes_.clear();  // what recordings read may have moved
  Shape& shape = shape_of(mtp, rows);
  const bool replayed = f.may_record_ && shape.recording != nullptr && shape.recording->replay();
  if (!replayed && f.may_record_ && shape.plain >= kPlainPasses) {
    device.begin_recording();
    try {
      launch(chunks, mtp);
    } catch (...) {
      device.end_recording();
      throw;
    }
    shape.recording = device.end_recording();
    if (shape.recording != nullptr && !shape.recording->replay()) {
      throw Error(Code::kInternal, "a recording cannot be replayed right after it was made");
    }
  } else if (!replayed) {
    ++shape.plain;
    launch(chunks, mtp);
    if (device.allocations() != before) shapes_.clear();
  }
  return mtp ? f.x_.cview() : f.h_.cview();
}

}  // namespace cachalot::model
