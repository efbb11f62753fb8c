// Every case that the sliders of a serving report can choose: batch x context x acceptance of
// drafts, on the layout that was planned.
//
// Threads: pure functions.
// Errors:  those of plan_infer.
#pragma once

#include <vector>

#include "plan/infer.h"

namespace cachalot::plan {

inline constexpr std::size_t kMostGridPositions = 16;  // of one slider

struct InferGrid {
  std::vector<int> batches, contexts;  // ascending; those asked for and round ones around them
  std::vector<double> acceptances;     // 0: no drafts; that alone where the model has no MTP layer
  std::vector<DecodeCase> cases;       // [acceptance][context][batch]
  const DecodeCase& at(std::size_t batch, std::size_t context, std::size_t acceptance) const {
    return cases.at((acceptance * contexts.size() + context) * batches.size() + batch);
  }
};

// `layout` is that of plan_infer(decoder, hardware, options).
InferGrid infer_grid(const cost::Decoder& decoder, const HardwareProfile& hardware,
                     const InferOptions& options, const ServeLayout& layout);

// `asked` and, as long as there is room, `round` ones; ascending, each once, at most
// kMostGridPositions. Of more that were asked for the first, the last and some between.
template <class T>
std::vector<T> grid_positions(std::vector<T> asked, const std::vector<T>& round);
extern template std::vector<int> grid_positions(std::vector<int>, const std::vector<int>&);
extern template std::vector<double> grid_positions(std::vector<double>, const std::vector<double>&);

}  // namespace cachalot::plan
