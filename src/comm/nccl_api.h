// The part of NCCL that is used, found when it is needed, so that a program without it still runs
// everything else; and in every build, since no header of NCCL or CUDA is needed.
//
// Declarations after NCCL's documentation of its C API:
// docs.nvidia.com/deeplearning/nccl/user-guide/docs/api.html (comms, colls, p2p, types).
#pragma once

#include <cstddef>
#include <memory>

#include "comm/collectives.h"

namespace cachalot::comm {

using NcclComm = struct ncclComm*;
using NcclResult = int;
inline constexpr NcclResult kNcclSuccess = 0, kNcclInProgress = 7;
// ncclDataType_t and ncclRedOp_t
inline constexpr int kNcclInt8 = 0, kNcclInt32 = 2, kNcclFloat32 = 7, kNcclFloat64 = 8,
                     kNcclBfloat16 = 9;
inline constexpr int kNcclSum = 0;

struct NcclUniqueId {
  char internal[128];  // NCCL_UNIQUE_ID_BYTES
};

struct NcclApi {
  NcclResult (*get_version)(int*) = nullptr;
  const char* (*get_error_string)(NcclResult) = nullptr;
  const char* (*get_last_error)(NcclComm) = nullptr;  // since 2.13
  NcclResult (*get_unique_id)(NcclUniqueId*) = nullptr;
  NcclResult (*comm_init_rank)(NcclComm*, int ranks, NcclUniqueId, int rank) = nullptr;
  NcclResult (*comm_destroy)(NcclComm) = nullptr;
  NcclResult (*comm_abort)(NcclComm) = nullptr;
  NcclResult (*comm_get_async_error)(NcclComm, NcclResult*) = nullptr;
  NcclResult (*all_reduce)(const void*, void*, std::size_t n, int type, int op, NcclComm,
                           void* stream) = nullptr;
  NcclResult (*all_gather)(const void*, void*, std::size_t n, int type, NcclComm,
                           void* stream) = nullptr;
  NcclResult (*reduce_scatter)(const void*, void*, std::size_t n, int type, int op, NcclComm,
                               void* stream) = nullptr;
  NcclResult (*broadcast)(const void*, void*, std::size_t n, int type, int root, NcclComm,
                          void* stream) = nullptr;
  NcclResult (*send)(const void*, std::size_t n, int type, int peer, NcclComm,
                     void* stream) = nullptr;
  NcclResult (*receive)(void*, std::size_t n, int type, int peer, NcclComm, void* stream) = nullptr;
  NcclResult (*group_start)() = nullptr;
  NcclResult (*group_end)() = nullptr;
  int version = 0;  // 22707: 2.27.7
};

// $CACHALOT_NCCL, a file, or libnccl.so.2; found once. Throws kUnsupported, saying what to do.
const NcclApi& nccl_api();
// Of a file; an empty name: libnccl.so.2.
NcclApi load_nccl(const char* file);

// Collectives through this one; it outlives them.
std::unique_ptr<Collectives> nccl(const NcclApi& api, const NcclId& id, int rank, int ranks,
                                  Device& device);

}  // namespace cachalot::comm
