"""The image files: are they there, can they be decoded, are they as large as the list says, are two the same?"""

import hashlib
import os
from collections import defaultdict
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

from PIL import ImageOps

from ..image_files import open_image
from .config import Split
from .findings import Finding


def image_path(split: Split, image: dict) -> Path:
    """File of an entry of the list."""
    return split.image_root / str(image.get('file_name'))


def check_images(splits: List[Split]) -> Iterator[Finding]:
    """Look at every image of every split, and for copies within and between them."""
    seen: Dict[str, List[Tuple[Split, str]]] = defaultdict(list)
    for split in splits:
        for image in split.content.get('images', []):
            path = image_path(split, image)
            finding = check_image(split, image, path)
            if finding is not None:
                yield finding
            if os.path.isfile(path):  # unlike Path's, this is False for names that no file can have
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                seen[digest].append((split, str(image.get('file_name'))))
    for places in seen.values():
        names: Dict[str, List[str]] = defaultdict(list)
        for split, name in places:
            names[split.name].append(name)
        for split, found in names.items():
            if len(found) > 1:
                yield Finding('duplicate-image', split, f'{", ".join(found)} are copies of one image')
        if len(names) > 1:
            told = ', '.join(f'{found[0]} in {split}' for split, found in names.items())
            yield Finding('leakage', ' and '.join(names), f'the same image: {told}')


def check_image(split: Split, image: dict, path: Path) -> Optional[Finding]:
    """The first thing that is wrong with an image, None if nothing is."""
    if not isinstance(image.get('file_name'), str) or not os.path.isfile(path):
        return Finding('missing-image', f'{split.ann_file}, image {image.get("id")}', f'there is no {path}')
    try:
        with open_image(path) as file:
            file.load()  # the header of a truncated file is whole
            # Images are read as EXIF data says they are to be seen.
            width, height = ImageOps.exif_transpose(file).size if file.getexif().get(0x0112, 1) != 1 else file.size
    except Exception as error:  # decoders raise what they like at broken files
        return Finding('unreadable-image', str(path), f'{type(error).__name__}: {error}')
    if (image.get('width'), image.get('height')) != (width, height):
        return Finding(
            'image-size',
            f'{split.ann_file}, image {image.get("id")}',
            f'says {image.get("width")}x{image.get("height")}, {path} is read with {width}x{height} pixels',
        )
    return None
