// Launch and dynamic shared memory. The host emulation of the tests defines these two macros in its own way.
#pragma once

#include <cuda_runtime.h>

#ifndef LITE_DETR_LAUNCH
#define LITE_DETR_LAUNCH(kernel, blocks, threads, shared_bytes, stream, ...) \
  kernel<<<static_cast<unsigned int>(blocks), threads, shared_bytes, stream>>>(__VA_ARGS__)
#define LITE_DETR_SHARED_MEMORY(name) extern __shared__ uint4 name[]
#endif

namespace lite_detr {
namespace cuda {

// What a block may use on every GPU without asking for more.
constexpr int64_t kMaxSharedBytes = 48 * 1024;
constexpr int64_t kMaxBlocks = 2147483647;

__host__ __device__ __forceinline__ constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace cuda
}  // namespace lite_detr
