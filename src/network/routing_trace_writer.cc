#include "network/routing_trace_writer.h"

#include <algorithm>
#include <span>

#include "base/error.h"
#include "network/routing_trace_text.h"

namespace cachalot::network {

RoutingTraceWriter::RoutingTraceWriter(const std::filesystem::path& file, int ranks, int experts,
                                       int topk, std::int64_t most_bytes)
    : file_(file), ranks_(ranks), experts_(experts), topk_(topk), most_bytes_(most_bytes) {
  const auto need = [&](const char* what, int value, int most) {
    if (value >= 1 && value <= most) return;
    throw Error(Code::kUsage, cat("a routing trace of ", value, " ", what,
                                  " cannot be written: it holds 1 to ", most));
  };
  need("ranks", ranks, kMostRanks);
  need("experts", experts, kMostExperts);
  need("experts per token", topk, std::min(experts, kMostTopk));
  const std::string head = trace_head(ranks, experts, topk);
  file_.write(head);
  bytes_ = static_cast<std::int64_t>(head.size());
}

bool RoutingTraceWriter::append(std::int64_t pass, int layer, MatView<const std::int32_t> chosen) {
  if (chosen.cols != topk_) {
    throw Error(Code::kShape, cat("a token of this routing trace has ", topk_,
                                  " experts; here are ", chosen.cols));
  }
  if (chosen.rows == 0) return true;
  text_.clear();
  append_exchange(text_, pass, layer);
  for (int t = 0; t < chosen.rows; ++t) {
    append_token(text_, std::int64_t{t} * ranks_ / chosen.rows,
                 std::span<const std::int32_t>(chosen.row(t), static_cast<std::size_t>(topk_)));
  }
  const auto size = static_cast<std::int64_t>(text_.size());
  if (bytes_ + size > most_bytes_) return false;
  file_.write(text_);
  bytes_ += size;
  ++exchanges_;
  tokens_ += chosen.rows;
  return true;
}

void RoutingTraceWriter::commit() { file_.commit(); }

}  // namespace cachalot::network
