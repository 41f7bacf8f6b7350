"""Checks that report faults of a dataset with the name of the file, before or during training."""

import json
from collections import Counter
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Iterator, List, Optional

import numpy as np
import torch
from mmengine.logging import print_log

from ..text import printable

MIN_SIDE = 8  # pixels of a prepared image: less than one cell of the second feature map


class DatasetError(ValueError):
    """A dataset that cannot be used; the message names the file and says what is wrong with it."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))  # it may quote the file


def leaf_datasets(dataset: Any) -> Iterator[Any]:
    """The data sets below wrappers such as ``ConcatDataset`` and ``RepeatDataset``."""
    if hasattr(dataset, 'datasets'):
        for item in dataset.datasets:
            yield from leaf_datasets(item)
    elif hasattr(dataset, 'dataset'):
        yield from leaf_datasets(dataset.dataset)
    else:
        yield dataset


def check_class_names(dataset: Any) -> None:
    """Check that every class of a data set in COCO's format is a category of its annotation file.

    mmdet ignores objects whose class name does not match: a misspelt class would be trained as background.

    Args:
        dataset (Dataset): A data set, or a wrapper around several, each class being in at least one of them.

    Raises:
        DatasetError: If a class is in none; the message shows both lists and the closest names. If a file has two
            categories of one name, which mmdet would number as two classes.
    """
    leaves = [leaf for leaf in leaf_datasets(dataset) if hasattr(leaf, 'cat_ids') and hasattr(leaf, 'ann_file')]
    for leaf in leaves:
        if len(leaf.cat_ids) > len(leaf.metainfo.get('classes', ())):
            compare_class_names(leaf.metainfo['classes'], read_categories(leaf.ann_file), str(leaf.ann_file))
    fitting = [leaf for leaf in leaves if len(leaf.cat_ids) == len(leaf.metainfo.get('classes', ()))]
    if not leaves or fitting:
        # Of several files one may lack a class that another has: only what no file has is an error.
        return
    categories: List[str] = []
    for leaf in leaves:
        categories += read_categories(leaf.ann_file)
    places = ', '.join(str(leaf.ann_file) for leaf in leaves)
    compare_class_names(leaves[0].metainfo['classes'], list(dict.fromkeys(categories)), places)


def read_categories(ann_file: Any) -> List[str]:
    """Names of the categories of an annotation file in COCO's format."""
    return read_names(ann_file, 'categories', 'name')


