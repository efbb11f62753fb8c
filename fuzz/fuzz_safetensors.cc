// Any bytes as a safetensors file: a clear Error, or tensors that lie inside the file.
// Links: io
#include <cstdlib>

#include "base/error.h"
#include "io/safetensors.h"

namespace {

using cachalot::Code;
using cachalot::Error;

void require(bool truth) {
  if (!truth) std::abort();
}

// Runs what may refuse with one of two codes; anything else that is thrown ends the fuzzer.
template <class Run>
void may_refuse(Code a, Code b, Run run) {
  try {
    run();
  } catch (const Error& e) {
    require(e.code() == a || e.code() == b);
  }
}

void use(const cachalot::io::TensorView& view) {
  // Reads every byte, so that a view past the end is seen.
  may_refuse(Code::kUnsupported, Code::kUnsupported, [&] { (void)view.to_floats(); });
  may_refuse(Code::kUnsupported, Code::kUnsupported, [&] { (void)view.to_doubles(); });
  may_refuse(Code::kUnsupported, Code::kUnsupported, [&] { (void)view.to_ints(); });
  may_refuse(Code::kShape, Code::kShape, [&] {
    const auto mat = view.ref();
    require(mat.rows >= 0 && mat.cols >= 0);
    require(static_cast<std::uint64_t>(mat.rows) * static_cast<std::uint64_t>(mat.cols) *
                size_of(mat.dtype) ==
            view.bytes);
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  may_refuse(Code::kFormat, Code::kFormat, [&] {
    std::map<std::string, std::string> metadata;
    std::size_t used = 0;
    for (const auto& [name, view] : cachalot::io::parse_header(bytes, "fuzz", &metadata)) {
      const auto* begin = static_cast<const std::byte*>(view.data);
      require(begin >= bytes.data() + 8 && begin + view.bytes <= bytes.data() + bytes.size());
      require(static_cast<std::uint64_t>(view.size()) * size_of(view.dtype) == view.bytes);
      used += view.bytes;
      use(view);
    }
    require(used <= size);  // no byte is counted twice
  });
  return 0;
}
