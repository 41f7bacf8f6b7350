"""Compile mmcv's multi-scale deformable attention alone, as the peer of benchmarks/key_aware_deform_attn.py.

    pip download --no-deps --no-binary :all: --no-build-isolation mmcv==2.1.0
    python .dev_scripts/build_mmcv_op.py mmcv-2.1.0.tar.gz --out build/gpu

Takes half a minute where all of mmcv takes many. Nothing of mmcv is changed or kept in this repository. Needs nvcc and
a torch with CUDA, but no GPU: TORCH_CUDA_ARCH_LIST says which one to compile for. The library registers
torch.ops.mmcv_alone.forward and backward.
"""

import argparse
import re
import tarfile
from pathlib import Path

SOURCE = 'mmcv/ops/csrc/pytorch/cuda/ms_deform_attn_cuda.cu'
FOLDER = 'mmcv/ops/csrc/common'
NAME = 'mmcv_ms_deform_attn'
BINDING = """
#include <torch/library.h>

at::Tensor ms_deform_attn_cuda_forward(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                       const at::Tensor&, const int);
void ms_deform_attn_cuda_backward(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                  const at::Tensor&, const at::Tensor&, at::Tensor&, at::Tensor&, at::Tensor&,
                                  const int);

namespace {

at::Tensor forward(const at::Tensor& value, const at::Tensor& shapes, const at::Tensor& starts,
                   const at::Tensor& locations, const at::Tensor& weights, int64_t step) {
  return ms_deform_attn_cuda_forward(value, shapes, starts, locations, weights, step);
}

void backward(const at::Tensor& value, const at::Tensor& shapes, const at::Tensor& starts,
              const at::Tensor& locations, const at::Tensor& weights, const at::Tensor& grad_output,
              at::Tensor grad_value, at::Tensor grad_locations, at::Tensor grad_weights, int64_t step) {
  ms_deform_attn_cuda_backward(value, shapes, starts, locations, weights, grad_output, grad_value, grad_locations,
                               grad_weights, step);
}

}  // namespace

TORCH_LIBRARY(mmcv_alone, library) {
  library.def(
      "forward(Tensor value, Tensor shapes, Tensor starts, Tensor locations, Tensor weights, int step) -> Tensor");
  library.def(
      "backward(Tensor value, Tensor shapes, Tensor starts, Tensor locations, Tensor weights, Tensor grad_output, "
      "Tensor(a!) grad_value, Tensor(b!) grad_locations, Tensor(c!) grad_weights, int step) -> ()");
}

TORCH_LIBRARY_IMPL(mmcv_alone, CUDA, library) {
  library.impl("forward", &forward);
  library.impl("backward", &backward);
}
"""


def extract(archive: Path, target: Path) -> None:
    """Extract the one kernel and the headers from a source distribution.

    Raises:
        SystemExit: If the archive holds no such kernel.
    """
    with tarfile.open(archive) as content:
        members = []
        for member in content.getmembers():
            member.name = re.sub(r'^[^/]+/', '', member.name)
            if member.isfile() and (member.name == SOURCE or member.name.startswith(f'{FOLDER}/')):
                members.append(member)
        if not any(member.name == SOURCE for member in members):
            raise SystemExit(f'{archive} is no source distribution of mmcv: it holds no {SOURCE}')
        content.extractall(target, members=members, filter='data')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('archive', type=Path, help="mmcv's source distribution, a .tar.gz")
    parser.add_argument('--out', type=Path, default=Path('build/gpu'), help='folder to write (default: %(default)s)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    import torch
    from torch.utils.cpp_extension import CUDA_HOME, load

    if torch.version.cuda is None or CUDA_HOME is None:
        raise SystemExit(f'a torch with CUDA and nvcc are needed, got torch {torch.__version__}, CUDA in {CUDA_HOME}')
    folder = args.out.resolve() / NAME
    folder.mkdir(parents=True, exist_ok=True)
    extract(args.archive, folder)
    (folder / 'binding.cpp').write_text(BINDING)
    # torch's headers ask for those of libraries that a toolkit may lack, but torch's own packages bring.
    packaged = Path(torch.__file__).parents[1] / 'nvidia' / f'cu{torch.version.cuda.split(".")[0]}' / 'include'
    complete = (Path(CUDA_HOME) / 'include' / 'cusparse.h').exists()
    library = load(
        NAME,
        [str(folder / SOURCE), str(folder / 'binding.cpp')],
        extra_include_paths=[
            str(folder / FOLDER),
            str(folder / FOLDER / 'cuda'),
            *([] if complete else [str(packaged)]),
        ],
        # as mmcv's own build has them
        extra_cuda_cflags=['-O3', '-D__CUDA_NO_HALF_OPERATORS__', '-D__CUDA_NO_HALF_CONVERSIONS__'],
        extra_cflags=['-O3'],
        build_directory=str(folder),
        is_python_module=False,
        verbose=True,
    )
    print(library or folder / f'{NAME}.so')


if __name__ == '__main__':
    main()
