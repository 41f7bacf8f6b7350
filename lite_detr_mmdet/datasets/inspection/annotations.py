"""Ids and boxes of an annotation file."""

import math
from collections import Counter, defaultdict
from typing import Any, Dict, Iterator, List, Optional, Tuple

from .config import Split
from .findings import Finding

TOLERANCE = 1.0  # pixels that a box may leave its image by rounding


def check_annotations(split: Split, num_queries: Optional[int]) -> Iterator[Finding]:
    """Ids, boxes and numbers of objects of one annotation file.

    Args:
        split (Split): The file.
        num_queries (int, optional): Queries of the detector, which bound the objects that it can find in an image.
    """
    yield from check_ids(split)
    images = {image.get('id'): image for image in split.content['images']}
    categories = {category.get('id') for category in split.content['categories']}
    objects: Dict[Any, List[dict]] = defaultdict(list)
    for annotation in split.content['annotations']:
        where = f'{split.ann_file}, annotation {annotation.get("id")}'
        image = images.get(annotation.get('image_id'))
        if image is None:
            yield Finding('unknown-image', where, f'image_id {annotation.get("image_id")!r} is not in the list')
            continue
        if annotation.get('category_id') not in categories:
            yield Finding(
                'unknown-category', where, f'category_id {annotation.get("category_id")!r} is not in the list'
            )
        objects[image['id']].append(annotation)
        yield from check_box(split, annotation, image, where)
    for image in split.content['images']:
        found = objects.get(image.get('id'), [])
        where = f'{split.ann_file}, {image.get("file_name")}'
        if not found:
            yield Finding('image-without-objects', where, 'has no object')
        if num_queries is not None and len(found) > num_queries:
            yield Finding('too-many-objects', where, f'has {len(found)} objects, the detector {num_queries} queries')
        boxes = Counter((str(item.get('bbox')), item.get('category_id')) for item in found)
        for (box, _), count in boxes.items():
            if count > 1:
                yield Finding('duplicate-box', where, f'has the box {box} {count} times')


def check_ids(split: Split) -> Iterator[Finding]:
    """Ids and names that stand for two things."""
    for kind in ('images', 'annotations', 'categories'):
        keys = ('id', 'file_name') if kind == 'images' else ('id', 'name') if kind == 'categories' else ('id',)
        for key in keys:
            counts = Counter(repr(entry.get(key)) for entry in split.content[kind])
            for value, count in counts.items():
                if count > 1:
                    yield Finding('duplicate-id', f'{split.ann_file}, {kind}', f'{key} {value} appears {count} times')


def read_box(annotation: dict) -> Optional[Tuple[float, float, float, float]]:
    """x, y, width and height; None if they are not four finite numbers."""
    box = annotation.get('bbox')
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        return None
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in box):
        return None
    return tuple(map(float, box)) if all(map(math.isfinite, box)) else None


def check_box(split: Split, annotation: dict, image: dict, where: str) -> Iterator[Finding]:
    """A box by itself, in its image, and after resizing."""
    box = read_box(annotation)
    if box is None:
        yield Finding('bad-number', where, f'bbox must hold four finite numbers, got {annotation.get("bbox")!r}')
        return
    x, y, width, height = box
    if width <= 0 or height <= 0:
        yield Finding('empty-box', where, f'bbox {list(box)} in {image.get("file_name")}')
        return
    image_size = (image.get('width'), image.get('height'))
    if not all(isinstance(value, (int, float)) and value > 0 for value in image_size):
        yield Finding('image-size', where, f'{image.get("file_name")} has the size {image_size}')
        return
    of_image = f'bbox {list(box)}, {image.get("file_name")} has {image_size[0]}x{image_size[1]} pixels'
    if x >= image_size[0] or y >= image_size[1] or x + width <= 0 or y + height <= 0:
        yield Finding('box-outside', where, of_image)
        return
    if max(-x, -y, x + width - image_size[0], y + height - image_size[1]) > TOLERANCE:
        yield Finding('box-leaves-image', where, of_image)
    factor = smallest_factor(split.scales, image_size)
    if min(width, height) * factor < 1:
        yield Finding('vanishing-object', where, f'{of_image}: resized by {factor:.3g}')


def smallest_factor(scales: List[Tuple[int, int]], image_size: Tuple[int, int]) -> float:
    """Smallest factor by which an image is resized with its aspect ratio kept; 1 without resizing."""
    long, short = max(image_size), min(image_size)
    # The longer side is at most the larger number, the shorter one at most the smaller number.
    return min((min(max(scale) / long, min(scale) / short) for scale in scales), default=1.0)
