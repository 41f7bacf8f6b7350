"""Read Pascal VOC: an XML file for each image, in VOC's folders or beside the images."""

import xml.etree.ElementTree as ElementTree
import xml.parsers.expat as expat
from pathlib import Path
from typing import Dict, List, Optional

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
MAX_XML_BYTES = 16 * 2**20
CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def read_voc(root: Path, zero_based: bool = False) -> DetectionSet:
    """Read a folder in Pascal VOC's format.

    Files are looked for in ``Annotations``, ``JPEGImages`` (or ``images``) and ``ImageSets/Main``; without these
    folders, everywhere below ``root``, an XML file beside its image. Without lists of splits there is one, 'all'. The
    classes are those that occur, in alphabetical order. An image without an XML file is left out and told; one whose
    XML file names no object stays, as background.

    Args:
        root (Path): The folder.
        zero_based (bool): Whether the first pixel is 0. The format counts pixels from 1, and ``xmax`` is the last
            pixel that belongs to the object. Defaults to False.

    Raises:
        FormatError: If there is no annotation, or a list of images cannot be read.
    """
    if not root.is_dir():
        raise FormatError(f'{root} is not a folder')
    annotations = _find_annotations(root)
    if not annotations:
        raise FormatError(f'{root} holds no XML file of Pascal VOC, neither in Annotations nor elsewhere')
    images = _find_images(root)
    problems: List[Problem] = []
    entries: Dict[str, ImageEntry] = {}
    for stem, path in annotations.items():
        entry = _read_annotation(path, stem, images, 0 if zero_based else 1, problems)
        if entry is not None:
            entries[stem] = entry
    for stem in sorted(set(images) - set(annotations)):
        problems.append(Problem(str(images[stem]), 'has no XML file: left out'))
    classes = tuple(sorted({box.label for entry in entries.values() for box in entry.boxes}))
    if not classes:
        raise FormatError(f'{root} holds no usable object: {_first(problems)}')
    return DetectionSet(classes, _read_splits(root, entries, problems), problems)


def _find_annotations(root: Path) -> Dict[str, Path]:
    folder = root / 'Annotations'
    base = folder if folder.is_dir() else root
    return {path.relative_to(base).with_suffix('').as_posix(): path for path in sorted(base.rglob('*.xml'))}


def _find_images(root: Path) -> Dict[str, Path]:
    base = next((root / name for name in ('JPEGImages', 'images') if (root / name).is_dir()), root)
    files = (path for path in sorted(base.rglob('*')) if path.suffix.lower() in IMAGE_SUFFIXES)
    return {path.relative_to(base).with_suffix('').as_posix(): path for path in files}


def _read_annotation(
    path: Path, stem: str, images: Dict[str, Path], first: int, problems: List[Problem]
) -> Optional[ImageEntry]:
    try:
        tree = _parse_xml(path)
    except FormatError as error:
        problems.append(Problem(str(path), f'{error}: image left out'))
        return None
    # The XML's own `filename` is often that of the annotator's disk: the stem decides, then the name.
    image = images.get(stem)
    if image is None:
        name = Path((tree.findtext('filename') or '').replace('\\', '/')).stem
        image = images.get(name) if name else None
    if image is None:
        problems.append(Problem(str(path), f'has no image, neither {stem} nor the one that it names: left out'))
        return None
    try:
        width, height = read_image_size(image)
    except FormatError as error:
        problems.append(Problem(str(image), f'{error}: left out'))
        return None
    entry = ImageEntry(image, f'{stem}{image.suffix}', width, height)
    stated = tuple(tree.findtext(f'size/{name}') for name in ('width', 'height'))
    if all(stated) and stated != (str(width), str(height)):
        problems.append(Problem(str(path), f'says {stated[0]}x{stated[1]} pixels, the image has {width}x{height}'))
    for number, item in enumerate(tree.iter('object'), 1):
        where = f'{path}, object {number}'
        label = (item.findtext('name') or '').strip()
        texts = [item.findtext(f'bndbox/{name}') for name in CORNERS]
        try:
            x1, y1, x2, y2 = (float(text) for text in texts)
        except (TypeError, ValueError):
            problems.append(Problem(where, f'bndbox must hold four numbers, got {texts}: left out'))
            continue
        if not label:
            problems.append(Problem(where, 'has no name: left out'))
            continue
        crowd = (item.findtext('difficult') or '0').strip() == '1'
        # The last pixel belongs to the object, unless the box is empty already.
        end = 1 if x2 >= x1 and y2 >= y1 and (x2 > x1 or y2 > y1) else 0
        box = Box(x1 - first, y1 - first, x2 - first + end, y2 - first + end, label, crowd)
        add_box(entry, box, where, problems)
    return entry


def _parse_xml(path: Path) -> ElementTree.Element:
    size = path.stat().st_size
    if size > MAX_XML_BYTES:
        raise FormatError(f'has {size} bytes, too many for an annotation')
    content = path.read_bytes()
    scanner = expat.ParserCreate()
    scanner.StartDoctypeDeclHandler = _refuse_doctype
    try:
        scanner.Parse(content, True)
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, expat.ExpatError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f'is not XML: {error}') from error


def _refuse_doctype(*_: object) -> None:
    raise FormatError('declares entities, which annotations do not need')  # they can grow without bound


def _read_splits(root: Path, entries: Dict[str, ImageEntry], problems: List[Problem]) -> Dict[str, List[ImageEntry]]:
    splits = {}
    for split in SPLITS:
        path = root / 'ImageSets' / 'Main' / f'{split}.txt'
        if not path.is_file():
            continue
        splits[split] = []
        for number, line in enumerate(path.read_text(errors='replace').splitlines(), 1):
            words = line.split()
            if not words:
                continue
            if words[0] in entries:
                if entries[words[0]] not in splits[split]:
                    splits[split].append(entries[words[0]])
            else:
                problems.append(Problem(f'{path}, line {number}', f'{words[0]!r} has no annotation: left out'))
        if not splits[split]:
            raise FormatError(f'{path} lists no image that has an annotation')
    return splits or {'all': list(entries.values())}


def _first(problems: List[Problem]) -> str:
    return f'{problems[0].where}: {problems[0].what}' if problems else 'the XML files list no objects'
