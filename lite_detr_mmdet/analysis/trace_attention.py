"""Run a detector and keep what its deformable attention was called with."""

from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

import mmcv
import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.models.detectors import DDQDETR, DINO
from mmdet.utils import get_test_pipeline_cfg
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from ..acceleration.attention import FastDeformableAttention
from ..datasets.checks import DatasetError, check_image
from ..models.layers.attention_call import AttentionCall, read_attention_call
from .attention import AttentionLayer, AttentionTrace, QuerySelection, Shapes
from .sampling import check_attention

ATTENTION = dict(encoder='self_attn', decoder='cross_attn')


class _Recorder:
    """Copies of what passes through a detector: layers of encoder and decoder write over their inputs."""

    def __init__(self) -> None:
        self.calls: Dict[str, AttentionCall] = {}
        self.copies: Dict[tuple, Tuple[Tensor, Tensor]] = {}
        self.encoder_inputs: Dict[str, Any] = {}
        self.logits: List[Tensor] = []
        self.selecting = False

    def attention(self, name: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Before an attention."""
        call = read_attention_call(module, *args, **kwargs)
        query = call.query.detach().clone()
        value = self._copy(call.value)
        self.calls[name] = call._replace(query=query, value=value, reference_points=call.reference_points.clone())

    def _copy(self, value: Tensor) -> Tensor:
        if value.is_inference():  # it has no version by which a change could be seen
            return value.clone()
        key = (value.data_ptr(), value._version, value.shape)
        if key not in self.copies:
            self.copies[key] = value, value.detach().clone()  # kept, so that no other tensor gets its address
        return self.copies[key][1]

    def before_encoder(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """What the encoder is called with."""
        self.encoder_inputs = kwargs

    def after_encoder(self, *_: Any) -> None:
        """The classification of tokens comes next."""
        self.selecting = True

    def before_decoder(self, *_: Any) -> None:
        """From here on the head classifies queries, with the same layer in some hosts."""
        self.selecting = False

    def classified(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        """After the layer that scores tokens."""
        if self.selecting:
            self.logits.append(output.detach().float().clone())


def _find_attention(model: nn.Module) -> Dict[str, nn.Module]:
    """The deformable attention of the layers of encoder and decoder, by name.

    Raises:
        ValueError: If the model is another one, or compiled.
    """
    for name, module in model.named_modules():
        if module._compiled_call_impl is not None or hasattr(module, '_orig_mod'):
            raise ValueError(f'model must not be compiled, but {name or "it"} is: restore(model), or build it anew')
    found = {}
    for part, attribute in ATTENTION.items():
        layers = getattr(getattr(model, part, None), 'layers', ())
        for index, layer in enumerate(layers):
            name = f'{part}.layers.{index}.{attribute}'
            module = getattr(layer, attribute, None)
            if module is None:
                raise ValueError(f'{type(model).__name__} has no {name}: it must be a deformable DETR')
            check_attention(name, module)
            found[name] = module
        if not len(layers):
            raise ValueError(f'{type(model).__name__} has no {part}.layers: it must be a deformable DETR')
    return found


@contextmanager
def _recording(model: nn.Module, attention: Dict[str, nn.Module]) -> Iterator[_Recorder]:
    """Listen to the parts of a detector; they are as before afterwards."""
    recorder = _Recorder()
    with ExitStack() as stack:
        handles = [
            model.encoder.register_forward_pre_hook(recorder.before_encoder, with_kwargs=True),
            model.encoder.register_forward_hook(recorder.after_encoder),
            model.decoder.register_forward_pre_hook(recorder.before_decoder),
        ]
        branches = model.bbox_head.cls_branches
        if len(branches) > model.decoder.num_layers:
            handles.append(branches[model.decoder.num_layers].register_forward_hook(recorder.classified))
        for name, module in attention.items():
            handles.append(
                module.register_forward_pre_hook(partial(recorder.attention, name), with_kwargs=True)  # type: ignore
            )
            if isinstance(module, FastDeformableAttention):  # accelerated layers of the encoder call it in parts
                stack.callback(module.__dict__.pop, 'sample')
                module.__dict__['sample'] = partial(_sample, recorder, name, module)
        for handle in handles:
            stack.callback(handle.remove)
        yield recorder


def _sample(recorder: _Recorder, name: str, module: FastDeformableAttention, *args: Any) -> Tensor:
    names = ('query', 'query_pos', 'value', 'key_padding_mask', 'reference_points', 'spatial_shapes')
    recorder.attention(name, module, (), dict(zip(names, args)))
    return type(module).sample(module, *args)


def prepare_image(model: nn.Module, image: Union[str, Path, np.ndarray]) -> dict:
    """A batch of one image by the test pipeline of a model's config.

    Raises:
        ValueError: If the model has no config, or needs a text beside the image.
        DatasetError: If the image cannot be read.
    """
    if not hasattr(model, 'cfg'):
        raise ValueError('model must have a cfg, as those of get_model do; else give a batch: inputs and data_samples')
    if hasattr(model, 'language_model'):
        raise ValueError(f'{type(model).__name__} needs a text: give a batch whose data_samples have one')
    if not isinstance(image, np.ndarray):
        path, image = Path(image), None
        if not path.is_file():
            raise DatasetError(f'image must be a file that exists, got {str(path)!r}')
        image = mmcv.imread(str(path))
        if image is None:
            raise DatasetError(f'{path} cannot be read as an image')
    check_image(image, 'image')
    with DefaultScope.overwrite_default_scope('mmdet'):
        steps = [dict(step) for step in get_test_pipeline_cfg(model.cfg)]
        steps[0]['type'] = 'mmdet.LoadImageFromNDArray'
        steps[0].pop('backend_args', None)
        data = Compose([step for step in steps if 'LoadAnnotations' not in step['type']])(dict(img=image, img_id=0))
    return pseudo_collate([data])


@torch.no_grad()
def trace_attention(model: nn.Module, image: Union[str, Path, np.ndarray, dict]) -> AttentionTrace:
    """Detect, and return where each layer of encoder and decoder sampled and with which weights.

    The detector runs as ever, on the fused operator, and its predictions are those without tracing, bit for bit. What
    its attention was called with is copied; locations and weights are computed from it on demand, in float32.

    Args:
        model (nn.Module): DINO, Deformable DETR, DDQ-DETR, H-DETR or a Lite form of them, accelerated or not; on any
            device. Not one that is compiled.
        image (str | Path | np.ndarray | dict): File of an image or an array (height, width, 3) in BGR, for a model
            with its config (``get_model``); or a batch as a dataloader of mmdet gives it: ``inputs`` and
            ``data_samples``.

    Returns:
        AttentionTrace: Layers, scores of the tokens as queries, and predictions.

    Raises:
        DatasetError: If the image cannot be read.
        ValueError: If the model is none of these.
    """
    attention = _find_attention(model)
    batch = image if isinstance(image, dict) else prepare_image(model, image)
    was_training = model.training
    model.eval()
    try:
        with _recording(model, attention) as recorder:
            data = model.data_preprocessor(batch, False)
            predictions = model(**data, mode='predict')
    finally:
        model.train(was_training)
    layers = _make_layers(model, attention, recorder, predictions)
    split = len(model.encoder.layers)
    memory_shapes = layers[split].level_shapes  # of the tokens that the encoder returns
    return AttentionTrace(layers[:split], layers[split:], _selection(model, recorder, memory_shapes), predictions)


def _make_layers(
    model: nn.Module, attention: Dict[str, nn.Module], recorder: _Recorder, predictions: List[Any]
) -> List[AttentionLayer]:
    ratios = recorder.encoder_inputs['valid_ratios'].float()
    sizes = [(sample.ori_shape[1], sample.ori_shape[0]) for sample in predictions]
    made = []
    for name, module in attention.items():
        call = recorder.calls[name]
        part, _, index, _ = name.split('.')
        shapes: Shapes = tuple((int(height), int(width)) for height, width in call.spatial_shapes.tolist())
        tokens, updates = _updated(model, int(index), shapes) if part == 'encoder' else (None, 'queries')
        made.append(
            AttentionLayer(
                part=part,
                index=int(index),
                name=name,
                level_shapes=shapes,
                updates=updates,
                tokens=tokens,
                valid_ratios=ratios[:, -len(shapes) :],
                image_sizes=ratios.new_tensor(sizes),
                module=module,
                call=call,
            )
        )
    return made


def _updated(model: nn.Module, index: int, shapes: Shapes) -> Tuple[slice, str]:
    """The tokens that a layer of the encoder updates."""
    everything = slice(0, sum(height * width for height, width in shapes))
    if not hasattr(model.encoder, 'updated_part'):
        return everything, 'all'
    parts = model.encoder.token_parts(shapes)
    part = model.encoder.updated_part(index, parts)
    return part, 'all' if part == everything else 'high' if part == parts.high else 'low'


def _selection(model: nn.Module, recorder: _Recorder, shapes: Shapes) -> Optional[QuerySelection]:
    if not recorder.logits:
        return None
    num_tokens = sum(height * width for height, width in shapes)
    rows = torch.cat([logits.flatten(0, -2) for logits in recorder.logits])  # accelerated: some rows at a time
    bs = len(recorder.encoder_inputs['valid_ratios'])
    logits = rows.view(bs, -1, rows.shape[-1])[:, :num_tokens]  # hosts of small images add empty ones
    scores = logits.amax(-1) if isinstance(model, DINO) else logits[..., 0]
    chosen = None if isinstance(model, DDQDETR) else scores.topk(min(model.num_queries, num_tokens), dim=1).indices
    return QuerySelection(scores.sigmoid(), shapes, chosen)
