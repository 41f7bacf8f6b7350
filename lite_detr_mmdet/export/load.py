"""Detectors with their weights, for export."""

from pathlib import Path
from typing import Any, Dict, Tuple, Union

from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import nn

from ..apis.models import find_dataset_meta, find_weights, read_weights, set_num_classes
from ..checkpoint import file_sha256
from ..zoo import get_config


def load_detector(config: Union[str, Path], weights: Union[str, Path]) -> Tuple[nn.Module, Dict[str, Any]]:
    """Build a detector with all its weights.

    Args:
        config (str | Path): See :func:`lite_detr_mmdet.get_config`.
        weights (str | Path): A file, a URL, or the name of a model with released weights.

    Returns:
        tuple[nn.Module, dict]: The detector in evaluation mode on the CPU, and where it comes from, for metadata.

    Raises:
        ConnectionError: If the URL cannot be reached.
        FileNotFoundError: If a file does not exist.
        ValueError: If there is no such model, or the weights do not belong to the config.
    """
    cfg = get_config(config)
    path = find_weights(str(config), weights)
    state_dict, meta = read_weights(path)
    set_num_classes(cfg, None, state_dict)
    if 'backbone' in cfg.model:
        cfg.model.backbone.init_cfg = None  # download only what was asked for
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = MODELS.build(cfg.model)
    own = model.state_dict()
    state_dict = {name.removeprefix('module.'): value for name, value in state_dict.items()}
    missing = [name for name in own if name not in state_dict]
    shapes = [name for name, value in own.items() if name in state_dict and state_dict[name].shape != value.shape]
    if missing or shapes:
        raise ValueError(
            f'{path} does not hold the weights of {config}: {len(missing)} are missing, {len(shapes)} have another '
            f'shape, first {(missing + shapes)[0]}'
        )
    model.load_state_dict(state_dict, strict=False)
    model.cfg = cfg
    model.dataset_meta = find_dataset_meta(cfg, meta)
    source = {'config': Path(str(config)).stem, 'weights': Path(path).name, 'weights_sha256': file_sha256(path)}
    return model.eval(), source
