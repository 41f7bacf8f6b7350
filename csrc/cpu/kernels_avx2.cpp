// The CPU kernels for x86-64 with AVX2, FMA and F16C.
#if defined(__x86_64__)
#define LITE_DETR_ISA isa_avx2
#define LITE_DETR_TARGET __attribute__((target("avx2,fma,f16c")))
#define LITE_DETR_VECTOR_BYTES 32
#define LITE_DETR_FAST 1
#define LITE_DETR_DOUBLE 0
#include "kernels_impl.h"

namespace lite_detr {
namespace cpu {
const Kernels& kernels_avx2() { return isa_avx2::kernels("avx2"); }
}  // namespace cpu
}  // namespace lite_detr
#endif
