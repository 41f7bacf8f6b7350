// The CPU kernels for what every processor of the architecture has (SSE2 on x86-64, NEON on aarch64).
#define LITE_DETR_ISA isa_default
#define LITE_DETR_TARGET
#define LITE_DETR_VECTOR_BYTES 16
#if defined(__x86_64__)
#define LITE_DETR_FAST 0  // processors from before 2013
#else
#define LITE_DETR_FAST 1
#endif
#define LITE_DETR_DOUBLE 1
#include "kernels_impl.h"

namespace lite_detr {
namespace cpu {
const Kernels& kernels_default() { return isa_default::kernels("default"); }
}  // namespace cpu
}  // namespace lite_detr
