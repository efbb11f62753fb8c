#include "kernels/cpu/simd.h"

#ifdef CACHALOT_X86
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/tables.h"

namespace cachalot::cpu {

constinit const KernelTable kAvx512Table = [] {
  KernelTable table;
  table.name = "avx512";
  add_avx512(table);
  return table;
}();

}  // namespace cachalot::cpu
#endif
