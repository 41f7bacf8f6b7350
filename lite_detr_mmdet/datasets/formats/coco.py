"""Write a detection set as a folder in COCO format."""

import json
import os
import shutil
from pathlib import Path
from typing import Any, Dict, List

from ...output_files import prepare_output, write_text
from .detection_set import DetectionSet, FormatError, ImageEntry


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that the file appears whole or not at all."""
    write_text(json.dumps(content), prepare_output(path))


def read_coco(path: Path) -> Dict[str, Any]:
    """Read annotations in COCO's format; what their parts are called and numbered with is checked, values are not.

    Raises:
        OSError: If the file cannot be opened.
        FormatError: If it is not JSON with lists of images, annotations and categories, or an id is no number or text.
    """
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise FormatError(f'is not JSON: {error}') from error
    for key in ('images', 'annotations', 'categories'):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise FormatError(f'must hold a list of {key} in COCO format')
        for entry in entries:
            for name in ('id', 'image_id', 'category_id', 'file_name', 'name'):
                if isinstance(entry.get(name), (list, dict)):
                    raise FormatError(f'must hold a number or a text as {name} in {key}, got {str(entry[name])[:60]}')
    return content


def to_coco(images: List[ImageEntry], classes: tuple) -> Dict[str, list]:
    """COCO's dictionary of some images; category ids are the positions of ``classes``."""
    ids = {name: index for index, name in enumerate(classes)}
    annotations = []
    for number, image in enumerate(images):
        for box in image.boxes:
            width, height = box.x2 - box.x1, box.y2 - box.y1
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=ids[box.label],
                    bbox=[round(value, 3) for value in (box.x1, box.y1, width, height)],
                    area=round(width * height, 3),
                    iscrowd=int(box.crowd),
                )
            )
    return dict(
        images=[
            dict(id=number, file_name=image.name, width=image.width, height=image.height)
            for number, image in enumerate(images)
        ],
        annotations=annotations,
        categories=[dict(id=index, name=name) for name, index in ids.items()],
    )


def place_image(source: Path, target: Path) -> None:
    """Bring an image to its place: a hard link, or a copy where the file system knows none.

    Raises:
        FormatError: If another file already exists, or a link.
    """
    if target.is_symlink():
        raise FormatError(f'{target} is a link, and what it points at is left alone: name an empty folder')
    if target.exists():
        if target.samefile(source) or target.read_bytes() == source.read_bytes():
            return
        raise FormatError(f'{target} already exists and is not a copy of {source}: name an empty folder')
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copy2(source, target)


def write_coco_folder(data: DetectionSet, out: Path) -> List[Path]:
    """Write ``annotations/instances_SPLIT.json`` for each split, and the images below ``images/``.

    Args:
        data (DetectionSet): What to write.
        out (Path): The folder. Images that already exist stay if they are the same.

    Returns:
        list[Path]: The annotation files.

    Raises:
        FormatError: If a file of another content is in the way of an image, or a link leads out of the folder.
    """
    files = []
    for split, images in data.splits.items():
        for image in images:
            place_image(image.path, _inside(out, out / 'images' / image.name))
        files.append(_inside(out, out / 'annotations' / f'instances_{split}.json'))
        write_json(files[-1], to_coco(images, data.classes))
    return files


def _inside(out: Path, path: Path) -> Path:
    """A path below a folder, checked for links: the folder may lie in one that a stranger has packed."""
    if not path.parent.resolve().is_relative_to(out.resolve()):
        raise FormatError(f'{path} is reached by a link that leads out of {out}: name an empty folder')
    return path
