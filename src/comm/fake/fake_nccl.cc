// A library with NCCL's functions, of one rank whose memory is the host's: so that tests without a
// GPU call what a GPU's ranks call, and see faults that no sound machine has.
//
//   FAKE_NCCL_VERSION  what it says its version is
//   FAKE_NCCL_FAULT    "call": a sum is refused; "later": it is taken, and fails while it runs
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

struct Comm {
  int sums = 0;
};

std::string setting(const char* name) {
  const char* text = std::getenv(name);
  return text != nullptr ? text : "";
}

std::size_t bytes_of(std::size_t n, int type) {
  constexpr std::size_t kSizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
  return n * kSizes[type];
}

int move(const void* from, void* to, std::size_t bytes) {
  if (from != to) std::memcpy(to, from, bytes);
  return 0;
}

const void* sent = nullptr;  // by this rank to itself

}  // namespace

// NOLINTBEGIN(readability-identifier-naming): the names are NCCL's
extern "C" {

struct FakeId {
  char internal[128];
};

int ncclGetVersion(int* version) {
  const std::string text = setting("FAKE_NCCL_VERSION");
  *version = text.empty() ? 22707 : std::stoi(text);
  return 0;
}
const char* ncclGetErrorString(int result) {
  return result == 6 ? "remote process exited or there was a network error" : "invalid usage";
}
const char* ncclGetLastError(Comm*) { return "said by the fake"; }
int ncclGetUniqueId(FakeId* id) {
  std::memset(id->internal, 7, sizeof(id->internal));
  return 0;
}
int ncclCommInitRank(Comm** comm, int ranks, FakeId id, int rank) {
  if (ranks != 1 || rank != 0 || id.internal[127] != 7) return 5;
  *comm = new Comm;
  return 0;
}
int ncclCommDestroy(Comm* comm) {
  delete comm;
  return 0;
}
int ncclCommAbort(Comm* comm) { return ncclCommDestroy(comm); }
int ncclCommGetAsyncError(Comm* comm, int* state) {
  *state = setting("FAKE_NCCL_FAULT") == "later" && comm->sums > 0 ? 6 : 0;
  return 0;
}
int ncclAllReduce(const void* from, void* to, std::size_t n, int type, int, Comm* comm, void*) {
  if (setting("FAKE_NCCL_FAULT") == "call") return 5;
  ++comm->sums;
  return move(from, to, bytes_of(n, type));
}
int ncclAllGather(const void* from, void* to, std::size_t n, int type, Comm*, void*) {
  return move(from, to, bytes_of(n, type));
}
int ncclReduceScatter(const void* from, void* to, std::size_t n, int type, int, Comm*, void*) {
  return move(from, to, bytes_of(n, type));
}
int ncclBroadcast(const void* from, void* to, std::size_t n, int type, int root, Comm*, void*) {
  return root == 0 ? move(from, to, bytes_of(n, type)) : 5;
}
int ncclSend(const void* from, std::size_t, int, int peer, Comm*, void*) {
  sent = from;
  return peer == 0 ? 0 : 5;
}
int ncclRecv(void* to, std::size_t n, int type, int peer, Comm*, void*) {
  return peer == 0 ? move(sent, to, bytes_of(n, type)) : 5;
}
int ncclGroupStart() { return 0; }
int ncclGroupEnd() { return 0; }

}  // extern "C"
// NOLINTEND(readability-identifier-naming)
