#include "runtime/describe.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <thread>

#include "kernels/cpu/caches.h"
#include "kernels/cpu/levels.h"
#include "kernels/table.h"

namespace cachalot::runtime {

namespace {

std::string cpu_name() {
  std::ifstream in("/proc/cpuinfo");
  std::string line;
  while (std::getline(in, line)) {
    const auto colon = line.find(':');
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) {
      const auto begin = line.find_first_not_of(' ', colon + 1);
      return begin == std::string::npos ? "unknown" : line.substr(begin);
    }
  }
  return "unknown";
}

std::size_t memory_bytes() {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page = sysconf(_SC_PAGE_SIZE);
  return pages > 0 && page > 0 ? static_cast<std::size_t>(pages) * static_cast<std::size_t>(page)
                               : 0;
}

std::vector<SlotInfo> slots_of(const KernelTable& t) {
  const KernelTable& r = kReferenceTable;
  return {
      {"gemm", t.gemm != r.gemm},
      {"pack_b", t.pack_b != r.pack_b},
      {"packs_bf16_in_pairs", t.packs_bf16_in_pairs != r.packs_bf16_in_pairs},
      {"gemm_fp8", t.gemm_fp8 != r.gemm_fp8},
      {"quant_linear", t.quant_linear != r.quant_linear},
      {"pack_quant", t.pack_quant != r.pack_quant},
      {"gemm_fp8_hopper", t.gemm_fp8_hopper != r.gemm_fp8_hopper},
      {"quantize_fp8", t.quantize_fp8 != r.quantize_fp8},
      {"requantize_fp8", t.requantize_fp8 != r.requantize_fp8},
      {"dequantize_fp8", t.dequantize_fp8 != r.dequantize_fp8},
      {"quantize_groups", t.quantize_groups != r.quantize_groups},
      {"rms_norm_fp8", t.rms_norm_fp8 != r.rms_norm_fp8},
      {"swiglu_fp8", t.swiglu_fp8 != r.swiglu_fp8},
      {"swiglu_backward_fp8", t.swiglu_backward_fp8 != r.swiglu_backward_fp8},
      {"rms_norm", t.rms_norm != r.rms_norm},
      {"rms_norm_backward", t.rms_norm_backward != r.rms_norm_backward},
      {"rope", t.rope != r.rope},
      {"attention", t.attention != r.attention},
      {"attention_backward", t.attention_backward != r.attention_backward},
      {"latent_attention", t.latent_attention != r.latent_attention},
      {"store_latent", t.store_latent != r.store_latent},
      {"plan_latents", t.plan_latents != r.plan_latents},
      {"store_planned", t.store_planned != r.store_planned},
      {"norm_planned", t.norm_planned != r.norm_planned},
      {"attend_planned", t.attend_planned != r.attend_planned},
      {"load_latent", t.load_latent != r.load_latent},
      {"expert_order", t.expert_order != r.expert_order},
      {"choices_to_rows", t.choices_to_rows != r.choices_to_rows},
      {"rows_to_choices", t.rows_to_choices != r.rows_to_choices},
      {"add_rows", t.add_rows != r.add_rows},
      {"copy_rows", t.copy_rows != r.copy_rows},
      {"zero_rows", t.zero_rows != r.zero_rows},
      {"scale_rows", t.scale_rows != r.scale_rows},
      {"copy_heads", t.copy_heads != r.copy_heads},
      {"rotate_heads", t.rotate_heads != r.rotate_heads},
      {"gather_codes", t.gather_codes != r.gather_codes},
      {"swiglu", t.swiglu != r.swiglu},
      {"swiglu_backward", t.swiglu_backward != r.swiglu_backward},
      {"swiglu_bf16", t.swiglu_bf16 != r.swiglu_bf16},
      {"swiglu_backward_bf16", t.swiglu_backward_bf16 != r.swiglu_backward_bf16},
      {"gather_rows_bf16", t.gather_rows_bf16 != r.gather_rows_bf16},
      {"combine_bf16", t.combine_bf16 != r.combine_bf16},
      {"rope_bf16", t.rope_bf16 != r.rope_bf16},
      {"embedding", t.embedding != r.embedding},
      {"embedding_backward", t.embedding_backward != r.embedding_backward},
      {"dropout", t.dropout != r.dropout},
      {"sum_squares", t.sum_squares != r.sum_squares},
      {"cross_entropy", t.cross_entropy != r.cross_entropy},
      {"route", t.route != r.route},
      {"routed_rows", t.routed_rows != r.routed_rows},
      {"takes_routed_rows", t.takes_routed_rows != r.takes_routed_rows},
      {"route_backward", t.route_backward != r.route_backward},
      {"balance_loss", t.balance_loss != r.balance_loss},
      {"gather_rows", t.gather_rows != r.gather_rows},
      {"combine", t.combine != r.combine},
      {"combine_backward", t.combine_backward != r.combine_backward},
      {"store_bf16", t.store_bf16 != r.store_bf16},
      {"load_bf16", t.load_bf16 != r.load_bf16},
      {"store_e5m6", t.store_e5m6 != r.store_e5m6},
      {"load_e5m6", t.load_e5m6 != r.load_e5m6},
      {"payload_round_trip", t.payload_round_trip != r.payload_round_trip},
      {"adamw", t.adamw != r.adamw},
      {"adamw_bf16", t.adamw_bf16 != r.adamw_bf16},
      {"weight_average", t.weight_average != r.weight_average},
  };
}

}  // namespace

int allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

Description describe(const Runtime& runtime) {
  Description d;
  d.cpu = cpu_name();
  d.level = runtime.level();
  for (const cpu::Level level : cpu::supported_levels()) d.levels.emplace_back(cpu::name(level));
  d.bf16 = cpu::bf16_source();
  d.threads = runtime.threads();
  d.cores = allowed_cores();
  d.memory_bytes = memory_bytes();
  d.l1d_bytes = cpu::caches().l1d;
  d.l2_bytes = cpu::caches().l2;
  d.l3_bytes = cpu::caches().l3;
  d.topology = runtime.topology();
  d.pinned = runtime.pinned();
  d.pin_reason = runtime.pin_reason();
  d.huge_pages = huge_pages();
  if (const Device* device = runtime.context().device; device != nullptr) d.device = device->name();
  d.slots = slots_of(runtime.context().ops());
  return d;
}

}  // namespace cachalot::runtime
