"""Packages of ``torch.export`` and AOTInductor, in which the compiled operator stays an operator."""

import os
from pathlib import Path
from typing import Dict, Optional

import numpy as np
import torch
from torch import nn

from ..output_files import check_output
from .detector import OUTPUT_NAMES, ExportableDetector
from .onnx_model import ImageFormat, dynamic_shapes, example_inputs, quiet_exporter, traceable
from .verification import Report, verify


class PackageRunner:
    """A package in torch.

    Args:
        path (Path): Written by :func:`export_torch`.
        compiled (bool): Whether AOTInductor compiled it.
    """

    name = 'torch'

    def __init__(self, path: Path, compiled: bool) -> None:
        if compiled:
            self.module = torch._inductor.aoti_load_package(str(path))
        else:
            self.module = torch.export.load(str(path)).module()

    def __call__(self, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        with torch.no_grad():
            outputs = self.module(*map(torch.from_numpy, inputs.values()))
        return {name: output.numpy() for name, output in zip(OUTPUT_NAMES, outputs)}


def export_torch(
    model: nn.Module,
    path: Path,
    images: ImageFormat,
    compiled: bool = False,
    attention: str = 'op',
    normalize: bool = False,
    check: bool = True,
    folder: Optional[Path] = None,
) -> Optional[Report]:
    """Export a detector as a package for torch without MMDetection; it is kept only if it is verified.

    With ``attention='op'`` whoever loads it imports ``lite_detr_mmdet.ops`` first.

    Args:
        model (nn.Module): A detector of the family of Deformable DETR.
        path (Path): File to write, ``.pt2``.
        images (ImageFormat): The images that it takes.
        compiled (bool): Compile it by AOTInductor for this machine, which needs a C++ compiler: then C++ can run it
            without Python, and it runs faster. Defaults to False.
        attention (str): See :class:`ExportableDetector`. Defaults to 'op'.
        normalize (bool): Whether it normalises images itself. Defaults to False.
        check (bool): Whether to compare with the model before the file is kept. Defaults to True.
        folder (Path, optional): Images to compare on. Defaults to None: generated images.

    Returns:
        Report: What the comparison found; None without one.

    Raises:
        OSError: If ``path`` cannot be written: it is a folder or a link, or its folder does not exist.
        RuntimeError: If the compiled operators are needed and missing.
        ValueError: If ``path`` has another suffix, the model cannot be exported, or it differs.
    """
    path = Path(path)
    if path.suffix != '.pt2':
        raise ValueError(f'must be a file that ends with .pt2, got {str(path)!r}')
    check_output(path)
    if attention == 'op' and not hasattr(torch.ops.lite_detr, 'key_aware_deform_attn'):
        raise RuntimeError(
            "attention='op' needs the compiled operators: python -m lite_detr_mmdet.ops says why they are missing"
        )
    detector = ExportableDetector(model, attention=attention, normalize=normalize)
    traced = traceable(detector, images)
    with torch.no_grad(), quiet_exporter():
        program = torch.export.export(
            detector, example_inputs(traced), dynamic_shapes=dynamic_shapes(detector, traced), strict=False
        )
    partial = path.with_name(f'.{path.stem}.partial.pt2')
    try:
        if compiled:
            with torch.no_grad():
                torch._inductor.aoti_compile_and_package(program, package_path=str(partial))
        else:
            torch.export.save(program, str(partial))
        report = None
        if check:
            report = verify(model, detector, PackageRunner(partial, compiled), None, images, folder)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return report
