// Chooses the CPU kernels: the one place that does.
#include <cstdlib>
#include <string>

#include "../core/checks.h"
#include "kernels.h"

namespace lite_detr {
namespace cpu {
namespace {

const Kernels& choose_kernels() {
  const char* wish = std::getenv("LITE_DETR_CPU_CAPABILITY");  // to test the lower ones
  const std::string limit = wish == nullptr ? "avx512" : wish;
  if (limit != "default" && limit != "avx2" && limit != "avx512") {
    throw ArgumentError(ArgumentError::Kind::kValue,
                        "LITE_DETR_CPU_CAPABILITY must be default, avx2 or avx512, got " + limit);
  }
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && limit == "avx512") return kernels_avx512();
  if (avx2 && limit != "default") return kernels_avx2();
#endif
  return kernels_default();
}

const Kernels& best_kernels() {
  static const Kernels& kernels = choose_kernels();
  return kernels;
}

}  // namespace

const Kernels& get_kernels(ScalarType type) {
  return type == ScalarType::kDouble ? kernels_default() : best_kernels();
}

const char* cpu_capability() { return best_kernels().name; }

}  // namespace cpu
}  // namespace lite_detr
