#include "plan/infer_grid.h"

#include <algorithm>

namespace cachalot::plan {

template <class T>
std::vector<T> grid_positions(std::vector<T> asked, const std::vector<T>& round) {
  const auto tidy = [](std::vector<T>& v) {
    std::sort(v.begin(), v.end());
    v.erase(std::unique(v.begin(), v.end()), v.end());
  };
  tidy(asked);
  if (asked.size() > kMostGridPositions) {
    std::vector<T> some;
    for (std::size_t i = 0; i < kMostGridPositions; ++i) {
      some.push_back(asked[i * (asked.size() - 1) / (kMostGridPositions - 1)]);
    }
    return some;
  }
  for (const T x : round) {
    if (asked.size() == kMostGridPositions) break;
    asked.push_back(x);
    tidy(asked);
  }
  return asked;
}
template std::vector<int> grid_positions(std::vector<int>, const std::vector<int>&);
template std::vector<double> grid_positions(std::vector<double>, const std::vector<double>&);

InferGrid infer_grid(const cost::Decoder& decoder, const HardwareProfile& hardware,
                     const InferOptions& options, const ServeLayout& layout) {
  InferGrid grid;
  grid.batches = grid_positions(options.batches, {1, 2, 4, 8, 16, 32, 64, 128, 256});
  grid.contexts = grid_positions(options.contexts, {1024, 2048, 4096, 8192, 16384, 32768, 131072});
  grid.acceptances = grid_positions<double>({0}, {});
  if (decoder.mtp_layers > 0) {
    grid.acceptances = grid_positions<double>({0, options.acceptance},
                                              {0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0});
  }
  InferOptions o = options;
  o.batches = grid.batches;
  o.contexts = grid.contexts;
  o.nodes = layout.nodes;
  o.tensor = layout.tensor;
  for (const double acceptance : grid.acceptances) {
    o.acceptance = acceptance;
    o.drafts = acceptance > 0 ? std::max(1, options.drafts) : 0;
    const InferPlan plan = plan_infer(decoder, hardware, o);
    grid.cases.insert(grid.cases.end(), plan.decode.begin(), plan.decode.end());
  }
  return grid;
}

}  // namespace cachalot::plan
