// Prints how the fast kernels are launched for 22,223 queries, 4 levels and 4 points: pass, dtype, head_dim,
// attention, threads of a block, bytes of shared memory. Compiled for the host with the headers of
// tests/ops/cuda_host.
#include <cstdio>

#include "choose_kernel.cuh"

emulation::Index threadIdx, blockIdx, blockDim, gridDim;
namespace emulation {
void launch(int64_t, int, int64_t, const std::function<void()>&) {}
uint4* shared_memory() { return nullptr; }
void wait_for_all(Barrier) {}
uint64_t exchange(uint64_t bits, int, uint64_t) { return bits; }
void note_addition(const void*) {}
}  // namespace emulation
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) { return *value = 132, cudaSuccess; }

namespace {

using namespace lite_detr::cuda;

template <typename T, int kHeadDim, Attention kAttention>
void print(const char* name, DataType dtype) {
  DeformAttnInputs inputs{};
  inputs.batch_size = 1, inputs.num_queries = inputs.num_value = 22223;
  inputs.num_heads = 8, inputs.head_dim = kHeadDim, inputs.num_levels = inputs.num_points = 4;
  inputs.dtype = dtype;
  inputs.value_strides = {22223 * 8 * kHeadDim, 8 * kHeadDim, kHeadDim};
  const FastLaunch forward = plan_forward<T, kHeadDim, kAttention>(inputs);
  const FastLaunch backward = plan_backward<T, kHeadDim, kAttention>(inputs);
  const int attention = static_cast<int>(kAttention);
  std::printf("forward %s %d %d %d %lld\n", name, kHeadDim, attention, forward.threads,
              static_cast<long long>(forward.shared_bytes));
  std::printf("backward %s %d %d %d %lld\n", name, kHeadDim, attention, backward.threads,
              static_cast<long long>(backward.shared_bytes));
}

template <typename T>
void print_all(const char* name, DataType dtype) {
  print<T, 16, Attention::kSharedKey>(name, dtype);
  print<T, 32, Attention::kSharedKey>(name, dtype);
  print<T, 64, Attention::kSharedKey>(name, dtype);
  print<T, 16, Attention::kGivenWeights>(name, dtype);
  print<T, 32, Attention::kGivenWeights>(name, dtype);
  print<T, 64, Attention::kGivenWeights>(name, dtype);
  print<T, 32, Attention::kSeparateKey>(name, dtype);
}

}  // namespace

int main() {
  print_all<float>("float", DataType::kFloat32);
  print_all<__half>("half", DataType::kFloat16);
  print_all<__nv_bfloat16>("bfloat16", DataType::kBFloat16);
  return 0;
}
