"""Exported models in the runtimes that execute them, behind one interface."""

import os
from pathlib import Path
from typing import Dict, Optional, Union

import numpy as np

LIBRARIES = Path(__file__).resolve().parent.parent / 'ops'
BUILD_COMMAND = 'python tools/deployment/build_extensions.py'


def find_runtime_library(runtime: str) -> Optional[Path]:
    """The compiled operators for a runtime, or None.

    Args:
        runtime (str): 'onnxruntime' or 'openvino'. The environment variable LITE_DETR_<RUNTIME>_LIBRARY names another
            file.

    Raises:
        FileNotFoundError: If the environment variable names a file that does not exist.
    """
    variable = f'LITE_DETR_{runtime.upper()}_LIBRARY'
    wish = os.environ.get(variable)
    if wish:
        if not Path(wish).is_file():
            raise FileNotFoundError(f'{variable} must be a file that exists, got {wish!r}')
        return Path(wish)
    return next(iter(sorted(LIBRARIES.glob(f'*lite_detr_{runtime}.*'))), None)


class OnnxRuntimeRunner:
    """A model in ONNX Runtime on the CPU.

    Args:
        model (bytes | str | Path): The model or its file.
        threads (int): Threads; 0 for as many as there are cores. Defaults to 0.
        operators (bool): Whether the model has nodes of the compiled operators. Defaults to False.

    Raises:
        RuntimeError: If the compiled operators are needed and missing.
    """

    name = 'ONNX Runtime'

    def __init__(self, model: Union[bytes, str, Path], threads: int = 0, operators: bool = False) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        if operators:
            library = find_runtime_library('onnxruntime')
            if library is None:
                raise RuntimeError(f'the operators are not built for ONNX Runtime: {BUILD_COMMAND} builds them')
            options.register_custom_ops_library(str(library))
        model = model if isinstance(model, bytes) else str(model)
        self.session = onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])
        self.output_names = [output.name for output in self.session.get_outputs()]
        self.input_size = tuple(self.session.get_inputs()[0].shape[2:])  # (height, width), names where they may change

    def __call__(self, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        return dict(zip(self.output_names, self.session.run(None, inputs)))


class OpenVinoRunner:
    """A model in OpenVINO on the CPU, in float32; arguments as in :class:`OnnxRuntimeRunner`.

    Args:
        model (bytes | str | Path): The model or its file (ONNX, or OpenVINO's ``.xml``).
        threads (int): Threads; 0 for as many as there are cores. Defaults to 0.
        operators (bool): Whether the model has nodes of the compiled operators. Defaults to False.
        precision (str): 'f32' or 'bf16', what OpenVINO may compute in. Defaults to 'f32'.
    """

    name = 'OpenVINO'

    def __init__(
        self, model: Union[bytes, str, Path], threads: int = 0, operators: bool = False, precision: str = 'f32'
    ) -> None:
        import openvino

        core = openvino.Core()
        if operators:
            library = find_runtime_library('openvino')
            if library is None:
                raise RuntimeError(f'the operators are not built for OpenVINO: {BUILD_COMMAND} builds them')
            core.add_extension(str(library))
        config = {'INFERENCE_PRECISION_HINT': precision, 'PERFORMANCE_HINT': 'LATENCY'}
        if threads:
            config['INFERENCE_NUM_THREADS'] = threads
        self.network = core.read_model(model if isinstance(model, bytes) else str(model))
        self.compiled = core.compile_model(self.network, 'CPU', config)
        self.request = self.compiled.create_infer_request()
        # Not of the compiled model: a tensor whose conversion it drops has the names of both sides there.
        self.output_names = [output.get_any_name() for output in self.network.outputs]
        sizes = self.network.inputs[0].partial_shape[2:]
        self.input_size = tuple(size.get_length() if size.is_static else str(size) for size in sizes)

    def __call__(self, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        # Not `infer`: with one thread it hides exceptions and returns what was there before (2026.4).
        self.request.start_async(inputs)
        self.request.wait()
        results = self.request.results
        return {name: np.array(results[index]) for index, name in enumerate(self.output_names)}
