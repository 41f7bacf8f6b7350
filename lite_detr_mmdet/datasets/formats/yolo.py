"""Read the format of YOLO: a ``data.yaml`` and a text file of normalised boxes for each image."""

import os
from pathlib import Path
from typing import Any, Dict, List, Tuple

import yaml

from .detection_set import (
    IMAGE_SUFFIXES,
    Box,
    DetectionSet,
    FormatError,
    ImageEntry,
    Problem,
    add_box,
    read_image_size,
)

SPLITS = ('train', 'val', 'test')
MAX_YAML_BYTES = 1 << 20


def read_yolo(source: Path) -> DetectionSet:
    """Read a set that a ``data.yaml`` describes.

    A split is a folder of images, a text file with the path of an image on each line, or a list of these. The label
    file of an image lies in the folder ``labels`` where the image lies in ``images``, else beside it; an image
    without one, or with an empty one, is background. A line holds the number of the class and centre x, centre y,
    width and height in shares of the image, or the corners of a polygon, whose bounding box is taken.

    Args:
        source (Path): The ``data.yaml``, or the folder that holds one.

    Raises:
        FormatError: If ``data.yaml`` is missing or says nothing usable, or a split has no image.
    """
    path = find_data_yaml(source)
    content = _read_yaml(path)
    classes = _read_names(path, content)
    root = Path(content['path']) if isinstance(content.get('path'), str) else Path('.')
    # Relative to the file; tools also write a path of their own disk, which is none here.
    root = next((folder for folder in (path.parent / root, root) if os.path.isdir(folder)), path.parent)
    problems: List[Problem] = []
    splits: Dict[str, List[ImageEntry]] = {}
    for split in SPLITS:
        entry = content.get(split, content.get('valid') if split == 'val' else None)
        if entry in (None, '', []):
            continue
        images = _list_images(path, root, split, entry, problems)
        if not images:
            raise FormatError(f'{path}: {split}: {entry!r} holds no image')
        splits[split] = [item for item in (_read_image(image, root, classes, problems) for image in images) if item]
    if not splits:
        raise FormatError(f'{path} must name folders of images under train, val or test')
    return DetectionSet(classes, splits, problems)


def find_data_yaml(source: Path) -> Path:
    """The ``data.yaml`` of a folder, or the file itself.

    Raises:
        FormatError: If there is none, or more than one.
    """
    if source.is_file():
        return source
    found = [source / name for name in ('data.yaml', 'data.yml') if (source / name).is_file()]
    found = found or sorted([*source.glob('*.yaml'), *source.glob('*.yml')])
    if len(found) != 1:
        names = ', '.join(path.name for path in found) or 'none'
        raise FormatError(f'{source} must hold one data.yaml, got {names}')
    return found[0]


def _read_yaml(path: Path) -> Dict[str, Any]:
    if path.stat().st_size > MAX_YAML_BYTES:
        raise FormatError(f'{path} has {path.stat().st_size} bytes, too many for a data.yaml')
    try:
        text = path.read_text()
        # What is named once and used often, again and again, grows without bound when it is written out.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise FormatError(f'{path} holds an alias (*name), which a data.yaml does not need')
        content = yaml.safe_load(text)
    except FormatError:
        raise
    except Exception as error:  # beside its own errors, yaml lets through those of dates, numbers and their kinds
        raise FormatError(f'{path} is not YAML: {error}') from error
    if not isinstance(content, dict):
        raise FormatError(f'{path} must hold settings such as train, val and names, got {type(content).__name__}')
    return content


def _read_names(path: Path, content: Dict[str, Any]) -> Tuple[str, ...]:
    names = content.get('names')
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise FormatError(f'{path}: names must be numbered from 0 without gaps, got {sorted(names, key=str)}')
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names or any(isinstance(name, (list, dict)) for name in names):
        raise FormatError(f'{path}: names must list the classes, got {names!r}')
    names = tuple(str(name) for name in names)
    if len(set(names)) != len(names):
        raise FormatError(f'{path}: names must differ, got {names}')
    if content.get('nc') not in (None, len(names)):
        raise FormatError(f'{path}: nc must be the number of names, {len(names)}, got {content["nc"]!r}')
    return names


def _list_images(path: Path, root: Path, split: str, entry: Any, problems: List[Problem]) -> List[Path]:
    images: List[Path] = []
    for item in entry if isinstance(entry, list) else [entry]:
        # Written by hand or by tools relative to the file, to `path`, or one folder too high ('../train/images').
        options = [root / str(item), path.parent / str(item), root / str(item).removeprefix('../')]
        place = next((option for option in options if os.path.exists(option)), None)
        if place is None:
            raise FormatError(f'{path}: {split}: there is no {options[0]}')
        if place.is_dir():
            images += [file for file in sorted(place.rglob('*')) if file.suffix.lower() in IMAGE_SUFFIXES]
            continue
        for number, line in enumerate(place.read_text(errors='replace').splitlines(), 1):
            if line.strip():
                names = (place.parent / line.strip(), root / line.strip())
                image = next((name for name in names if os.path.isfile(name)), None)
                if image is None:
                    problems.append(
                        Problem(f'{place}, line {number}', f'there is no image {line.strip()!r}: left out')
                    )
                else:
                    images.append(image)
    return list(dict.fromkeys(images))


def label_path(image: Path) -> Path:
    """Label file of an image: in ``labels`` for the last ``images`` of its path, else beside the image."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == 'images':
            return Path(*parts[:index], 'labels', *parts[index + 1 :]).with_suffix('.txt')
    return image.with_suffix('.txt')


def _read_image(image: Path, root: Path, classes: Tuple[str, ...], problems: List[Problem]) -> Any:
    try:
        width, height = read_image_size(image)
    except FormatError as error:
        problems.append(Problem(str(image), f'{error}: left out'))
        return None
    resolved, base = image.resolve(), root.resolve()
    name = resolved.relative_to(base) if resolved.is_relative_to(base) else Path(image.name)
    entry = ImageEntry(image, name.as_posix(), width, height)
    path = label_path(image)
    if not path.is_file():
        return entry
    for number, line in enumerate(path.read_text(errors='replace').splitlines(), 1):
        words = line.split()
        if words:
            _read_line(entry, words, f'{path}, line {number}', classes, problems)
    return entry


def _read_line(
    entry: ImageEntry, words: List[str], where: str, classes: Tuple[str, ...], problems: List[Problem]
) -> None:
    try:
        index, *values = (float(word) for word in words)
    except ValueError:
        problems.append(Problem(where, f'must hold numbers, got {" ".join(words)[:60]!r}: left out'))
        return
    if index != index or index not in range(len(classes)):
        problems.append(
            Problem(where, f'class must be a number from 0 to {len(classes) - 1}, got {words[0]!r}: left out')
        )
        return
    if len(values) == 4:
        x, y, w, h = values
        corners = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    elif len(values) >= 6 and len(values) % 2 == 0:
        corners = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
    else:
        problems.append(Problem(where, f'must hold a class and 4 numbers, or a polygon, got {len(words)}: left out'))
        return
    if max(abs(value) for value in corners) > 4:
        problems.append(Problem(where, f'must hold shares of the image, got {" ".join(words[1:5])}: left out'))
        return
    scale = (entry.width, entry.height) * 2
    add_box(entry, Box(*(a * b for a, b in zip(corners, scale)), classes[int(index)]), where, problems)
