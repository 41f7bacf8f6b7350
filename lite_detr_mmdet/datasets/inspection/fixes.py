"""Write annotation files with the faults that an inspection can fix removed; the rest is left to the user."""

import hashlib
import math
from pathlib import Path
from typing import Any, Dict, List, Set, Tuple

from PIL import ImageOps

from ..formats.coco import write_json
from ..image_files import open_image
from .annotations import read_box
from .config import Split
from .images import check_image, image_path


def fix_splits(splits: List[Split], out: Path) -> List[Tuple[Path, str]]:
    """Write a repaired copy of each annotation file.

    Images that are missing, broken or there twice go, training images that are also in another split go, boxes
    without area, outside their image, doubled or not finite go, others are clipped; ids are numbered anew; sizes are
    those of the files. Class names are not touched.

    Args:
        splits (list[Split]): Splits whose annotation files could be read.
        out (Path): Folder. Nothing that is there is overwritten.

    Returns:
        list[tuple[Path, str]]: The files, and what was changed in each.

    Raises:
        FileExistsError: If a file is in the way.
    """
    targets = _targets(splits, out)
    for target in targets:
        if target.exists():
            raise FileExistsError(f'{target} already exists: name another folder')
    # Training gives way: the other splits are what results are compared on.
    order = sorted(range(len(splits)), key=lambda index: splits[index].name.startswith('train'))
    seen: Set[str] = set()
    results = {}
    for index in order:
        content, told = _fix(splits[index], seen)
        write_json(targets[index], content)
        results[index] = (targets[index], told)
    return [results[index] for index in range(len(splits))]


def _targets(splits: List[Split], out: Path) -> List[Path]:
    names = [split.ann_file.name for split in splits]
    unique = len(set(names)) == len(names)
    return [out / (split.ann_file.name if unique else f'{split.name.replace(" ", "_")}.json') for split in splits]


def _fix(split: Split, seen: Set[str]) -> Tuple[Dict[str, Any], str]:
    images, sizes, old_ids = [], {}, {}
    for image in split.content['images']:
        path = image_path(split, image)
        finding = check_image(split, image, path)
        if finding is not None and finding.kind != 'image-size':
            continue
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest in seen or 'id' not in image or image['id'] in old_ids:
            continue
        seen.add(digest)
        if finding is not None:
            width, height = _decoded_size(path)
            image = {**image, 'width': width, 'height': height}
        old_ids[image['id']] = len(images)
        sizes[len(images)] = (image['width'], image['height'])
        images.append({**image, 'id': len(images)})
    categories = list({str(entry.get('id')): entry for entry in split.content['categories']}.values())
    known = {entry['id'] for entry in categories if 'id' in entry}
    annotations: List[dict] = []
    kept: Set[tuple] = set()
    clipped = 0
    for annotation in split.content['annotations']:
        number, box = old_ids.get(annotation.get('image_id')), read_box(annotation)
        if number is None or box is None or annotation.get('category_id') not in known:
            continue
        new = _clip(box, sizes[number])
        key = (number, annotation['category_id'], new)
        if new is None or key in kept:
            continue
        kept.add(key)
        clipped += new != box
        entry = {**annotation, 'id': len(annotations) + 1, 'image_id': number, 'bbox': list(new)}
        if new != box or not _is_number(annotation.get('area')):
            entry['area'] = new[2] * new[3]
        annotations.append({'iscrowd': 0, **entry})
    told = (
        f'{len(images)} of {len(split.content["images"])} images, '
        f'{len(annotations)} of {len(split.content["annotations"])} boxes, {clipped} of them clipped'
    )
    return {**split.content, 'images': images, 'annotations': annotations, 'categories': categories}, told


def _decoded_size(path: Path) -> Tuple[int, int]:
    with open_image(path) as file:
        return ImageOps.exif_transpose(file).size


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _clip(box: tuple, size: Tuple[int, int]):
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return None
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + width, float(size[0])), min(y + height, float(size[1]))
    if right <= left or bottom <= top:
        return None
    if (left, top, right, bottom) == (x, y, x + width, y + height):
        return box
    return left, top, right - left, bottom - top
