"""Models by name, with weights."""

import copy
import logging
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple, Union

import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger, print_log
from mmengine.model import BaseModule
from mmengine.registry import init_default_scope
from torch import nn

from ..checkpoint import cached_weights, check_weights, load_checkpoint_file
from ..compat import check_device
from ..zoo import ConfigNotFoundError, find_model, get_config

CLASS_BRANCH = 'bbox_head.cls_branches.0.weight'


class LoadReport(NamedTuple):
    """What :func:`load_fitting_weights` loaded and what it did not.

    Attributes:
        loaded (list[str]): Weights that were loaded.
        other_shape (dict[str, tuple]): Weights that have another shape: shape in the file, shape in the model.
        missing (list[str]): Weights of the model that the file does not have.
        unused (list[str]): Weights of the file that the model does not have.
    """

    loaded: List[str]
    other_shape: Dict[str, Tuple[tuple, tuple]]
    missing: List[str]
    unused: List[str]

    def __str__(self) -> str:
        lines = [f'{len(self.loaded)} weights loaded']
        lines += [f'not loaded, {old} in the file, {new} here: {key}' for key, (old, new) in self.other_shape.items()]
        lines += [f'not loaded, not in the file: {name}' for name in self.missing]
        lines += [f'not used, not in the model: {name}' for name in self.unused]
        return '\n'.join(lines)


def load_fitting_weights(model: nn.Module, state_dict: dict) -> LoadReport:
    """Load the weights whose shapes match the model's; all others keep their values.

    Args:
        model (nn.Module): The model.
        state_dict (dict[str, Tensor]): The weights.

    Raises:
        ValueError: If none fits.
    """
    own = model.state_dict()
    fitting = {name: value for name, value in state_dict.items() if name in own and value.shape == own[name].shape}
    if not fitting:
        raise ValueError(f'no weight fits the model: the file has {", ".join(list(state_dict)[:3])}, ...')
    model.load_state_dict(fitting, strict=False)
    shapes = {
        name: (tuple(value.shape), tuple(own[name].shape))
        for name, value in state_dict.items()
        if name in own and name not in fitting
    }
    missing = [name for name in own if name not in state_dict]
    return LoadReport(list(fitting), shapes, missing, [name for name in state_dict if name not in own])


def find_weights(name: str, pretrained: Union[bool, str, Path]) -> Optional[Path]:
    """File of the weights that ``pretrained`` of :func:`get_model` stands for; None for False.

    Args:
        name (str): Name or config of the model; True stands for its released weights.
        pretrained (bool | str | Path): A file, a URL, or the name of a model, which stands for its released weights.

    Raises:
        FileNotFoundError: If there is neither such a file nor such a model.
        ValueError: If the model has no released weights.
    """
    if pretrained is False:
        return None
    if pretrained is not True:
        if '://' in str(pretrained) or Path(pretrained).is_file():
            return cached_weights(pretrained)
        name = str(pretrained)
    try:
        model = find_model(name)
    except ConfigNotFoundError as error:
        if pretrained is True:
            raise
        raise FileNotFoundError(
            f'weights must be a file that exists, a URL or the name of a model that has some, got {name!r}'
        ) from error
    if model is None or model.weights is None:
        raise ValueError(f'{name} has no released weights: pretrained must be a file or a URL')
    return cached_weights(model.weights)


def read_weights(path: Path) -> Tuple[dict, dict]:
    """Weights and metadata of a checkpoint, published or of a training run.

    Raises:
        CheckpointError: If it holds no weights, or weights that are not finite.
    """
    checkpoint = load_checkpoint_file(path)
    weights = check_weights(path, checkpoint.get('state_dict', checkpoint), 'state_dict', finite=True)
    return weights, checkpoint.get('meta', {})


def set_num_classes(cfg: Config, num_classes: Optional[int], state_dict: dict) -> None:
    """Set the number of classes in a config, by default to that of the weights.

    Raises:
        ValueError: If the model has no ``bbox_head`` that counts them.
    """
    if num_classes is None and CLASS_BRANCH in state_dict and state_dict[CLASS_BRANCH].ndim == 2:
        num_classes = state_dict[CLASS_BRANCH].shape[0]
    if num_classes is not None:
        if 'bbox_head' not in cfg.model:
            raise ValueError(
                f'num_classes is for models with a bbox_head, {cfg.model.type} needs a config for {num_classes}'
            )
        cfg.model.bbox_head.num_classes = num_classes


def get_model(
    name: Union[str, Path],
    pretrained: Union[bool, str, Path] = False,
    num_classes: Optional[int] = None,
    device: Union[str, torch.device, None] = None,
) -> nn.Module:
    """Build a detector.

    Weights that do not fit, such as class branches for another number of classes, are reported and initialised anew.
    The detector is in evaluation mode, knows its config (``cfg``) and its classes (``dataset_meta``), and works with
    ``mmdet.apis.inference_detector``.

    Args:
        name (str | Path): See :func:`lite_detr_mmdet.get_config`.
        pretrained (bool | str | Path): Weights: a file, a URL, True for the released ones, False for none, not even
            the backbone's. Defaults to False.
        num_classes (int, optional): Number of classes. Defaults to None: that of the weights, else of the config.
        device (str | torch.device, optional): Device. Defaults to None: a GPU if there is one.

    Raises:
        DownloadError: If a URL cannot be reached.
        CheckpointError: If the weights are damaged, or the file holds more than weights.
        FileNotFoundError: If a file does not exist.
        ValueError: If there is no such model, it has no released weights, none of the weights fits, the number of
            classes is not positive, or torch does not have the device.
    """
    if num_classes is not None and num_classes < 1:
        raise ValueError(f'num_classes must be at least 1, got {num_classes}')
    check_device(device)
    cfg = get_config(name)
    path = find_weights(str(name), pretrained)
    state_dict, meta = ({}, {}) if path is None else read_weights(path)
    set_num_classes(cfg, num_classes, state_dict)
    cfg.model.backbone.init_cfg = None  # download only what was asked for
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = MODELS.build(copy.deepcopy(cfg.model))
    _initialise(model)
    if path is not None:
        print_log(f'{path}: {load_fitting_weights(model, state_dict)}', logger='current')
    model.cfg = cfg
    model.dataset_meta = find_dataset_meta(cfg, meta)
    return model.to(get_device() if device is None else device).eval()


def _initialise(model: BaseModule) -> None:
    """Initialise a model without the lines that mmengine logs for each weight."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        model.init_weights()
    finally:
        logger.setLevel(level)


def find_dataset_meta(cfg: Config, meta: dict) -> dict:
    """Class names from the weights, the config or COCO, whichever first match the model's number of classes."""
    num_classes = cfg.model.get('bbox_head', {}).get('num_classes')
    of_config = cfg.get('test_dataloader', {}).get('dataset', {}).get('metainfo')
    for found in (meta.get('dataset_meta'), of_config, CocoDataset.METAINFO):
        found = {key.lower(): value for key, value in (found or {}).items()}
        if 'classes' in found and num_classes in (None, len(found['classes'])):
            return found
    return dict(classes=tuple(f'class {index}' for index in range(num_classes)))
