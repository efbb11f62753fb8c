#include "kernels/cpu/simd.h"

#ifdef CACHALOT_X86
#include "kernels/cpu/avx512bf16.h"
#include "kernels/cpu/tables.h"

namespace cachalot::cpu {

constinit const KernelTable kAvx512Bf16Table = [] {
  KernelTable table;
  table.name = "avx512bf16";
  add_avx512bf16(table);
  return table;
}();

}  // namespace cachalot::cpu
#endif
