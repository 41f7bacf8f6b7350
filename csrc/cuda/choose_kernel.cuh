// The one place that chooses a kernel: by dtype, head_dim, attention and what fits, for both passes.
//
// | kernel  | dtype                       | head_dim                             | else |
// |---------|-----------------------------|--------------------------------------|------------------------------------|
// | fast    | float32, float16, bfloat16  | 16, 32, 64; 32 with a separate key   | fast_path_fits, shared memory fits
// | | generic | any                         | any                                  | |
#pragma once

#include "backward_fast.cuh"
#include "backward_generic.cuh"
#include "forward_fast.cuh"
#include "forward_generic.cuh"

namespace lite_detr {
namespace cuda {

// How the fast kernels are launched; no threads: they cannot take these inputs.
struct FastLaunch {
  int tile_queries = 0, threads = 0;
  int64_t blocks = 0, shared_bytes = 0;
};

__host__ __forceinline__ int count_multiprocessors() {
  int device = 0, count = 1;
  if (cudaGetDevice(&device) != cudaSuccess) return 1;
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

// Queries of a tile: 64, or 32 where the blocks of 64 would leave the GPU waiting for the last of them: the time is
// that of the rounds of blocks, each as long as its queries and what a block does once.
__host__ __forceinline__ int choose_tile(const DeformAttnInputs& inputs, int resident_blocks) {
  constexpr int kOnce = 8;  // in queries
  const int64_t resident = static_cast<int64_t>(resident_blocks) * count_multiprocessors();
  const int64_t whole = divide_up(count_blocks(inputs, kMaxTileQueries), resident) * (kMaxTileQueries + kOnce);
  const int half = kMaxTileQueries / 2;
  return divide_up(count_blocks(inputs, half), resident) * (half + kOnce) < whole ? half : kMaxTileQueries;
}

template <typename T, int kHeadDim, Attention kAttention>
FastLaunch plan_forward(const DeformAttnInputs& inputs) {
  using Shape = ForwardShape<T, kHeadDim, kAttention>;
  FastLaunch plan;
  if (!fast_path_fits(inputs)) return plan;
  plan.tile_queries = choose_tile(inputs, Shape::kMinBlocks);
  plan.blocks = count_blocks(inputs, plan.tile_queries);
  plan.shared_bytes = Shape::shared_bytes(inputs, plan.tile_queries);
  if (plan.blocks <= kMaxBlocks && plan.shared_bytes <= kMaxSharedBytes) plan.threads = Shape::kThreads;
  return plan;
}

// The largest tile, and for it the most threads, whose samples fit into shared memory.
template <typename T, int kHeadDim, Attention kAttention>
FastLaunch plan_backward(const DeformAttnInputs& inputs) {
  FastLaunch plan;
  if (!fast_path_fits(inputs) || inputs.num_levels * inputs.num_points > kMaxSortedSamples) return plan;
  const int most = choose_tile(inputs, BackwardShape<T, kHeadDim, kAttention>::kMinBlocks);
  for (int tile = most; tile >= kTileSide; tile /= 2) {
    for (int threads = kMaxBackwardThreads; threads >= 32; threads /= 2) {
      const int64_t bytes = BackwardMemory<T, kHeadDim>(inputs, tile, threads).bytes;
      const int64_t blocks = count_blocks(inputs, tile);
      // Every group has a slot: nobody looks at those past the tile.
      const bool whole = threads / FastShape<T, kHeadDim>::kLanes <= tile;
      if (!whole || bytes > kMaxSharedBytes || blocks > kMaxBlocks) continue;
      plan.tile_queries = tile, plan.threads = threads, plan.blocks = blocks, plan.shared_bytes = bytes;
      return plan;
    }
  }
  return plan;
}

// A pass: its plan for the fast kernel, and how to launch either kernel.
struct Forward {
  const DeformAttnForward& arguments;
  cudaStream_t stream;

  template <typename T, int kHeadDim, Attention kAttention>
  FastLaunch plan() const {
    return plan_forward<T, kHeadDim, kAttention>(arguments.inputs);
  }

  template <typename T, int kHeadDim, Attention kAttention>
  void launch_fast(const FastLaunch& plan) const {
    LITE_DETR_LAUNCH((forward_fast_kernel<T, kHeadDim, kAttention>), plan.blocks, plan.threads, plan.shared_bytes,
                     stream, arguments, plan.tile_queries);
  }

  template <typename T>
  void launch_generic(int64_t blocks, int64_t shared_bytes) const {
    LITE_DETR_LAUNCH((forward_generic_kernel<T>), blocks, kGenericThreads, shared_bytes, stream, arguments);
  }
};

struct Backward {
  const DeformAttnBackward& arguments;
  cudaStream_t stream;

  template <typename T, int kHeadDim, Attention kAttention>
  FastLaunch plan() const {
    return plan_backward<T, kHeadDim, kAttention>(arguments.inputs);
  }

  template <typename T, int kHeadDim, Attention kAttention>
  void launch_fast(const FastLaunch& plan) const {
    LITE_DETR_LAUNCH((backward_fast_kernel<T, kHeadDim, kAttention>), plan.blocks, plan.threads, plan.shared_bytes,
                     stream, arguments, plan.tile_queries);
  }

  template <typename T>
  void launch_generic(int64_t blocks, int64_t shared_bytes) const {
    LITE_DETR_LAUNCH((backward_generic_kernel<T>), blocks, kGenericThreads, shared_bytes, stream, arguments);
  }
};

// Whether the fast kernel takes these inputs and was launched.
template <typename T, int kHeadDim, Attention kAttention, typename Pass>
bool try_fast(const Pass& pass) {
  const FastLaunch plan = pass.template plan<T, kHeadDim, kAttention>();
  if (plan.threads == 0) return false;
  pass.template launch_fast<T, kHeadDim, kAttention>(plan);
  return true;
}

template <typename T, int kHeadDim, typename Pass>
bool try_fast(const Pass& pass) {
  switch (pass.arguments.inputs.attention) {
    case Attention::kSharedKey:
      return try_fast<T, kHeadDim, Attention::kSharedKey>(pass);
    case Attention::kGivenWeights:
      return try_fast<T, kHeadDim, Attention::kGivenWeights>(pass);
    case Attention::kSeparateKey:
      // No released model has one: compiled for the head_dim that they all have.
      if constexpr (kHeadDim == 32) return try_fast<T, kHeadDim, Attention::kSeparateKey>(pass);
      return false;
  }
  return false;
}

template <typename T, typename Pass>
cudaError_t launch_kernel(const Pass& pass) {
  const DeformAttnInputs& inputs = pass.arguments.inputs;
  bool launched = false;
  if constexpr (sizeof(T) < 8) {  // double is for checking gradients
    if (inputs.head_dim == 16) launched = try_fast<T, 16>(pass);
    if (inputs.head_dim == 32) launched = try_fast<T, 32>(pass);
    if (inputs.head_dim == 64) launched = try_fast<T, 64>(pass);
  }
  if (!launched) {
    const int64_t blocks = count_generic_blocks(inputs);
    if (blocks > kMaxBlocks) return cudaErrorInvalidConfiguration;
    pass.template launch_generic<T>(blocks, level_table_bytes(inputs.num_levels));
  }
  return cudaGetLastError();
}

// Calls `launch` with a number of the dtype.
template <typename Launch>
cudaError_t with_dtype(DataType dtype, const Launch& launch) {
  switch (dtype) {
    case DataType::kFloat64:
      return launch(double{});
    case DataType::kFloat32:
      return launch(float{});
    case DataType::kFloat16:
      return launch(__half{});
    case DataType::kBFloat16:
      return launch(__nv_bfloat16{});
  }
  return cudaErrorInvalidValue;
}

}  // namespace cuda
}  // namespace lite_detr
