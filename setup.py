"""Build the package; static metadata is in setup.cfg.

``pip install .`` compiles the operators in ``csrc`` for the torch that is installed.

Environment variables:
    LITE_DETR_WITHOUT_OPS=1: Compile nothing; key-aware deformable attention then runs in plain PyTorch.
    FORCE_CUDA=1: Fail where the CUDA operators cannot be built. The default builds them where torch is a CUDA build
        and nvcc and a GPU are found. FORCE_CUDA=0 leaves them out.
    TORCH_CUDA_ARCH_LIST: GPU architectures to compile for, e.g. '8.0;9.0+PTX'. Without a GPU, it must be set.
    MAX_JOBS: Number of compilers at a time (with ninja).
    DEBUG=1: No optimisation, with debugging symbols and assertions.
"""

import ctypes
import glob
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PACKAGE = 'lite_detr_mmdet'
MIM_FILES = ('model-index.yml', 'configs', 'tools', 'demo', 'weights')
EXTENSION_NAME = f'{PACKAGE}.ops._C'
# setuptools runs this file for metadata and source archives, too: those need no torch and no compiler.
COMPILING_COMMANDS = {'bdist_egg', 'bdist_wheel', 'build', 'build_ext', 'develop', 'editable_wheel', 'install'}


# The library registers operators and has no Python symbols, so one wheel serves every Python. In the source tree it
# keeps the name of the interpreter that built it, because each may have another torch.
FOR_ANY_PYTHON = 'bdist_wheel' in sys.argv[1:]


class BuildPyWithMim(build_py):
    """Put configs and tools where mim looks for them, in ``lite_detr_mmdet/.mim``.

    A wheel gets copies; an editable install gets links, so that an edited config takes effect at once.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            mim = ROOT / PACKAGE / '.mim'
            mim.mkdir(exist_ok=True)
            for name in MIM_FILES:
                link = mim / name
                if link.is_symlink() or link.is_file():
                    link.unlink()
                elif link.is_dir():
                    shutil.rmtree(link)
                link.symlink_to(os.path.relpath(ROOT / name, mim))
            return
        mim = Path(self.build_lib) / PACKAGE / '.mim'
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir(parents=True)
        for name in MIM_FILES:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, mim / name, ignore=shutil.ignore_patterns('__pycache__', '*.pyc'))
            else:
                shutil.copy2(source, mim / name)

    def get_outputs(self, include_bytecode: bool = True) -> list:
        mim = Path(self.build_lib) / PACKAGE / '.mim'
        return super().get_outputs(include_bytecode) + [str(path) for path in mim.rglob('*') if path.is_file()]


def read_flag(name, default=None):
    """Value of an environment variable as True or False; ``default`` where it is not set."""
    value = os.environ.get(name, '').strip().lower()
    if value == '':
        return default
    if value in ('1', 'on', 'true', 'yes'):
        return True
    if value in ('0', 'off', 'false', 'no'):
        return False
    sys.exit(f'{name} must be 1 or 0, got {os.environ[name]!r}.')


def import_torch():
    """Import torch, in an isolated build from the environment that is installed into."""
    try:
        import torch
    except ImportError:
        # pip's isolated build hides the environment, but a library must be compiled for the torch that will load it.
        # Appended, so that nothing else of the environment takes precedence.
        sys.path.extend(
            path for path in {sysconfig.get_paths()[key] for key in ('purelib', 'platlib')} if path not in sys.path
        )
        try:
            import torch
        except ImportError as error:
            sys.exit(
                'lite_detr_mmdet compiles its operators for the installed torch, and torch cannot be imported '
                f'({error}): install torch>=2.4 first, e.g. `pip install torch`, or set LITE_DETR_WITHOUT_OPS=1 to '
                'install without compiled operators.'
            )
    return torch


def get_cuda_reason(torch):
    """Why the CUDA operators cannot be built, or None."""
    from torch.utils.cpp_extension import CUDA_HOME

    if torch.version.cuda is None:
        return f'torch {torch.__version__} is not a CUDA build'
    if CUDA_HOME is None or not os.path.isfile(os.path.join(CUDA_HOME, 'bin', 'nvcc')):
        return f'nvcc is not found (CUDA_HOME is {CUDA_HOME!r})'
    if not os.environ.get('TORCH_CUDA_ARCH_LIST') and not torch.cuda.is_available():
        return "no GPU is visible, and TORCH_CUDA_ARCH_LIST does not say for which to compile, e.g. '8.0;9.0+PTX'"
    if not glob.glob(os.path.join(ROOT, 'csrc', 'cuda', '*.cu')):
        return 'csrc/cuda holds no sources'
    return None


def get_compiler_reason():
    """Why no compiler of this platform can build the operators, or None."""
    if platform.system() == 'Windows':
        return (
            "the CPU kernels use the vector extensions of GCC and clang, which Microsoft's compiler lacks; attention "
            'then runs in plain PyTorch. Install in WSL (Linux on Windows) for the fused operators'
        )
    return None


def get_compiler():
    """The command of the C++ compiler as torch's build will call it, and whether it is clang."""
    compiler = shlex.split(os.environ.get('CXX') or ('clang++' if platform.system() == 'Darwin' else 'c++'))
    try:
        version = subprocess.run([*compiler, '--version'], capture_output=True, text=True).stdout
    except OSError as error:
        sys.exit(
            f'lite_detr_mmdet compiles its operators, and the C++ compiler {compiler[0]!r} cannot be run ({error}): '
            'install GCC, e.g. `apt-get install g++`, or name a compiler in CXX, or set LITE_DETR_WITHOUT_OPS=1 to '
            'install without compiled operators.'
        )
    return compiler, 'clang' in version


