// Kernels that do nothing but what bounds deformable attention: read rows at random places, or add to them.
// A group of `lanes` threads owns a row of lanes * 16 bytes: one head of one token (128 bytes in float32 with 32
// channels, 64 in 16 bits). Free of torch; gpu_limits.py compiles it with nvcc and calls it.

#include <cuda_runtime.h>

namespace {

constexpr int kThreads = 128;

__device__ __forceinline__ unsigned scramble(unsigned x) {
  x *= 2654435761u;
  x ^= x >> 15;
  x *= 2246822519u;
  return x ^ (x >> 13);
}

// Random rows of the `window` rows that belong to the block; `window` and `table_rows` are powers of two. A row is
// `stride` x 16 bytes from the next, as a head's rows are in (tokens, heads, channels). Six instructions a load,
// its use included: so the rate is that of the memory, not of the instructions around it.
__global__ void gather_kernel(const uint4* table, unsigned* out, unsigned window, unsigned table_rows, int lanes,
                              unsigned stride, int samples) {
  const unsigned group = (blockIdx.x * kThreads + threadIdx.x) / lanes;
  const unsigned head = blockIdx.x % (stride / lanes);
  const uint4* rows = table + static_cast<size_t>((blockIdx.x * window) & (table_rows - 1)) * stride + head * lanes +
                      threadIdx.x % lanes;
  unsigned row = scramble(group), sum = 0;
#pragma unroll 8
  for (int sample = 0; sample < samples; ++sample) {
    row = row * 1664525u + 1013904223u;
    uint4 part;
    // Its upper bits are the random ones.
    const uint4* address = rows + __umulhi(row, window) * stride;
    asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(part.x), "=r"(part.y), "=r"(part.z), "=r"(part.w)
                 : "l"(address));
    sum ^= part.x ^ part.y ^ part.z ^ part.w;
  }
  if (sum == 0x12345678u) out[0] = sum;  // next to never, but the compiler must keep the loads
}

// 16 bytes a lane in one instruction where the GPU has it.
__global__ void atomic_vector_kernel(float* table, unsigned table_rows, int lanes, int samples) {
#if __CUDA_ARCH__ >= 900
  const unsigned group = (blockIdx.x * kThreads + threadIdx.x) / lanes;
  const unsigned lane = threadIdx.x % lanes;
  for (int sample = 0; sample < samples; ++sample) {
    const unsigned row = scramble(group * samples + sample) & (table_rows - 1);
    atomicAdd(reinterpret_cast<float4*>(table) + static_cast<size_t>(row) * lanes + lane, make_float4(1, 2, 3, 4));
  }
#endif
}

// The same bytes by scalars, successive lanes on successive addresses.
__global__ void atomic_scalar_kernel(float* table, unsigned table_rows, int lanes, int samples) {
  const unsigned group = (blockIdx.x * kThreads + threadIdx.x) / lanes;
  const unsigned lane = threadIdx.x % lanes;
  for (int sample = 0; sample < samples; ++sample) {
    const unsigned row = scramble(group * samples + sample) & (table_rows - 1);
    float* target = table + static_cast<size_t>(row) * lanes * 4 + lane;
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      atomicAdd(target + part * lanes, 1.0f);
    }
  }
}

}  // namespace

extern "C" {

int limits_gather(const void* table, void* out, unsigned window, unsigned table_rows, int lanes, unsigned stride,
                  int samples, int blocks, void* stream) {
  gather_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      static_cast<const uint4*>(table), static_cast<unsigned*>(out), window, table_rows, lanes, stride, samples);
  return cudaGetLastError();
}

int limits_atomic(void* table, unsigned table_rows, int lanes, int samples, int blocks, int vector, void* stream) {
  const auto kernel = vector ? atomic_vector_kernel : atomic_scalar_kernel;
  kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(static_cast<float*>(table), table_rows, lanes,
                                                                     samples);
  return cudaGetLastError();
}
}
