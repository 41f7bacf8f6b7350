"""Convert checkpoint files of the authors to mmdet and back."""

import re
from pathlib import Path
from typing import NamedTuple, Optional, Sequence, Union

from mmdet.datasets import CocoDataset

from ..checkpoint import (
    check_target,
    check_weights,
    config_to_json,
    file_sha256,
    load_checkpoint_file,
    save_checkpoint_file,
)
from ..version import __version__
from .matching_config import MatchingConfig, check_weights_fit, find_matching_config
from .model_options import model_options
from .official import ConversionReport, mmdet_to_official, official_to_mmdet


class ConvertedFile(NamedTuple):
    """What :func:`convert_official_file` did."""

    report: ConversionReport
    config: MatchingConfig
    num_high_levels: Optional[int]


def convert_official_file(
    source: Union[str, Path],
    target: Union[str, Path],
    num_high_levels: Optional[int] = None,
    num_queries: Optional[int] = None,
    num_classes: Optional[int] = None,
    classes: Optional[Sequence[str]] = None,
    category_ids: Optional[Sequence[int]] = None,
    ema: bool = False,
    overwrite: bool = False,
) -> ConvertedFile:
    """Convert a checkpoint of the authors; the config that fits is looked up, checked and embedded.

    Args:
        source (str | Path): Checkpoint of Lite DETR, DINO, H-DETR or Deformable DETR.
        target (str | Path): File to write: ``meta`` with class names and config, and ``state_dict``.
        num_high_levels (int, optional): Number of high levels, x in HxLy, of a Lite model. Defaults to None: taken
            from the name of a released file (``s2e``, ``s3e``).
        num_queries (int, optional): One-to-one queries of H-DETR. Defaults to None: 300.
        num_classes (int, optional): Number of classes. Defaults to None: those of COCO for 91 rows, else all rows.
        classes (sequence[str], optional): Names of the classes. Defaults to None: COCO's for COCO.
        category_ids (sequence[int], optional): Category id of each class. Defaults to None.
        ema (bool): Whether to take the averaged weights that DINO may save. Defaults to False.
        overwrite (bool): Whether the target may already exist. Defaults to False.

    Raises:
        FileExistsError: If the target already exists, is a link or the source.
        FileNotFoundError: If the source or the target's folder does not exist.
        ValueError: If loading the file would require trusting it, it is not one of these models, or an argument does
            not fit.
    """
    if classes is not None:
        if num_classes not in (None, len(classes)):
            raise ValueError(f'classes must be as many as num_classes, got {len(classes)} and {num_classes}')
        num_classes = len(classes)
    weights = _official_weights(source, ema)
    converted, report = official_to_mmdet(weights, num_classes, category_ids)
    if num_high_levels is None:
        num_high_levels = high_levels_of_name(Path(source).name)
    config = find_matching_config(model_options(converted, num_high_levels, num_queries))
    cfg = config.read()
    check_weights_fit(cfg, converted)
    dataset_meta = _dataset_meta(len(report.rows), classes)
    meta = dict(
        cfg=cfg.pretty_text,
        cfg_json=config_to_json(cfg.to_dict()),
        converted_from=dict(file=Path(source).name, sha256=file_sha256(source), ema=ema),
        lite_detr_mmdet_version=__version__,
    )
    if dataset_meta is not None:
        meta['dataset_meta'] = dataset_meta
    check_target(source, target, overwrite)
    save_checkpoint_file(dict(meta=meta, state_dict=converted), target)
    return ConvertedFile(report, config, num_high_levels)


def convert_mmdet_file(
    source: Union[str, Path],
    target: Union[str, Path],
    num_rows: Optional[int] = None,
    category_ids: Optional[Sequence[int]] = None,
    overwrite: bool = False,
    untied: bool = False,
) -> ConversionReport:
    """Convert a checkpoint of this package or of mmdet to the authors' names.

    Args:
        source (str | Path): Checkpoint with a ``state_dict``.
        target (str | Path): File to write: ``model``, as the authors' scripts load it.
        num_rows (int, optional): Rows of the class branches. Defaults to None: 91 for 80 classes, else all.
        category_ids (sequence[int], optional): Category id of each class. Defaults to None.
        overwrite (bool): Whether the target may already exist. Defaults to False.
        untied (bool): Whether the branches of DINO's decoder layers may differ. Defaults to False.

    Raises:
        FileExistsError: If the target already exists, is a link or the source.
        FileNotFoundError: If the source or the target's folder does not exist.
        ValueError: If the file is not such a checkpoint, or an argument does not fit.
    """
    checkpoint = load_checkpoint_file(source)
    weights = check_weights(source, checkpoint.get('state_dict', checkpoint), 'state_dict', finite=True)
    converted, report = mmdet_to_official(weights, num_rows, category_ids, untied)
    check_target(source, target, overwrite)
    save_checkpoint_file(dict(model=converted), target)
    return report


def high_levels_of_name(name: str) -> Optional[int]:
    """Number of high levels in the name of a released file, e.g. 2 in 'r50_s2ex3_49.9.pth'; None if it has none.

    The authors' README gives their H2L2 file one low-level scale. Their file name says two high-level scales of four,
    hence two low-level ones, and so do the paper's Table 4 (49.9 AP, H2L2) and its 130 GFLOPs: with two low-level
    scales the model has 130.8, with one 152.7.
    """
    match = re.search(r'(?:^|_)s(\d)ex?\d', name)
    return int(match[1]) if match else None


def _official_weights(source: Union[str, Path], ema: bool) -> dict:
    checkpoint = load_checkpoint_file(source)
    name = 'ema_model' if ema else 'model'
    if name in checkpoint:
        return check_weights(source, checkpoint[name], name, finite=True)
    if ema or not any(str(key).endswith('.weight') for key in checkpoint):
        raise ValueError(f'{source} must hold {name!r}, got {", ".join(map(str, checkpoint)) or "nothing"}')
    return check_weights(source, checkpoint, name, finite=True)  # weights without anything around them


def _dataset_meta(num_classes: int, classes: Optional[Sequence[str]]) -> Optional[dict]:
    if classes is not None:
        return dict(classes=tuple(classes))
    if num_classes == len(CocoDataset.METAINFO['classes']):
        return dict(CocoDataset.METAINFO)
    return None