def get_openmp_flags(torch, compiler, is_clang):
    """Compiler flags with which ``at::parallel_for``, a template with an OpenMP pragma, runs on torch's own threads.

    The library is not linked to a runtime: it must be the one that torch has loaded, a second one would keep a second
    set of threads. GCC calls GNU's interface, which all runtimes have, and clang LLVM's, which GNU's lacks.
    """
    if 'ATen parallel backend: OpenMP' not in torch.__config__.parallel_info():
        return []
    libraries = glob.glob(os.path.join(os.path.dirname(torch.__file__), 'lib', 'libtorch_cpu.*'))
    if is_clang and libraries and not hasattr(ctypes.CDLL(libraries[0]), '__kmpc_fork_call'):
        sys.exit(
            f"{compiler[0]} calls LLVM's OpenMP runtime, and this torch ({torch.__version__}) brings GNU's: the "
            'library would not load. Set CXX to GCC, e.g. `CXX=g++ pip install ...`.'
        )
    return ['-Xclang', '-fopenmp'] if platform.system() == 'Darwin' else ['-fopenmp']


def get_sources(*patterns):
    """Sources below csrc, relative to this file as setuptools wants them."""
    return sorted(
        os.path.relpath(path, ROOT).replace(os.sep, '/')
        for pattern in patterns
        for path in glob.glob(os.path.join(ROOT, 'csrc', pattern))
    )


def get_ops_extension():
    """The compiled operators as a setuptools extension, and the command that builds it."""
    torch = import_torch()
    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension

    force_cuda = read_flag('FORCE_CUDA')
    cuda_reason = 'FORCE_CUDA=0' if force_cuda is False else get_cuda_reason(torch)
    if force_cuda and cuda_reason is not None:
        sys.exit(f'FORCE_CUDA=1 asks for the CUDA operators, which cannot be built: {cuda_reason}.')
    with_cuda = cuda_reason is None
    debug = read_flag('DEBUG', default=False)

    sources = get_sources('*.cpp', 'core/*.cpp', 'cpu/*.cpp')
    # GCC's note on the calling convention of wide vectors concerns functions that are all inlined.
    cxx_flags = ['-O0', '-g'] if debug else ['-O3', '-g0', '-DNDEBUG']
    cxx_flags += ['-Wno-psabi', '-Wno-maybe-uninitialized'] if platform.system() == 'Linux' else []
    cxx_flags += get_openmp_flags(torch, *get_compiler())
    if with_cuda:
        sources += get_sources('cuda/*.cpp', 'cuda/*.cu')
        nvcc_flags = ['-O0', '-g', '-G'] if debug else ['-O3', '-DNDEBUG', '-lineinfo']
        extension = CUDAExtension(
            EXTENSION_NAME,
            sources,
            extra_compile_args={'cxx': cxx_flags, 'nvcc': nvcc_flags},
            py_limited_api=FOR_ANY_PYTHON,
        )
    else:
        extension = CppExtension(
            EXTENSION_NAME, sources, extra_compile_args={'cxx': cxx_flags}, py_limited_api=FOR_ANY_PYTHON
        )
    extension.include_dirs.insert(0, os.path.join(ROOT, 'csrc'))
    # The library registers operators and holds no Python module: one less dependency on a Python version.
    extension.libraries = [library for library in extension.libraries if library != 'torch_python']
    extension.depends = get_sources('*.h', 'core/*.h', 'cpu/*.h', 'cuda/*.h', 'cuda/*.cuh')

    settings = {
        'torch': f'{torch.__version__} at {os.path.dirname(torch.__file__)}',
        'CUDA operators': f'yes, CUDA {torch.version.cuda}' if with_cuda else f'no: {cuda_reason}',
        'TORCH_CUDA_ARCH_LIST': os.environ.get('TORCH_CUDA_ARCH_LIST', 'not set') if with_cuda else 'not used',
        'MAX_JOBS': os.environ.get('MAX_JOBS', 'not set'),
        'DEBUG': debug,
    }
    print('lite_detr_mmdet builds its operators with')
    for name, value in settings.items():
        print(f'  {name}: {value}', flush=True)
    return extension, BuildExtension


def get_ops_options():
    """Arguments of ``setup`` that build the operators."""
    if not COMPILING_COMMANDS.intersection(sys.argv[1:]):
        return {}
    if read_flag('LITE_DETR_WITHOUT_OPS', default=False):
        print('lite_detr_mmdet builds no operators: LITE_DETR_WITHOUT_OPS is set', flush=True)
        return {}
    reason = get_compiler_reason()
    if reason is not None:
        print(f'lite_detr_mmdet builds no operators: {reason}', flush=True)
        return {}
    extension, build_extension = get_ops_extension()
    options = {'ext_modules': [extension], 'cmdclass': {'build_ext': build_extension}}
    if FOR_ANY_PYTHON:
        options['options'] = {'bdist_wheel': {'py_limited_api': 'cp310'}}
    return options


def get_setup_options() -> dict:
    """Arguments of ``setup`` that are not static."""
    options = get_ops_options()
    options.setdefault('cmdclass', {})['build_py'] = BuildPyWithMim
    return options


setup(**get_setup_options())
