#include "kernels/plugin/cpu/linear_kernel.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <new>
#include <thread>

#include "kernels/plugin/linear_node.h"
#include "kernels/plugin/ort_api.h"

namespace sparsefuse::plugin {
namespace {

std::atomic<int64_t> gated_rows{0}, easy_gated_rows{0};

void CountGatedRows(int64_t rows, int64_t easy) noexcept {
  gated_rows.fetch_add(rows, std::memory_order_relaxed);
  easy_gated_rows.fetch_add(easy, std::memory_order_relaxed);
}

constexpr size_t Align(size_t bytes) noexcept {
  return (bytes + kLinearAlignment - 1) / kLinearAlignment * kLinearAlignment;
}

struct AlignedDelete {
  void operator()(std::byte* bytes) const noexcept {
    operator delete[](bytes, std::align_val_t{kLinearAlignment});
  }
};
using AlignedBytes = std::unique_ptr<std::byte[], AlignedDelete>;

// One block from ONNX Runtime's arena for the time of a run, or from the stack if that is enough.
class Scratch {
 public:
  explicit Scratch(OrtAllocator* allocator) noexcept : allocator_(allocator) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    if (block_) allocator_->Free(allocator_, block_);
  }

  // Aligned bytes; null when there is no memory. Call once.
  std::byte* Get(size_t bytes) noexcept {
    if (bytes <= sizeof(near_)) return near_;
    size_t room = bytes + kLinearAlignment;
    block_ = allocator_->Alloc(allocator_, room);
    void* start = block_;
    return static_cast<std::byte*>(std::align(kLinearAlignment, bytes, start, room));
  }

 private:
  OrtAllocator* allocator_;
  void* block_ = nullptr;
  alignas(kLinearAlignment) std::byte near_[8192];
};

// The pool of the session that runs the node.
struct Pool {
  const OrtApi& api;
  const OrtKernelContext* context;
};

void RunOnPool(void* opaque, size_t count, void (*body)(void*, size_t), void* argument) {
  struct Call {
    void (*body)(void*, size_t);
    void* argument;
  } call{body, argument};
  const auto forward = [](void* c, size_t i) {
    static_cast<const Call*>(c)->body(static_cast<const Call*>(c)->argument, i);
  };
  const Pool& pool = *static_cast<const Pool*>(opaque);
  OrtStatus* status = pool.api.KernelContext_ParallelFor(pool.context, forward, count, 0, &call);
  if (!status) return;
  // Bodies write the same bytes however often they run, so a loop that failed halfway is repeated.
  pool.api.ReleaseStatus(status);
  for (size_t i = 0; i < count; ++i) body(argument, i);
}

class Linear {
 public:
  explicit Linear(const LinearOp& op) noexcept : node_(op), api_(op.api) {}
  Linear(const Linear&) = delete;
  Linear& operator=(const Linear&) = delete;
  ~Linear() {
    if (allocator_) api_.ReleaseAllocator(allocator_);
  }

  OrtStatus* Init(const OrtKernelInfo& info) noexcept { return node_.Located(Construct(info)); }
  OrtStatus* Compute(OrtKernelContext& context) noexcept { return node_.Located(Run(context)); }

 private:
  OrtStatus* Construct(const OrtKernelInfo& info) noexcept;
  OrtStatus* Run(OrtKernelContext& context) noexcept;

  LinearNode node_;
  const OrtApi& api_;
  const LinearKernel* kernel_ = nullptr;
  OrtAllocator* allocator_ = nullptr;
  int threads_ = 1;
  GateMode gate_mode_ = GateMode::kOff;
  bool constant_ = false;  // all inputs but X are initializers
  AlignedBytes prepared_;  // when constant
};

OrtStatus* Linear::Construct(const OrtKernelInfo& info) noexcept {
  SPARSEFUSE_RETURN_IF_ERROR(node_.Read(info));
  SPARSEFUSE_RETURN_IF_ERROR(ReadGateMode(api_, gate_mode_));
  kernel_ = SelectLinearKernel();
  if (!kernel_) {
    std::array<char, 256> reason;
    ExplainLinearChoice(nullptr, reason);
    return Error(api_, ORT_NOT_IMPLEMENTED, "%s", reason.data());
  }
  threads_ = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 1024u));
  SPARSEFUSE_RETURN_IF_ERROR(api_.KernelInfoGetAllocator(&info, OrtMemTypeDefault, &allocator_));

  Values values{};
  SPARSEFUSE_RETURN_IF_ERROR(node_.ReadConstants(info, values));
  constant_ = true;
  for (size_t i = 1; i < InputCount(node_.op().variant); ++i) {
    constant_ = constant_ && values[KindOf(node_.op().variant, i)];
  }
  if (!constant_) return nullptr;  // checked and prepared at each run
  LinearWeights weights{};
  SPARSEFUSE_RETURN_IF_ERROR(node_.ReadWeights(values, weights));
  const size_t bytes = kernel_->prepared_bytes(weights);
  prepared_.reset(new (std::align_val_t{kLinearAlignment}, std::nothrow) std::byte[bytes]);
  if (!prepared_) return Error(api_, ORT_FAIL, "no memory for %zu bytes of weights", bytes);
  kernel_->prepare(weights, prepared_.get());
  return nullptr;
}

OrtStatus* Linear::Run(OrtKernelContext& context) noexcept {
  RunTensors run;
  SPARSEFUSE_RETURN_IF_ERROR(node_.OpenRun(context, run));
  if (run.rows == 0) return nullptr;
  LinearWeights weights{.shape = node_.shape()};
  if (!constant_ || kernel_->reads_weights) {
    Values values{};
    SPARSEFUSE_RETURN_IF_ERROR(node_.ReadInputs(context, values));
    SPARSEFUSE_RETURN_IF_ERROR(node_.ReadWeights(values, weights));
  }
  const size_t workspace = Align(kernel_->workspace_bytes(weights.shape, run.rows));
  const size_t prepared = constant_ ? 0 : kernel_->prepared_bytes(weights);
  Scratch scratch(allocator_);
  std::byte* bytes = scratch.Get(workspace + prepared);
  if (!bytes) {
    return Error(api_, ORT_FAIL, "no memory for %zu bytes of workspace", workspace + prepared);
  }
  if (!constant_) kernel_->prepare(weights, bytes + workspace);
  Pool pool{api_, &context};
  int64_t easy_rows = 0;
  kernel_->run(weights, constant_ ? prepared_.get() : bytes + workspace,
               {.rows = run.rows,
                .x = run.x,
                .y = run.y,
                .half = node_.op().type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
                .activation = node_.op().variant.activation,
                .gate = gate_mode_,
                .easy_rows = &easy_rows,
                .workspace = bytes,
                .parallel = {.run = RunOnPool, .pool = &pool, .threads = threads_}});
  if (IsNested(weights.shape.encoding) && IsGated(gate_mode_, run.rows)) {
    CountGatedRows(run.rows, easy_rows);
  }
  return nullptr;
}

}  // namespace

const LinearProvider kCpuLinear =
    ProviderOf<Linear>(nullptr, [](Input) noexcept { return OrtMemTypeDefault; });

GatedRows CountedGatedRows() noexcept {
  return {gated_rows.load(std::memory_order_relaxed),
          easy_gated_rows.load(std::memory_order_relaxed)};
}

}  // namespace sparsefuse::plugin