def read_names(ann_file: Any, part: str, key: str) -> List[str]:
    """What each entry of a part of an annotation file in COCO's format has under a key.

    Args:
        ann_file (str | Path): The file.
        part (str): 'categories' or 'images'.
        key (str): 'name' or 'file_name'.

    Raises:
        DatasetError: If it is not such a file.
    """
    try:
        content = json.loads(Path(ann_file).read_text())
        return [str(entry[key]) for entry in content[part]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(
            f"{ann_file} must be annotations in COCO's format: {type(error).__name__}: {error}"
        ) from error


def compare_class_names(classes: Any, categories: List[str], place: str) -> None:
    """Compare the classes of a config with the categories of a file.

    Raises:
        DatasetError: If a class is not among the categories, or either has a name twice.
    """
    for names, owner in ((classes, 'metainfo.classes'), ([name for name in categories if name in classes], place)):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise DatasetError(f'{owner} has the name {twice[0]!r} twice')
    missing = [name for name in classes if name not in categories]
    if not missing:
        return
    lower = {name.lower(): name for name in categories}
    nearest = {name: get_close_matches(name.lower(), lower, n=1, cutoff=0.4) for name in missing}
    hints = [f'{name!r}' + (f' (nearest: {lower[near[0]]!r})' if near else '') for name, near in nearest.items()]
    raise DatasetError(
        f'metainfo.classes has names that are no category of {place}: {", ".join(hints)}. Classes of the config: '
        f'{list(classes)}; categories of the file: {sorted(set(categories))}'
    )


def explain_failed_build(dataset_cfg: dict, error: Exception) -> DatasetError:
    """Explain why a data set in COCO format could not be built, with the name of its file.

    Args:
        dataset_cfg (dict): Its config.
        error (Exception): What building it raised.
    """
    cfg = dataset_cfg
    while 'ann_file' not in cfg and isinstance(cfg.get('dataset'), dict):
        cfg = cfg['dataset']
    ann_file = Path(cfg.get('data_root') or '', cfg.get('ann_file') or '')
    try:
        classes = (cfg.get('metainfo') or {}).get('classes')
        if ann_file.suffix == '.json' and classes:
            compare_class_names(classes, read_categories(ann_file), str(ann_file))
    except DatasetError as fault:
        return fault
    if isinstance(error, ValueError) and 'concatenate' in str(error):
        return DatasetError(f'{ann_file} has no image to use: it lists none, or filter_cfg removes all of them')
    return DatasetError(f'{ann_file} cannot be used: {type(error).__name__}: {error}')


class CheckedSamples:
    """Replaces the ``prepare_data`` of a data set; errors then name the file of the sample that failed.

    Args:
        dataset (BaseDataset): The data set.
        skip (bool): Whether to skip a training sample that fails, with a warning, and draw another one instead of
            raising an error. Defaults to False.
    """

    def __init__(self, dataset: Any, skip: bool = False) -> None:
        self.dataset = dataset
        self.original = dataset.prepare_data
        self.skip = skip and not getattr(dataset, 'test_mode', False)
        self.skipped = torch.zeros(1, dtype=torch.int64).share_memory_()  # counted over all data workers

    def __call__(self, index: int) -> Optional[dict]:
        path = None
        try:
            path = self.dataset.get_data_info(index).get('img_path')
            sample = self.original(index)
            if sample is not None:
                check_sample(sample)
            return sample
        except Exception as error:  # whatever a transform raises: it does not say which image it was
            fault = f'{path or f"sample {index}"} (of {getattr(self.dataset, "ann_file", "the data set")}): '
            fault += str(error) if isinstance(error, DatasetError) else f'{type(error).__name__}: {error}'
            if not self.skip:
                raise DatasetError(fault) from error
        self.skipped += 1
        print_log(f'skipped, {int(self.skipped)} so far: {fault}', logger='current', level=30)
        if int(self.skipped) > max(100, 10 * len(self.dataset)):
            raise DatasetError(f'almost every image fails, the last one was {fault}')
        return None


def check_sample(sample: dict) -> None:
    """Check the output of a pipeline for an image and its objects.

    Args:
        sample (dict): ``inputs``, the image (channels, height, width), and ``data_samples``.

    Raises:
        DatasetError: If the image does not have three channels, is too small or not finite, or a box is not finite.
    """
    image = sample.get('inputs')
    if isinstance(image, torch.Tensor):
        if image.ndim != 3 or image.shape[0] != 3:
            raise DatasetError(f'the image must have 3 channels, got the shape {tuple(image.shape)}')
        if min(image.shape[1:]) < MIN_SIDE:
            height, width = image.shape[1:]
            raise DatasetError(f'the image must be at least {MIN_SIDE} pixels wide and high, got {width}x{height}')
        if image.is_floating_point() and not image.isfinite().all():
            raise DatasetError('the image must be finite')
    instances = getattr(sample.get('data_samples'), 'gt_instances', None)
    if instances is not None and 'bboxes' in instances:
        boxes = instances.bboxes
        boxes = boxes.tensor if hasattr(boxes, 'tensor') else boxes
        if not torch.as_tensor(boxes).isfinite().all():
            raise DatasetError('its boxes must be finite')


def check_image(image: Any, name: str) -> None:
    """Check an array that is given as an image.

    Args:
        image (np.ndarray): Image (height, width, 3), in BGR.
        name (str): Name of the array in messages.

    Raises:
        DatasetError: If it is not an image.
    """
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise DatasetError(f'{name} must be an image (height, width, 3), got the shape {image.shape}')
    if image.dtype.kind not in 'uif':
        raise DatasetError(f'{name} must be an image of numbers, got {image.dtype}')
    if image.dtype.kind == 'f' and not np.isfinite(image).all():
        raise DatasetError(f'{name} must be finite')
