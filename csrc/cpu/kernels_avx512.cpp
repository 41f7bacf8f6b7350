// The CPU kernels for x86-64 with AVX-512 F, BW, DQ and VL.
#if defined(__x86_64__)
#define LITE_DETR_ISA isa_avx512
#define LITE_DETR_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")))
#define LITE_DETR_VECTOR_BYTES 64
#define LITE_DETR_FAST 1
#define LITE_DETR_DOUBLE 0
#include "kernels_impl.h"

namespace lite_detr {
namespace cpu {
const Kernels& kernels_avx512() { return isa_avx512::kernels("avx512"); }
}  // namespace cpu
}  // namespace lite_detr
#endif
