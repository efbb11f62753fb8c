#include "cli/remarks.h"

#include <spdlog/spdlog.h>

namespace cachalot::cli {

void say_remarks(const std::vector<std::string>& remarks) {
  for (const std::string& remark : remarks) spdlog::warn("{}", remark);
}

}  // namespace cachalot::cli
