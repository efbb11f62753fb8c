#include "infer/computing_code.h"

#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif

#include "base/error.h"

namespace cachalot::infer {

std::string computing_code() {
#ifdef __GLIBC__
  const char* library = gnu_get_libc_version();
#else
  const char* library = "unknown";
#endif
  return cat(sources_fingerprint(), "/", library);
}

}  // namespace cachalot::infer
