// Stands in for CUDA's header where the kernels are compiled for the host: the few names that they use.
//
// A block runs as one fiber a thread, see emulator.cpp: a fiber runs until it meets a barrier or a shuffle, the next
// one then runs up to there, in an order that can be turned round or shuffled to bring out missing barriers.
#pragma once

#include <math.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
using cudaStream_t = struct Stream*;
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);

struct alignas(16) uint4 {
  unsigned int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned int x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) double2 {
  double x, y;
};
inline uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulation {

struct Index {
  unsigned int x;
};
enum class Barrier { kNone, kBlock, kWarp, kShuffle };
enum class Order { kForward, kBackward, kRandom };

// In which order the threads of a block run between two barriers.
void set_order(Order order, unsigned int seed);
void launch(int64_t blocks, int threads, int64_t shared_bytes, const std::function<void()>& kernel);
uint4* shared_memory();
// Waits until all threads of the block or warp have arrived at a barrier of the same kind; ends the program if some
// of them cannot.
void wait_for_all(Barrier barrier);
// What lane `source` of the warp gives for the 8 bytes of this one. `site` says which shuffle of the program this is:
// the program ends if the lanes of a warp meet at different ones.
uint64_t exchange(uint64_t bits, int source, uint64_t site);

// Multiprocessors of the GPU, on which the size of a tile depends.
void set_multiprocessors(int count);
// Counts additions to the floats in [first, last): a vector counts once.
void count_additions(const void* first, const void* last);
int64_t counted_additions();
void note_addition(const void* address);

}  // namespace emulation

extern emulation::Index threadIdx, blockIdx, blockDim, gridDim;

#define LITE_DETR_LAUNCH(kernel, blocks, threads, shared_bytes, stream, ...) \
  (static_cast<void>(stream), emulation::launch(blocks, threads, shared_bytes, [&] { kernel(__VA_ARGS__); }))
#define LITE_DETR_SHARED_MEMORY(name) uint4* name = emulation::shared_memory()

inline void __syncthreads() { emulation::wait_for_all(emulation::Barrier::kBlock); }
inline void __syncwarp() { emulation::wait_for_all(emulation::Barrier::kWarp); }

// A shuffle: where it is in the program, and what it does there.
inline uint64_t emulated_site(const char* file, int line, int kind, int operand) {
  return reinterpret_cast<uintptr_t>(file) * 31 + static_cast<uint64_t>(line) * 4096 + kind * 64 + operand;
}
template <typename T>
T emulated_exchange(unsigned int mask, T x, int source, uint64_t site) {
  if (mask != 0xffffffffu) abort();  // all lanes take part
  uint64_t bits = 0;
  memcpy(&bits, &x, sizeof(T));
  bits = emulation::exchange(bits, source, site);
  memcpy(&x, &bits, sizeof(T));
  return x;
}
template <typename T>
T __shfl_xor_sync(unsigned int mask, T x, int lane_mask, int line = __builtin_LINE(),
                  const char* file = __builtin_FILE()) {
  return emulated_exchange(mask, x, threadIdx.x % 32 ^ lane_mask, emulated_site(file, line, 0, lane_mask));
}
template <typename T>
T __shfl_sync(unsigned int mask, T x, int lane, int width, int line = __builtin_LINE(),
              const char* file = __builtin_FILE()) {
  const int source = threadIdx.x % 32 / width * width + lane % width;
  return emulated_exchange(mask, x, source, emulated_site(file, line, 1, lane));
}
template <typename T>
T __shfl_up_sync(unsigned int mask, T x, int delta, int line = __builtin_LINE(), const char* file = __builtin_FILE()) {
  const int lane = threadIdx.x % 32;
  return emulated_exchange(mask, x, lane < delta ? lane : lane - delta, emulated_site(file, line, 2, delta));
}

template <typename T>
T __ldg(const T* ptr) {
  return *ptr;
}

// Fibers do not interrupt each other, so plain additions are atomic.
template <typename T>
T atomicAdd(T* address, T x) {
  emulation::note_addition(address);
  const T old = *address;
  *address += x;
  return old;
}
inline float4 atomicAdd(float4* address, float4 x) {
  emulation::note_addition(address);
  const float4 old = *address;
  *address = {old.x + x.x, old.y + x.y, old.z + x.z, old.w + x.w};
  return old;
}
inline unsigned long long atomicMax(unsigned long long* address, unsigned long long x) {
  const unsigned long long old = *address;
  if (x > old) *address = x;
  return old;
}

template <typename To, typename From>
To emulated_bit_cast(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To out;
  memcpy(&out, &x, sizeof(out));
  return out;
}
inline float __uint_as_float(unsigned int x) { return emulated_bit_cast<float>(x); }
inline unsigned int __float_as_uint(float x) { return emulated_bit_cast<unsigned int>(x); }
inline double __longlong_as_double(long long x) { return emulated_bit_cast<double>(x); }
inline long long __double_as_longlong(double x) { return emulated_bit_cast<long long>(x); }
inline long long __float2ll_rn(float x) { return llrintf(x); }
inline long long __double2ll_rn(double x) { return llrint(x); }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
