#include "plan/usual_batch.h"

#include <fmt/format.h>

#include <cstdint>

#include "base/grouped.h"

namespace cachalot::plan {

UsualBatch usual_batch(int devices, int sequence) {
  const int each = kUsualStepTokens / sequence / devices;
  UsualBatch batch;
  if (each >= 1) {
    batch.sequences = each * devices;
    batch.why = fmt::format(
        "{} for each of {} device{} are {} tokens, and one more each would pass the usual {}", each,
        grouped(devices), devices == 1 ? "" : "s",
        grouped(std::int64_t{batch.sequences} * sequence), grouped(kUsualStepTokens));
  } else {
    batch.sequences = devices;
    batch.why = fmt::format(
        "one for each of {} device{} is the least that gives every device work ({} tokens, more "
        "than the usual {})",
        grouped(devices), devices == 1 ? "" : "s",
        grouped(std::int64_t{batch.sequences} * sequence), grouped(kUsualStepTokens));
  }
  return batch;
}

}  // namespace cachalot::plan
