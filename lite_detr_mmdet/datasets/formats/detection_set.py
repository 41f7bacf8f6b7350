"""A detection set in memory, whatever format it was read from."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

from ...text import printable
from ..image_files import open_image

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


class FormatError(ValueError):
    """A folder or file cannot be read as what it should be; the message names it and says what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))  # it may quote the file


class Box(NamedTuple):
    """An object: corners in pixels, (0, 0) being the outer corner of the first pixel, and the name of its class."""

    x1: float
    y1: float
    x2: float
    y2: float
    label: str
    crowd: bool = False


class Problem(NamedTuple):
    """Something that was left out or changed while reading: where, and what."""

    where: str
    what: str


@dataclass
class ImageEntry:
    """An image file with its objects.

    Attributes:
        path (Path): The file.
        name (str): Path below the folder of the images, with forward slashes.
        width (int): Width in pixels, as stored, before a rotation that EXIF data may ask for.
        height (int): Height in pixels.
        boxes (list[Box]): The objects.
    """

    path: Path
    name: str
    width: int
    height: int
    boxes: List[Box] = field(default_factory=list)


@dataclass
class DetectionSet:
    """Classes in their order, images by split, and what was wrong with the source.

    Attributes:
        classes (tuple[str]): Names of the classes.
        splits (dict[str, list[ImageEntry]]): Images by name of the split, e.g. 'train'.
        problems (list[Problem]): What was left out or changed.
    """

    classes: Tuple[str, ...]
    splits: Dict[str, List[ImageEntry]]
    problems: List[Problem] = field(default_factory=list)

    def count_objects(self, split: str) -> Counter:
        """Objects of each class in a split."""
        return Counter(box.label for image in self.splits[split] for box in image.boxes)


def read_image_size(path: Path) -> Tuple[int, int]:
    """Width and height of an image from its header.

    Raises:
        FormatError: If the file cannot be read as an image.
    """
    try:
        with open_image(path) as image:
            return image.size
    except (OSError, ValueError) as error:  # Pillow's UnidentifiedImageError is an OSError
        raise FormatError(f'{path} cannot be read as an image: {error}') from error


def clean_box(box: Box, width: int, height: int) -> Tuple[Optional[Box], str]:
    """Clip a box to its image.

    Returns:
        tuple[Box | None, str]: The box, None if nothing is left of it, and what was wrong with it ('' for nothing).
    """
    x1, y1, x2, y2 = box[:4]
    if not all(abs(value) < float('inf') for value in (x1, y1, x2, y2)):  # false for NaN, too
        return None, f'box {_show(box)} is not finite: left out'
    if x2 <= x1 or y2 <= y1:
        return None, f'box {_show(box)} has no area: left out'
    clipped = box._replace(x1=max(x1, 0.0), y1=max(y1, 0.0), x2=min(x2, float(width)), y2=min(y2, float(height)))
    if clipped.x2 <= clipped.x1 or clipped.y2 <= clipped.y1:
        return None, f'box {_show(box)} lies outside the image of {width}x{height} pixels: left out'
    # Half a pixel is what rounding makes, and no reason to tell.
    moved = max(abs(a - b) for a, b in zip(box[:4], clipped[:4]))
    return clipped, '' if moved <= 0.5 else f'box {_show(box)} leaves the image of {width}x{height} pixels: clipped'


def add_box(entry: ImageEntry, box: Box, where: str, problems: List[Problem]) -> None:
    """Add a box to an image, clipped; one that is not usable or there already becomes a problem."""
    cleaned, what = clean_box(box, entry.width, entry.height)
    if what:
        problems.append(Problem(where, what))
    if cleaned is None:
        return
    if cleaned in entry.boxes:
        problems.append(Problem(where, f'box {_show(box)} of {box.label!r} is listed twice: one left out'))
        return
    entry.boxes.append(cleaned)


def _show(box: Box) -> str:
    return '({})'.format(', '.join(f'{value:g}' for value in box[:4]))
