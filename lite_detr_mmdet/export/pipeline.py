"""From a detector to a verified file."""

from pathlib import Path
from typing import Any, Dict, Optional

import mmdet
import mmengine
import torch
from torch import nn

from ..output_files import check_output, write_whole
from ..version import __version__
from .detector import ExportableDetector
from .onnx_model import ImageFormat, add_metadata, require, to_onnx, without_inspected
from .runners import BUILD_COMMAND, OnnxRuntimeRunner, OpenVinoRunner, find_runtime_library
from .verification import Report, verify


def export_onnx(
    model: nn.Module,
    path: Path,
    images: ImageFormat,
    opset: int = 20,
    attention: str = 'grid',
    half: bool = False,
    normalize: bool = False,
    check: bool = True,
    folder: Optional[Path] = None,
    metadata: Optional[Dict[str, Any]] = None,
) -> Optional[Report]:
    """Export a detector to ONNX; the file is written only if it is complete and verified.

    Args:
        model (nn.Module): A detector of the family of Deformable DETR.
        path (Path): File to write.
        images (ImageFormat): The images that the exported model takes.
        opset (int): Version of the standard operators, 18 to 23. Defaults to 20.
        attention (str): 'grid', 'gather' or 'op', see :class:`ExportableDetector`. Defaults to 'grid'.
        half (bool): Whether to compute in float16. Defaults to False.
        normalize (bool): Whether the model normalises images itself. Defaults to False.
        check (bool): Whether to compare with the model before the file is kept. Defaults to True.
        folder (Path, optional): Images to compare on. Defaults to None: generated images.
        metadata (dict, optional): Entries for the file's metadata, in addition to those taken from the model.

    Returns:
        Report: What the comparison found; None without one.

    Raises:
        OSError: If ``path`` cannot be written: it is a folder or a link, or its folder does not exist.
        ImportError: If a package is missing.
        RuntimeError: If the compiled operators are needed and missing.
        ValueError: If the model cannot be exported (the message says why), or differs (:class:`VerificationError`).
    """
    path = Path(path)
    check_output(path)
    require('onnx', 'onnxscript', 'onnxslim', *(('onnxruntime',) if check else ()))
    runner_class = OnnxRuntimeRunner
    if attention == 'op':
        runner_class = _runner_with_operators(check)
    detector = ExportableDetector(model, attention=attention, half=half, normalize=normalize)
    inspected = to_onnx(detector, images, opset)
    exported = without_inspected(inspected)
    add_metadata(exported, {**describe(model, detector, images), **(metadata or {})})
    if exported.ByteSize() >= 2**31:
        raise ValueError(f'the model must fit the 2 GB of an ONNX file, got {exported.ByteSize() / 1e9:.1f} GB')
    content = exported.SerializeToString()
    report = None
    if check:
        operators = attention == 'op'
        # The comparison runs the form with standard operators, whatever was exported.
        report = verify(
            model,
            ExportableDetector(model, 'grid', half, normalize) if operators else detector,
            runner_class(content, operators=operators),
            lambda: runner_class(inspected.SerializeToString(), operators=operators),
            images,
            folder,
        )
    write_whole(path, lambda file: file.write(content))
    return report


def _runner_with_operators(check: bool) -> type:
    """The runtime to verify the compiled operators' nodes in."""
    if not hasattr(torch.ops.lite_detr, 'key_aware_deform_attn'):
        raise RuntimeError(
            "attention='op' needs the compiled operators: python -m lite_detr_mmdet.ops says why they are missing"
        )
    for runtime, runner in (('onnxruntime', OnnxRuntimeRunner), ('openvino', OpenVinoRunner)):
        if find_runtime_library(runtime) is not None:
            require(runtime)
            return runner
    if check:
        raise RuntimeError(
            f"attention='op' cannot be verified: the operators are not built for any runtime. {BUILD_COMMAND} builds "
            'them; --no-verify exports without verification'
        )
    return OnnxRuntimeRunner


def describe(model: nn.Module, detector: ExportableDetector, images: ImageFormat) -> Dict[str, Any]:
    """What users of the file need to know, as metadata."""
    preprocessor = model.data_preprocessor
    normalizes = preprocessor._enable_normalize
    resize = next((step for step in test_pipeline(model) if step.get('type') in ('Resize', 'DETRResize')), {})
    return {
        'model': type(model).__name__,
        'classes': list(getattr(model, 'dataset_meta', {}).get('classes', ())),
        'num_classes': model.bbox_head.cls_out_channels,
        'preprocessing': {
            'channels': 'BGR' if detector.normalize or not preprocessor._channel_conversion else 'RGB',
            'mean': preprocessor.mean.flatten().tolist() if normalizes and not detector.normalize else [0.0] * 3,
            'std': preprocessor.std.flatten().tolist() if normalizes and not detector.normalize else [1.0] * 3,
            'scale': list(resize.get('scale', ())),
            'keep_ratio': bool(resize.get('keep_ratio', True)),
        },
        'boxes': 'x1, y1, x2, y2 in pixels of the input',
        'attention': detector.attention,
        'precision': 'float16' if detector.dtype == torch.float16 else 'float32',
        'dynamic': images.dynamic,
        'versions': {
            'lite_detr_mmdet': __version__,
            'torch': torch.__version__,
            'mmdet': mmdet.__version__,
            'mmengine': mmengine.__version__,
        },
    }


def test_pipeline(model: nn.Module) -> list:
    """Test transforms of the model's config; empty if it has none."""
    cfg = getattr(model, 'cfg', None)
    return (cfg.get('test_dataloader', {}).get('dataset', {}).get('pipeline') or []) if cfg else []
