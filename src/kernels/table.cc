#include "kernels/table.h"

namespace cachalot {

constinit const KernelTable kReferenceTable{};

}  // namespace cachalot
