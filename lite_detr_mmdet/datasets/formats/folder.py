"""Recognise the format of a folder of data, and find the parts of one in COCO format."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Tuple

from .coco import read_coco, write_coco_folder
from .detection_set import DetectionSet, FormatError
from .split import split_by_content
from .voc import read_voc
from .yolo import find_data_yaml, read_yolo

# Words that name a split, in file names or folders.
SPLIT_WORDS = dict(train=('train',), val=('val', 'valid', 'validation'), test=('test',))


@dataclass(frozen=True)
class CocoSplit:
    """Annotation file and folder of images of a split, both relative to the root."""

    ann_file: str
    image_prefix: str


@dataclass
class CocoFolder:
    """A folder in COCO format.

    Attributes:
        root (Path): The folder.
        classes (tuple[str]): Names of the categories of the training file.
        splits (dict[str, CocoSplit]): 'train', 'val' and, where there is one, 'test'.
        most_objects (int): Objects in the image that has most.
        notes (list[str]): What a user should know about the conversion.
    """

    root: Path
    classes: Tuple[str, ...]
    splits: Dict[str, CocoSplit]
    most_objects: int
    notes: List[str]


def open_folder(root: Path, val_share: float = 0.2) -> CocoFolder:
    """Find the parts of a folder in COCO format; one of VOC or YOLO is converted into its subfolder ``coco``.

    Raises:
        FormatError: If the folder is of none of these formats, or has no training or validation split.
    """
    if not root.is_dir():
        raise FormatError(f'{root} is not a folder')
    files = find_annotation_files(root)
    if files:
        return _describe(root, files, [])
    converted = root / 'coco'
    if find_annotation_files(converted):
        return _describe(converted, find_annotation_files(converted), [f'using {converted}, which already exists'])
    if converted.is_symlink():
        raise FormatError(f'{converted} is a link: remove it, so that {root} can be converted into a folder there')
    data = _read_other(root)
    if list(data.splits) == ['all']:
        data.splits = dict(zip(('train', 'val'), split_by_content(data.splits['all'], val_share)))
    write_coco_folder(data, converted)
    notes = [f'converted to {converted}', *(f'{where}: {what}' for where, what in data.problems)]
    return _describe(converted, find_annotation_files(converted), notes)


def _read_other(root: Path) -> DetectionSet:
    try:
        find_data_yaml(root)
    except FormatError:
        if not any(root.rglob('*.xml')):
            raise FormatError(
                f'{root} holds no annotations: neither COCO (annotations/*.json), nor Pascal VOC (*.xml), nor YOLO '
                '(data.yaml)'
            ) from None
        return read_voc(root)
    return read_yolo(root)


def find_annotation_files(root: Path) -> Dict[str, Path]:
    """Annotation files in COCO format by split, told apart by the words in their names or folders.

    Raises:
        FormatError: If two files could be meant for a split.
    """
    found: Dict[str, List[Path]] = {}
    for pattern in ('annotations/*.json', '*.json', '*/*.json'):
        for path in sorted(root.glob(pattern)):
            split = _split_of(path.relative_to(root))
            if split and path not in found.get(split, []) and _is_coco(path):
                found.setdefault(split, []).append(path)
    # COCO's own folder has captions and key points beside the boxes.
    for split, paths in found.items():
        instances = [path for path in paths if path.stem.startswith('instances')]
        found[split] = instances or paths
        if len(found[split]) > 1:
            names = ', '.join(str(path) for path in found[split])
            raise FormatError(f'one annotation file must be for {split}, got {names}')
    return {split: found[split][0] for split in SPLIT_WORDS if split in found}


def _split_of(path: Path) -> str:
    for part in (path.stem, *reversed(path.parts[:-1])):
        words = part.lower().replace('-', '_').replace('.', '_').split('_')
        for split, names in SPLIT_WORDS.items():
            if any(word.rstrip('0123456789') in names for word in words):
                return split
    return ''


def _is_coco(path: Path) -> bool:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {'images', 'annotations', 'categories'} <= set(content)


def _describe(root: Path, files: Dict[str, Path], notes: List[str]) -> CocoFolder:
    for split in ('train', 'val'):
        if split not in files:
            raise FormatError(
                f'{root} must have an annotation file for {split}, e.g. annotations/instances_{split}.json'
            )
    splits, most = {}, 0
    for split, path in files.items():
        content = _read(path)
        if not content['images']:
            raise FormatError(f'{path} lists no image')
        splits[split] = CocoSplit(
            path.relative_to(root).as_posix(), _image_prefix(root, path, split, content['images'][0]['file_name'])
        )
        counts: Dict[object, int] = {}
        for annotation in content['annotations']:
            counts[annotation.get('image_id')] = counts.get(annotation.get('image_id'), 0) + 1
        most = max(most, *counts.values(), 0)
        if split == 'train':
            used = {annotation.get('category_id') for annotation in content['annotations']}
            categories = sorted(content['categories'], key=lambda entry: entry['id'])
            # Roboflow's exports have a category that groups the others and has no object.
            classes = tuple(str(entry['name']) for entry in categories if entry['id'] in used)
            for entry in categories:
                if entry['id'] not in used:
                    notes.append(f'{path}: no object of {entry["name"]!r}: left out of the classes')
    return CocoFolder(root, classes, splits, most, notes)


def _read(path: Path) -> Dict[str, Any]:
    try:
        content = read_coco(path)
    except FormatError as error:
        raise FormatError(f'{path} {error}') from error
    for kind, name in (('images', 'file_name'), ('categories', 'name')):
        if not all(isinstance(entry.get(name), str) for entry in content[kind]):
            raise FormatError(f'{path} must hold a {name} for each of its {kind}')
    if not all(isinstance(entry.get('id'), int) for entry in content['categories']):
        raise FormatError(f'{path} must hold a number as the id of each of its categories')
    return content


def _image_prefix(root: Path, ann_file: Path, split: str, name: str) -> str:
    folders = [root / 'images', root / 'images' / split, root / split, ann_file.parent, root]
    folders += [path for path in sorted(root.iterdir()) if path.is_dir() and path.name.startswith(split)]
    for folder in folders:
        if os.path.isfile(folder / name):
            prefix = folder.relative_to(root).as_posix()
            return '' if prefix == '.' else f'{prefix}/'
    looked = ', '.join(str(folder) for folder in dict.fromkeys(folders))
    raise FormatError(f'{ann_file} names the image {name!r}, which is in none of {looked}')
