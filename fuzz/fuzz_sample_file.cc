// Any bytes as a file of samples: kFormat, or a table whose samples follow each other through all
// of the tokens that the head promises. The checksum is also put right, so that what lies behind it
// is reached.
// Links: text
#include <xxhash.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "base/error.h"
#include "text/sample_file.h"

namespace {

using namespace cachalot::text;  // NOLINT: a fuzzer of one room

constexpr std::size_t kHeadBytes = 64, kTokensAt = 32, kHashAt = 56;

void require(bool truth) {
  if (!truth) std::abort();
}

void use(const std::string& bytes) {
  SampleTable table;
  try {
    table = SampleTable::parse(std::as_bytes(std::span(bytes)), "fuzzed", 0, /*ids_hash=*/0);
  } catch (const cachalot::Error& e) {
    require(e.code() == cachalot::Code::kFormat);
    return;
  }
  std::uint64_t promised;
  std::memcpy(&promised, bytes.data() + kTokensAt, sizeof promised);
  require(table.tokens() == promised);
  SampleTable again;
  std::uint64_t begin = 0, learnt = 0;
  for (std::int64_t i = 0; i < table.samples(); ++i) {
    require(table.begin(i) == begin && table.tokens(i) >= 2);
    std::uint64_t tokens = 0;
    for (const SampleRun& run : table.runs(i)) {
      require(run.read > 0 || run.learnt > 0);
      tokens += std::uint64_t{run.read} + run.learnt;
      learnt += run.learnt;
    }
    require(tokens == table.tokens(i));
    begin += tokens;
    again.add(table.runs(i));  // takes whatever was read
  }
  require(begin == promised && learnt == table.learnt_tokens());
  require(again.tokens() == promised && again.samples() == table.samples());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  use(bytes);
  if (size < kHeadBytes) return 0;
  const std::uint64_t body = XXH64(bytes.data() + kHeadBytes, size - kHeadBytes, 0);
  const std::uint64_t sum = XXH64(bytes.data(), kHashAt, body);
  std::memcpy(bytes.data() + kHashAt, &sum, sizeof sum);
  use(bytes);
  return 0;
}
