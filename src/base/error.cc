#include "base/error.h"

namespace cachalot {

int exit_status(Code code) noexcept { return code == Code::kUsage ? 2 : 1; }

std::string_view name(Code code) noexcept {
  switch (code) {
    case Code::kUsage:
      return "usage";
    case Code::kConfig:
      return "config";
    case Code::kFormat:
      return "format";
    case Code::kIo:
      return "io";
    case Code::kShape:
      return "shape";
    case Code::kUnsupported:
      return "unsupported";
    case Code::kBusy:
      return "busy";
    case Code::kNumeric:
      return "numeric";
    case Code::kInterrupted:
      return "interrupted";
    case Code::kInternal:
      return "internal";
  }
  return "internal";
}

}  // namespace cachalot
