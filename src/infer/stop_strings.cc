#include "infer/stop_strings.h"

#include <algorithm>

#include "base/error.h"

namespace cachalot::infer {

StopStrings::StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) {
    if (stop.empty()) {
      throw Error(Code::kUsage,
                  "a stop string is empty: it would end every text before it begins; leave it out");
    }
  }
  std::stable_sort(stops_.begin(), stops_.end(),
                   [](const auto& a, const auto& b) { return a.size() > b.size(); });
}

std::string StopStrings::push(std::string_view piece) {
  if (stopped_) return {};
  if (stops_.empty()) return std::string(piece);
  std::string out;
  for (const char byte : piece) {
    held_ += byte;
    for (const std::string& stop : stops_) {
      if (!held_.ends_with(stop)) continue;
      out += held_.substr(0, held_.size() - stop.size());
      held_.clear();
      matched_ = stop;
      stopped_ = true;
      return out;
    }
    // The longest end of held_ that begins a stop string stays, the rest is certain.
    std::size_t keep = 0;
    for (const std::string& stop : stops_) {
      for (std::size_t n = std::min(held_.size(), stop.size() - 1); n > keep; --n) {
        if (held_.ends_with(std::string_view(stop).substr(0, n))) keep = n;
      }
    }
    out += held_.substr(0, held_.size() - keep);
    held_.erase(0, held_.size() - keep);
  }
  return out;
}

std::string StopStrings::finish() {
  std::string rest;
  if (!stopped_) rest.swap(held_);
  return rest;
}

}  // namespace cachalot::infer
