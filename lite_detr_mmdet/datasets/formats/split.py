"""Divide images into a training and a validation split."""

import hashlib
from typing import List, Tuple

from .detection_set import ImageEntry


def split_by_content(images: List[ImageEntry], val_share: float = 0.2) -> Tuple[List[ImageEntry], List[ImageEntry]]:
    """Divide images by a digest of their bytes.

    The result does not depend on names or order, does not change when images are added, and never puts two copies of
    an image on different sides.

    Args:
        images (list[ImageEntry]): All images.
        val_share (float): Share of the validation images, above 0 and below 1. Defaults to 0.2.

    Returns:
        tuple[list[ImageEntry], list[ImageEntry]]: Training and validation images; neither is empty if there are two
        different images.
    """
    if not 0 < val_share < 1:
        raise ValueError(f'val_share must be above 0 and below 1, got {val_share}')
    keys = {image.name: hashlib.sha256(image.path.read_bytes()).hexdigest() for image in images}
    bound = val_share * 16**8
    chosen = {key for key in keys.values() if int(key[:8], 16) < bound}
    distinct = sorted(set(keys.values()))
    if len(distinct) > 1:  # small sets: chance must not leave a side empty
        chosen = chosen or {distinct[0]}
        if len(chosen) == len(distinct):
            chosen.discard(distinct[-1])
    train = [image for image in images if keys[image.name] not in chosen]
    return train, [image for image in images if keys[image.name] in chosen]
