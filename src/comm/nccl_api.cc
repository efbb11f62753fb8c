#include "comm/nccl_api.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>

namespace cachalot::comm {

namespace {

constexpr int kOldest = 21300;
constexpr const char* kHowToGet =
    "install it (NVIDIA's package libnccl2, or the Python package nvidia-nccl for the CUDA of the "
    "driver) and put its folder on LD_LIBRARY_PATH, or name the file with CACHALOT_NCCL";

template <class F>
void find(void* library, const std::string& file, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  if (function == nullptr) {
    throw Error(Code::kUnsupported, cat(file, " has no ", name,
                                        ", so it is no NCCL of version 2.13 "
                                        "or later: ",
                                        kHowToGet));
  }
}

}  // namespace

NcclApi load_nccl(const char* name) {
  const std::string file = name != nullptr && *name != '\0' ? name : "libnccl.so.2";
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw Error(Code::kUnsupported,
                cat("ranks that compute on GPUs need NCCL, which was not found (", dlerror(),
                    "): ", kHowToGet));
  }
  NcclApi api;
  find(library, file, "ncclGetVersion", api.get_version);
  api.get_version(&api.version);
  if (api.version < kOldest) {
    // Before 2.9 the number had a digit less.
    throw Error(Code::kUnsupported, cat(file, " is NCCL of version number ", api.version,
                                        "; 2.13 (", kOldest, ") or later is needed: ", kHowToGet));
  }
  find(library, file, "ncclGetErrorString", api.get_error_string);
  find(library, file, "ncclGetLastError", api.get_last_error);
  find(library, file, "ncclGetUniqueId", api.get_unique_id);
  find(library, file, "ncclCommInitRank", api.comm_init_rank);
  find(library, file, "ncclCommDestroy", api.comm_destroy);
  find(library, file, "ncclCommAbort", api.comm_abort);
  find(library, file, "ncclCommGetAsyncError", api.comm_get_async_error);
  find(library, file, "ncclAllReduce", api.all_reduce);
  find(library, file, "ncclAllGather", api.all_gather);
  find(library, file, "ncclReduceScatter", api.reduce_scatter);
  find(library, file, "ncclBroadcast", api.broadcast);
  find(library, file, "ncclSend", api.send);
  find(library, file, "ncclRecv", api.receive);
  find(library, file, "ncclGroupStart", api.group_start);
  find(library, file, "ncclGroupEnd", api.group_end);
  return api;
}

const NcclApi& nccl_api() {
  static const NcclApi api = load_nccl(std::getenv("CACHALOT_NCCL"));
  return api;
}

}  // namespace cachalot::comm
