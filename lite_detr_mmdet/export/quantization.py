"""INT8 for OpenVINO, with all that decides on boxes and queries left in float."""

import re
import tempfile
from pathlib import Path
from typing import Any, List, Sequence

import numpy as np

from ..output_files import copy_whole
from .exported import METADATA
from .onnx_model import require

# Convolutions, and the feed-forward layers of the encoder: most of the arithmetic. Attention, decoder and heads stay
# in float: coordinates and near-equal scores do not survive 8 bits. So do depthwise convolutions: they are little of
# the arithmetic, and in 8 bits they cost EfficientNet-Lite0 up to 1.2 AP on BCCD, depending on the calibration.
QUANTIZED_TYPES = ('Convolution',)
QUANTIZED_LAYERS = re.compile(r'encoder\.layers\.\d+(\.layers\.\d+)?\.(low_level_)?ffn\.')
WITHOUT_ARITHMETIC = ('Constant', 'Parameter', 'Result')


def quantize(model: Any, images: Sequence[np.ndarray]) -> Any:
    """Quantise backbone, neck and the encoder's feed-forward layers to INT8 with NNCF.

    Args:
        model (openvino.Model): Exported with standard operators or with the compiled ones as nodes; not changed.
        images (sequence[np.ndarray]): To calibrate with, as the model takes them, (bs, 3, H, W). Training images.

    Returns:
        openvino.Model: The quantised model; it has the metadata of the model.

    Raises:
        ImportError: If NNCF is missing.
        ValueError: If there are no images, or the model has nothing to quantise.
    """
    require('nncf', 'openvino')
    import nncf

    if not len(images):
        raise ValueError('images must hold at least one image to calibrate with, got none')
    kept = float_nodes(model)
    quantized = nncf.quantize(
        model,
        nncf.Dataset(images, lambda image: {'images': image}),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        fast_bias_correction=True,
        ignored_scope=nncf.IgnoredScope(names=kept, validate=False),
    )
    if not any(node.get_type_name() == 'FakeQuantize' for node in quantized.get_ops()):
        raise ValueError('model must have convolutions or feed-forward layers to quantise, got none')
    for key in METADATA:
        if model.has_rt_info(['framework', key]):
            quantized.set_rt_info(str(model.get_rt_info(['framework', key]).value), ['framework', key])
    return quantized


def save(model: Any, path: Path) -> None:
    """Write a model as ``path``, .xml, and its weights beside it, .bin; each is there whole or not at all.

    Args:
        model (openvino.Model): The model.
        path (Path): The .xml file, in a folder that exists.

    Raises:
        OSError: If one of the files cannot be written; see :func:`lite_detr_mmdet.output_files.check_output`.
    """
    import openvino

    with tempfile.TemporaryDirectory(dir=path.parent, prefix='.', suffix='.partial') as folder:
        saved = Path(folder) / path.name
        openvino.save_model(model, str(saved), compress_to_fp16=False)
        for suffix in ('.bin', '.xml'):  # in this order: who sees the model has its weights
            copy_whole(saved.with_suffix(suffix), path.with_suffix(suffix))


def float_nodes(model: Any) -> List[str]:
    """Names of the nodes that stay in float."""
    nodes = model.get_ops()
    feed_forward = {
        node.get_friendly_name()
        for bias in nodes
        if bias.get_type_name() == 'Constant' and QUANTIZED_LAYERS.search(bias.get_friendly_name())
        for node in _linear_layers(bias)
    }
    return [
        node.get_friendly_name()
        for node in nodes
        if node.get_type_name() not in (*QUANTIZED_TYPES, *WITHOUT_ARITHMETIC)
        and node.get_friendly_name() not in feed_forward
    ]


def _linear_layers(bias: Any) -> List[Any]:
    """The products that a bias is added to: only biases keep the names that they have in torch.

    A Gemm of ONNX is read as MatMul and Add, with a Multiply between each input and the Add.
    """
    found = []
    for consumer in _consumers(bias):
        for add in [consumer, *_consumers(consumer)]:
            if add.get_type_name() == 'Add':
                sources = _sources(add)
                nodes = sources + [node for source in sources for node in _sources(source)]
                found += [node for node in nodes if node.get_type_name() == 'MatMul']
    return found


def _consumers(node: Any) -> List[Any]:
    return [target.get_node() for output in node.outputs() for target in output.get_target_inputs()]


def _sources(node: Any) -> List[Any]:
    return [source.get_source_output().get_node() for source in node.inputs()]
