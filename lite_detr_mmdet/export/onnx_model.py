"""A detector as an ONNX model."""

import json
import logging
import warnings
from contextlib import contextmanager
from typing import Any, Dict, Iterator, NamedTuple, Optional, Tuple

import torch
from torch import nn

from ..models.detectors.tokens import check_num_tokens, level_shapes
from .detector import OUTPUT_NAMES, ExportableDetector
from .nodes import DOMAIN, DOMAIN_VERSION, translation_table

OPSETS = range(18, 24)
# What verification looks at besides the outputs; not in the final file.
INSPECTED_NAMES = ('memory', 'tokens', 'token_scores')
LARGEST_SIZE = 8192
LARGEST_BATCH = 1024


class ImageFormat(NamedTuple):
    """The images that an exported model takes.

    Attributes:
        height (int): Height; for a dynamic model, that of the example.
        width (int): Width; likewise.
        batch (int): Images per batch; likewise.
        dynamic (bool): Whether all three may change from call to call. Defaults to False.
        padding_mask (bool): Whether there is a second input, the mask of padded pixels. Defaults to False.
    """

    height: int
    width: int
    batch: int = 1
    dynamic: bool = False
    padding_mask: bool = False


def require(*names: str) -> None:
    """Import packages that only export needs.

    Raises:
        ImportError: If one is missing; the message says how to install it.
    """
    for name in names:
        try:
            __import__(name)
        except ImportError as error:
            raise ImportError(
                f'export needs {name} ({error}): pip install "lite-detr-mmdet[export]", or, in a source tree, '
                'pip install -r requirements/export.txt'
            ) from error


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence torch's exporter about optional packages."""
    loggers = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript', 'onnx_ir')]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)


class _Inspected(nn.Module):
    """Everything that :meth:`ExportableDetector.detect` returns, except None."""

    def __init__(self, detector: ExportableDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: torch.Tensor, padding_mask: Optional[torch.Tensor] = None) -> tuple:
        return tuple(output for output in self.detector.detect(images, padding_mask) if output is not None)


def example_inputs(images: ImageFormat) -> Tuple[torch.Tensor, ...]:
    """Inputs to trace with."""
    inputs = [torch.randn(images.batch, 3, images.height, images.width)]
    if images.padding_mask:
        mask = torch.zeros(images.batch, images.height, images.width, dtype=torch.bool)
        mask[:, images.height - images.height // 4 :] = True
        inputs.append(mask)
    return tuple(inputs)


def smallest_size(detector: ExportableDetector) -> int:
    """Smallest side of a square image that a dynamic model accepts.

    Every level has more than one row, and there are as many tokens as queries.
    """
    model = detector.model
    needed = model.num_queries if getattr(model, 'as_two_stage', True) else 1
    for size in range(65, LARGEST_SIZE, 32):
        shapes = level_shapes(model, size, size)
        dropped = model.encoder.num_low_levels if getattr(model.encoder, 'drops_low_levels', False) else 0
        if min(shapes[-1]) > 1 and sum(height * width for height, width in shapes[dropped:]) >= needed:
            return size
    raise ValueError(f'num_queries must fit the tokens of an image, got {needed}')


def dynamic_shapes(detector: ExportableDetector, images: ImageFormat) -> Optional[tuple]:
    """The dynamic dimensions, as ``torch.export`` takes them; None if there are none."""
    if not images.dynamic:
        return None
    smallest = smallest_size(detector)
    if min(images.height, images.width) < smallest or images.batch < 2:
        raise ValueError(
            f'a dynamic model must be traced with at least 2 images of at least {smallest} pixels per side, '
            f'got {images.batch} of {images.height}x{images.width}'
        )
    batch = torch.export.Dim('batch', min=1, max=LARGEST_BATCH)
    height = torch.export.Dim('height', min=smallest, max=LARGEST_SIZE)
    width = torch.export.Dim('width', min=smallest, max=LARGEST_SIZE)
    shapes = [{0: batch, 2: height, 3: width}]
    if images.padding_mask:
        shapes.append({0: batch, 1: height, 2: width})
    return tuple(shapes)


def traceable(detector: ExportableDetector, images: ImageFormat) -> ImageFormat:
    """A format with which a model can be traced; if dynamic, two images and no level one token wide.

    Raises:
        ValueError: If the images are too small for the detector.
    """
    if not images.dynamic:
        check_num_tokens(detector.model, images.height, images.width)
        return images
    smallest = smallest_size(detector)
    if min(images.height, images.width) < smallest:
        raise ValueError(
            f'a dynamic model takes images of at least {smallest} pixels per side, got {images.height}x{images.width} '
            '(--shape)'
        )
    return images._replace(batch=max(images.batch, 2), width=max(images.width, smallest + 32))


def to_onnx(detector: ExportableDetector, images: ImageFormat, opset: int = 20, slim: bool = True) -> Any:
    """The ONNX model with its outputs and the additional ones for verification.

    Args:
        detector (ExportableDetector): The detector.
        images (ImageFormat): What images it takes. A dynamic model is traced with at least two images of a size at
            which no level is one token wide.
        opset (int): Version of the standard operators. Defaults to 20.
        slim (bool): Whether onnxslim may simplify the graph. Defaults to True.

    Raises:
        ValueError: If the model cannot be written with this opset.
    """
    require('onnx', 'onnxscript', 'onnxslim')
    if opset not in OPSETS:
        raise ValueError(f'opset must be from {OPSETS[0]} to {OPSETS[-1]}, got {opset}')
    images = traceable(detector, images)
    two_stage = getattr(detector.model, 'as_two_stage', True)
    shapes = dynamic_shapes(detector, images)
    inputs = example_inputs(images)
    names = ('images', 'padding_mask')[: len(inputs)]
    with torch.no_grad(), quiet_exporter():
        program = torch.onnx.export(
            _Inspected(detector),
            inputs,
            dynamo=True,
            opset_version=opset,
            input_names=names,
            output_names=(*OUTPUT_NAMES, *INSPECTED_NAMES[: 3 if two_stage else 1]),
            dynamic_shapes=shapes,
            custom_translation_table=translation_table(),
            verbose=False,
        )
    model = program.model_proto
    del model.metadata_props[:]
    for node in model.graph.node:  # file names and lines of the exporting machine
        del node.metadata_props[:]
        node.doc_string = ''
    for value in model.graph.value_info:
        del value.metadata_props[:]
    found = {entry.domain: entry.version for entry in model.opset_import}
    if found.get('', opset) != opset:
        raise ValueError(
            f'opset must be one that the exporter can write for this model, got {opset}: it wrote {found[""]}'
        )
    if slim:
        import onnxslim

        model = onnxslim.slim(model, model_check=False)
    if any(node.domain == DOMAIN for node in model.graph.node) and DOMAIN not in {
        e.domain for e in model.opset_import
    }:
        entry = model.opset_import.add()
        entry.domain, entry.version = DOMAIN, DOMAIN_VERSION
    return model


def without_inspected(model: Any) -> Any:
    """A copy of the model with only its regular outputs."""
    import onnx

    kept = onnx.ModelProto()
    kept.CopyFrom(model)
    outputs = [output for output in kept.graph.output if output.name in OUTPUT_NAMES]
    del kept.graph.output[:]
    kept.graph.output.extend(outputs)
    return kept


def add_metadata(model: Any, metadata: Dict[str, Any]) -> None:
    """Write metadata into a model; values that are not strings are written as JSON."""
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
