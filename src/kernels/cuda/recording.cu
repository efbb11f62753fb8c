// Launches recorded as a CUDA graph and made again; not with CACHALOT_CUDA_RECORD=0, to find a
// fault.
#include <cstdlib>
#include <cstring>

#include "kernels/cuda/launch_times.cuh"
#include "kernels/cuda/stream.cuh"

namespace cachalot::cuda {

namespace {

class GraphRecording final : public Recording {
 public:
  GraphRecording(CudaDevice& device, cudaGraphExec_t graph, LaunchTimes::Marks marks)
      : device_(device), graph_(graph), moves_(device.scratch_moves()), marks_(std::move(marks)) {}
  ~GraphRecording() override {
    cudaStreamSynchronize(device_.stream());
    cudaGraphExecDestroy(graph_);
    for (auto& [kernel, event] : marks_) cudaEventDestroy(event);
  }
  bool replay() override {
    if (moves_ != device_.scratch_moves()) return false;
    check(cudaGraphLaunch(graph_, device_.stream()), "replaying a recording");
    if (LaunchTimes* times = LaunchTimes::current(); times != nullptr) {
      times->replayed(marks_, device_.stream());
    }
    return true;
  }

 private:
  CudaDevice& device_;
  cudaGraphExec_t graph_;
  std::uint64_t moves_;
  LaunchTimes::Marks marks_;
};

bool recording_allowed() {
  static const bool allowed = [] {
    const char* text = std::getenv("CACHALOT_CUDA_RECORD");
    return text == nullptr || std::string_view(text) != "0";
  }();
  return allowed;
}

}  // namespace

void CudaDevice::forbid_recording(const char* what) const {
  if (!recording_) return;
  throw Error(Code::kInternal, cat("CUDA: ", what, " while launches are recorded"));
}

void CudaDevice::begin_recording() {
  if (!recording_allowed()) return;  // launches are made as they come
  forbid_recording("recording");
  check(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeRelaxed), "recording");
  recording_ = true;
  if (LaunchTimes* times = LaunchTimes::current(); times != nullptr) {
    times->begin_recording(stream_);
  }
}

std::unique_ptr<Recording> CudaDevice::end_recording() {
  if (!recording_) return nullptr;
  recording_ = false;
  LaunchTimes::Marks marks;
  if (LaunchTimes* times = LaunchTimes::current(); times != nullptr) {
    marks = times->end_recording();
  }
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream(), &graph), "ending a recording");
  cudaGraphExec_t exec = nullptr;
  const cudaError_t result = cudaGraphInstantiate(&exec, graph, 0);
  cudaGraphDestroy(graph);
  check(result, "making a recording ready");
  return std::make_unique<GraphRecording>(*this, exec, std::move(marks));
}

const void* CudaDevice::keep(const void* from, std::size_t bytes) {
  const std::string_view text(static_cast<const char*>(from), bytes);
  if (const auto same = kept_.find(text); same != kept_.end()) return same->second;
  use();
  constexpr std::size_t kSlab = std::size_t{4} << 20;
  const std::size_t rounded = (bytes + 255) / 256 * 256;
  if (rounded > kept_left_) {
    void* slab = nullptr;
    check(cudaMalloc(&slab, std::max(rounded, kSlab)), "allocating for lists that are kept");
    kept_slabs_.push_back(slab);
    kept_next_ = static_cast<std::byte*>(slab);
    kept_left_ = std::max(rounded, kSlab);
  }
  std::byte* to = kept_next_;
  kept_next_ += rounded;
  kept_left_ -= rounded;
  // By a stream of its own: the other may be recording. Nothing reads this memory yet.
  cudaStream_t aside = nullptr;
  check(cudaStreamCreateWithFlags(&aside, cudaStreamNonBlocking), "making a stream");
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, aside), "keeping a list");
  check(cudaStreamSynchronize(aside), "keeping a list");
  cudaStreamDestroy(aside);
  kept_.emplace(std::string(text), to);
  return to;
}

}  // namespace cachalot::cuda
