"""What a config says about its data: files, classes, sizes and heads."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from mmengine.config import Config

from ..formats.coco import read_coco
from .findings import Finding

SPLITS = ('train', 'val', 'test')


@dataclass
class Split:
    """One annotation file with its images.

    Attributes:
        name (str): 'train', 'val' or 'test', with a number where a split has several files.
        ann_file (Path): The annotation file.
        image_root (Path): Folder that ``file_name`` is relative to.
        classes (tuple[str], optional): Names in the config, None where it leaves them to the data set.
        scales (list[tuple[int, int]]): Sizes that images may be resized to, (width, height) as mmdet reads them.
        content (dict): The annotation file, empty where it could not be read.
    """

    name: str
    ann_file: Path
    image_root: Path
    classes: Optional[Tuple[str, ...]]
    scales: List[Tuple[int, int]] = field(default_factory=list)
    content: Dict[str, Any] = field(default_factory=dict)


@dataclass
class InspectedConfig:
    """What an inspection needs of a config."""

    splits: List[Split]
    num_classes: Dict[str, int]
    num_queries: Optional[int]
    findings: List[Finding]


def read_splits(cfg: Config) -> InspectedConfig:
    """Read which files, classes and sizes a config trains and tests with, and the annotation files themselves."""
    findings: List[Finding] = []
    splits: List[Split] = []
    for name in SPLITS:
        datasets = list(iter_datasets((cfg.get(f'{name}_dataloader') or {}).get('dataset')))
        for index, dataset in enumerate(datasets):
            split = _read_split(f'{name} {index + 1}' if len(datasets) > 1 else name, dataset, findings)
            # Testing on the validation images is common, and nothing to tell twice.
            if split is not None and split.ann_file not in [other.ann_file for other in splits]:
                splits.append(split)
    model = cfg.get('model') or {}
    heads = dict(_num_classes(model))
    queries = model.get('num_queries')
    return InspectedConfig(splits, heads, queries if isinstance(queries, int) else None, findings)


def iter_datasets(dataset: Optional[dict]) -> Iterator[dict]:
    """The data sets below wrappers such as RepeatDataset and ConcatDataset."""
    if not dataset:
        return
    if 'datasets' in dataset:
        for part in dataset['datasets']:
            yield from iter_datasets(part)
    elif 'dataset' in dataset:
        yield from iter_datasets(dataset['dataset'])
    else:
        yield dataset


def _read_split(name: str, dataset: dict, findings: List[Finding]) -> Optional[Split]:
    if not dataset.get('ann_file'):
        return None
    root = Path(dataset.get('data_root') or '.')
    ann_file = root / dataset['ann_file']
    prefix = (dataset.get('data_prefix') or {}).get('img', '')
    classes = (dataset.get('metainfo') or {}).get('classes')
    if isinstance(classes, str):
        findings.append(
            Finding('classes-not-a-list', f'config, {name}', f'metainfo.classes must be a tuple, got {classes!r}')
        )
        classes = (classes,)
    split = Split(name, ann_file, root / prefix, tuple(classes) if classes else None)
    split.scales = list(_scales(dataset.get('pipeline') or []))
    palette = (dataset.get('metainfo') or {}).get('palette')
    if classes and isinstance(palette, (list, tuple)) and len(palette) < len(classes):
        findings.append(Finding('palette', f'config, {name}', f'{len(palette)} colors for {len(classes)} classes'))
    try:
        split.content = read_annotation_file(ann_file)
    except (OSError, ValueError) as error:
        findings.append(Finding('annotation-file', str(ann_file), str(error)))
    return split


def read_annotation_file(path: Path) -> Dict[str, Any]:
    """Read a COCO annotation file.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is not JSON with lists of images, annotations and categories.
    """
    if not path.is_file():
        raise FileNotFoundError('there is no such file')
    return read_coco(path)


def _scales(pipeline: Any) -> Iterator[Tuple[int, int]]:
    """Sizes of all resizing transforms, however deep they are nested."""
    if isinstance(pipeline, dict):
        if 'Resize' in str(pipeline.get('type')):
            for value in (pipeline.get('scale'), pipeline.get('scales')):
                values = value if isinstance(value, list) else [value]
                if isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(v, int) for v in value):
                    values = [value]
                yield from (tuple(v) for v in values if isinstance(v, (list, tuple)) and len(v) == 2)
        for value in pipeline.values():
            yield from _scales(value)
    elif isinstance(pipeline, (list, tuple)):
        for value in pipeline:
            yield from _scales(value)


def _num_classes(model: Any, path: str = 'model') -> Iterator[Tuple[str, int]]:
    """Places in the model that state a number of classes."""
    if isinstance(model, dict):
        for key, value in model.items():
            if key == 'num_classes' and isinstance(value, int):
                yield path, value
            elif key != 'backbone':  # a classifier's classes are not those of the data
                yield from _num_classes(value, f'{path}.{key}')
    elif isinstance(model, (list, tuple)):
        for index, value in enumerate(model):
            yield from _num_classes(value, f'{path}[{index}]')
