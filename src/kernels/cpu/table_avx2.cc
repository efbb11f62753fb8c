#include "kernels/cpu/simd.h"

#ifdef CACHALOT_X86
#include "kernels/cpu/avx2.h"
#include "kernels/cpu/tables.h"

namespace cachalot::cpu {

constinit const KernelTable kAvx2Table = [] {
  KernelTable table;
  table.name = "avx2";
  add_avx2(table);
  return table;
}();

}  // namespace cachalot::cpu
#endif
