"""Before the first iteration, log what will be trained on, and stop if it cannot work."""

from collections import Counter
from pathlib import Path
from typing import Any, Dict, List

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..datasets.checks import DatasetError, leaf_datasets

SHOWN_FILES = 3


@HOOKS.register_module()
class DataSummaryHook(Hook):
    """Before training, log the images of the training set and the objects of each class.

    ``tools/train.py`` adds it to every config.

    Args:
        allow_empty_classes (bool): Whether a class may have no training object. Defaults to False.
    """

    priority = 'VERY_HIGH'

    def __init__(self, allow_empty_classes: bool = False) -> None:
        self.allow_empty_classes = allow_empty_classes

    def before_train(self, runner: Runner) -> None:
        """Count and check.

        Raises:
            DatasetError: If the head and the data set differ in their number of classes, a class has no object, or
                files are missing.
        """
        for leaf in leaf_datasets(runner.train_dataloader.dataset):
            classes = tuple((getattr(leaf, 'metainfo', None) or {}).get('classes') or ())
            if not classes or not hasattr(leaf, 'get_data_info'):
                continue
            summary = summarize(leaf, classes)
            counts = ', '.join(f'{name} {count}' for name, count in summary['counts'].items())
            print_log(
                f'training on {len(leaf)} images ({summary["empty"]} without objects) of '
                f'{getattr(leaf, "ann_file", type(leaf).__name__)}: {counts}',
                logger='current',
            )
            self._check(leaf, classes, summary, runner.model)

    def _check(self, leaf: Any, classes: tuple, summary: Dict[str, Any], model: nn.Module) -> None:
        source = getattr(leaf, 'ann_file', type(leaf).__name__)
        missing: List[str] = summary['missing']
        if missing:
            shown = ', '.join(missing[:SHOWN_FILES]) + (', ...' if len(missing) > SHOWN_FILES else '')
            raise DatasetError(f'{source}: {len(missing)} image files are missing: {shown}')
        head = getattr(model.module if is_model_wrapper(model) else model, 'bbox_head', None)
        num_classes = getattr(head, 'num_classes', None)
        if isinstance(num_classes, int) and num_classes != len(classes):
            raise DatasetError(
                f'bbox_head.num_classes must be {len(classes)}, the classes of {source}, got {num_classes}'
            )
        empty = [name for name, count in summary['counts'].items() if not count]
        if empty and not self.allow_empty_classes:
            raise DatasetError(
                f'{source} holds no object of {", ".join(map(repr, empty))}: remove the class from metainfo.classes, '
                'or allow it with DataSummaryHook(allow_empty_classes=True)'
            )


def summarize(dataset: Any, classes: tuple) -> Dict[str, Any]:
    """Objects of each class, images without objects and files that are missing."""
    labels: Counter = Counter()
    empty, missing = 0, []
    remote = getattr(dataset, 'backend_args', None) is not None
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        objects = [item['bbox_label'] for item in info.get('instances', []) if not item.get('ignore_flag')]
        labels.update(objects)
        empty += not objects
        path = info.get('img_path')
        if not remote and path is not None and not Path(path).is_file():
            missing.append(str(path))
    return dict(counts={name: labels[index] for index, name in enumerate(classes)}, empty=empty, missing=missing)
