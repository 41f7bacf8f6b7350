// Reads cases from a file, runs the forward and backward kernels in the emulator and writes the results.
//
// driver INPUT OUTPUT; the format is that of test_cuda_host.py. Every tensor lies in a heap block of exactly its size,
// so that AddressSanitizer sees every access outside it, and results start as NaN.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "deform_attn_cuda.h"

namespace {

using lite_detr::cuda::DataType;

size_t size_of(int64_t dtype) { return dtype == 0 ? 8 : (dtype == 1 ? 4 : 2); }

struct Free {
  void operator()(void* ptr) const { std::free(ptr); }
};

struct Tensor {
  std::unique_ptr<void, Free> data;
  size_t bytes;
};

Tensor make_tensor(size_t bytes, int fill) {
  Tensor tensor{std::unique_ptr<void, Free>(std::malloc(bytes)), bytes};
  memset(tensor.data.get(), fill, bytes);
  return tensor;
}

struct Header {
  int64_t dtype, reference_dtype, offset_dtype, weight_dtype;
  int64_t batch_size, num_queries, num_value, num_heads, head_dim, num_levels, num_points;
  int64_t reference_dim, offset_levels;
  int64_t attention;
  int64_t levels_in;  // 0: host memory, 1: device memory, int64, 2: device memory, int32
  int64_t deterministic;
  int64_t reference_grad;  // wanted
  int64_t head_major;      // value, key and their gradients: heads outside of tokens in memory
  int64_t multiprocessors;
  int64_t counted_tokens;  // additions to the first tokens of each image are counted
  int64_t order, seed;
  int64_t missing_bytes;  // of value, to see the fault found
};

bool run_case(std::FILE* in, std::FILE* out) {
  Header h;
  if (std::fread(&h, sizeof(h), 1, in) != 1) return false;
  emulation::set_order(static_cast<emulation::Order>(h.order), static_cast<unsigned int>(h.seed));
  emulation::set_multiprocessors(static_cast<int>(h.multiprocessors));
  const auto attention = static_cast<lite_detr::cuda::Attention>(h.attention);
  const bool given = attention == lite_detr::cuda::Attention::kGivenWeights;
  const bool separate = attention == lite_detr::cuda::Attention::kSeparateKey;

  const auto read = [&](int64_t count, size_t element) {
    Tensor tensor = make_tensor(count * element, 0);
    if (std::fread(tensor.data.get(), 1, tensor.bytes, in) != tensor.bytes) std::abort();
    return tensor;
  };
  const int64_t rows = h.batch_size * h.num_queries;
  const int64_t query_size = rows * h.num_heads * h.head_dim;
  const int64_t value_size = h.batch_size * h.num_value * h.num_heads * h.head_dim;
  const int64_t reference_size = rows * h.num_levels * h.reference_dim;
  const int64_t offset_size = rows * h.num_heads * h.offset_levels * h.num_points * 2;
  const size_t element = size_of(h.dtype), accumulator = h.dtype == 0 ? 8 : 4;

  const int64_t weight_size = given ? rows * h.num_heads * h.num_levels * h.num_points : 0;
  const Tensor query = read(given ? 0 : query_size, element);
  Tensor value = read(value_size, element);
  if (h.missing_bytes > 0) {
    Tensor shorter = make_tensor(value.bytes - h.missing_bytes, 0);
    memcpy(shorter.data.get(), value.data.get(), shorter.bytes);
    value = std::move(shorter);
  }
  const Tensor key = read(separate ? value_size : 0, element);
  const Tensor reference_points = read(reference_size, size_of(h.reference_dtype));
  const Tensor sampling_offsets = read(offset_size, size_of(h.offset_dtype));
  const size_t index = h.levels_in == 2 ? 4 : 8;
  const Tensor spatial_shapes = read(2 * h.num_levels, index), level_start_index = read(h.num_levels, index);
  const Tensor attention_weights = read(weight_size, size_of(h.weight_dtype));
  const Tensor grad_output = read(query_size, element);

  lite_detr::cuda::DeformAttnInputs inputs{};
  inputs.query = given ? nullptr : query.data.get();
  inputs.value = value.data.get();
  inputs.key = separate ? key.data.get() : nullptr;
  inputs.attention_weights = given ? attention_weights.data.get() : nullptr;
  inputs.reference_points = reference_points.data.get();
  inputs.sampling_offsets = sampling_offsets.data.get();
  if (h.levels_in == 0) {
    const auto* shapes = static_cast<const int64_t*>(spatial_shapes.data.get());
    for (int64_t l = 0; l < h.num_levels; ++l) {
      inputs.host_levels[l] = lite_detr::cuda::make_level(static_cast<const int64_t*>(level_start_index.data.get())[l],
                                                          shapes[2 * l], shapes[2 * l + 1], h.num_value);
    }
  } else {
    inputs.spatial_shapes = spatial_shapes.data.get();
    inputs.level_start_index = level_start_index.data.get();
    inputs.spatial_shapes_int32 = inputs.level_start_index_int32 = h.levels_in == 2;
  }
  inputs.batch_size = h.batch_size;
  inputs.num_queries = h.num_queries;
  inputs.num_value = h.num_value;
  const int64_t row = h.num_heads * h.head_dim;
  inputs.value_strides = {h.num_value * row, h.head_major ? h.head_dim : row,
                          h.head_major ? h.num_value * h.head_dim : h.head_dim};
  inputs.attention = attention;
  inputs.num_heads = static_cast<int>(h.num_heads);
  inputs.head_dim = static_cast<int>(h.head_dim);
  inputs.num_levels = static_cast<int>(h.num_levels);
  inputs.num_points = static_cast<int>(h.num_points);
  inputs.reference_dim = static_cast<int>(h.reference_dim);
  inputs.offset_levels = static_cast<int>(h.offset_levels);
  inputs.dtype = static_cast<DataType>(h.dtype);
  inputs.reference_dtype = static_cast<DataType>(h.reference_dtype);
  inputs.offset_dtype = static_cast<DataType>(h.offset_dtype);
  inputs.weight_dtype = static_cast<DataType>(h.weight_dtype);

  const Tensor output = make_tensor(query_size * element, 0xff);
  const Tensor logsumexp = make_tensor(given ? 0 : rows * h.num_heads * accumulator, 0xff);
  lite_detr::cuda::DeformAttnForward forward{inputs, output.data.get(), given ? nullptr : logsumexp.data.get()};
  if (lite_detr_deform_attn_forward(&forward, nullptr) != cudaSuccess) std::abort();

  const size_t sum_element = h.deterministic ? 8 : accumulator;
  const int64_t key_size = separate ? value_size : 0, fixed = h.deterministic ? 1 : 0,
                wanted = h.reference_grad ? 1 : 0;
  const Tensor grad_query = make_tensor(given ? 0 : query_size * element, 0xff);
  const Tensor value_sum = make_tensor(value_size * sum_element, 0);
  const Tensor key_sum = make_tensor(key_size * sum_element, 0);
  const Tensor grad_weights = make_tensor(weight_size * size_of(h.weight_dtype), 0xff);
  const Tensor grad_offsets = make_tensor(offset_size * size_of(h.offset_dtype), 0xff);
  const Tensor grad_references = make_tensor(wanted * reference_size * size_of(h.reference_dtype), 0xff);
  const Tensor per_head = make_tensor(wanted * reference_size * h.num_heads * accumulator, 0xff);
  const Tensor grad_value = make_tensor(fixed * value_size * element, 0xff);
  const Tensor grad_key = make_tensor(fixed * key_size * element, 0xff);
  const Tensor norms = make_tensor(fixed * lite_detr::cuda::kNumNorms * h.batch_size * h.num_heads * 8, 0);
  lite_detr::cuda::DeformAttnBackward backward{};
  backward.inputs = inputs;
  backward.grad_output = grad_output.data.get();
  backward.logsumexp = given ? nullptr : logsumexp.data.get();
  backward.grad_query = given ? nullptr : grad_query.data.get();
  backward.grad_value_sum = value_sum.data.get();
  backward.grad_key_sum = separate ? key_sum.data.get() : nullptr;
  backward.grad_attention_weights = given ? grad_weights.data.get() : nullptr;
  backward.grad_sampling_offsets = grad_offsets.data.get();
  backward.grad_reference_points = wanted ? grad_references.data.get() : nullptr;
  backward.grad_reference_per_head = wanted ? per_head.data.get() : nullptr;
  backward.deterministic = h.deterministic != 0;
  backward.grad_value = grad_value.data.get();
  backward.grad_key = separate ? grad_key.data.get() : nullptr;
  backward.largest_norms = static_cast<double*>(norms.data.get());
  // Of the first image, with contiguous values.
  emulation::count_additions(value_sum.data.get(),
                             static_cast<char*>(value_sum.data.get()) + h.counted_tokens * row * sum_element);
  if (lite_detr_deform_attn_backward(&backward, nullptr) != cudaSuccess) std::abort();
  const Tensor additions = make_tensor(8, 0);
  *static_cast<int64_t*>(additions.data.get()) = emulation::counted_additions();

  for (const Tensor* result :
       {&output, &logsumexp, &grad_query, fixed ? &grad_value : &value_sum, fixed ? &grad_key : &key_sum,
        &grad_weights, &grad_references, &grad_offsets, &additions}) {
    if (std::fwrite(result->data.get(), 1, result->bytes, out) != result->bytes) std::abort();
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  std::FILE* in = std::fopen(argv[1], "rb");
  std::FILE* out = std::fopen(argv[2], "wb");
  if (in == nullptr || out == nullptr) return 2;
  while (run_case(in, out)) {
  }
  std::fclose(in);
  return std::fclose(out) == 0 ? 0 : 2;
}
