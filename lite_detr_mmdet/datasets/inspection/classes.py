"""Do the classes of config, annotation file and heads belong together?"""

from difflib import get_close_matches
from typing import Dict, Iterator

from .config import InspectedConfig, Split
from .findings import Finding


def check_classes(inspected: InspectedConfig) -> Iterator[Finding]:
    """Names against the annotation files, and their number against the heads."""
    for split in inspected.splits:
        if split.content:
            yield from check_names(split)
    for split in inspected.splits[:1]:
        classes = split.classes
        if classes is None:
            continue
        for place, number in inspected.num_classes.items():
            if number != len(classes):
                yield Finding(
                    'num-classes', f'config, {place}.num_classes', f'must be {len(classes)}, the classes, got {number}'
                )


def check_names(split: Split) -> Iterator[Finding]:
    """Names of the config against those of the annotation file, and objects of each."""
    names = [str(category.get('name')) for category in split.content['categories']]
    classes = split.classes if split.classes is not None else tuple(names)
    for name in classes:
        if name not in names:
            near = get_close_matches(name, names, n=1, cutoff=0.5) or [
                other for other in names if other.lower() == name.lower()
            ]
            hint = f'; did you mean {near[0]!r}?' if near else ''
            yield Finding('class-names', str(split.ann_file), f'has no category {name!r}, only {names}{hint}')
    for name in names:
        if name not in classes:
            yield Finding('unused-category', str(split.ann_file), f'{name!r} is not among the classes {classes}')
    counts = count_objects(split)
    for name in classes:
        if name in names and not counts.get(name):
            yield Finding('class-without-objects', str(split.ann_file), f'holds no object of {name!r}')


def count_objects(split: Split) -> Dict[str, int]:
    """Objects of each category name, crowds left out."""
    names = {category.get('id'): str(category.get('name')) for category in split.content['categories']}
    counts = dict.fromkeys(names.values(), 0)
    for annotation in split.content['annotations']:
        name = names.get(annotation.get('category_id'))
        if name is not None and not annotation.get('iscrowd'):
            counts[name] += 1
    return counts
