"""Images for verification, calibration and measurements."""

from pathlib import Path
from typing import Callable, Iterator, Optional

import cv2
import numpy as np

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp')


def read_images(folder: Optional[Path] = None, seed: int = 0) -> Iterator[Callable[[int, int], np.ndarray]]:
    """Endless images, each as a function that returns it in a given size: (height, width, 3), BGR, uint8.

    Args:
        folder (Path, optional): Folder to read them from, starting over after the last one. Defaults to None:
            generated images, rectangles and discs on a smooth background with noise.
        seed (int): Seed of generated images. Defaults to 0.

    Raises:
        FileNotFoundError: If there is no such folder or no image in it.
    """
    if folder is None:
        rng = np.random.default_rng(seed)
        while True:
            state = int(rng.integers(2**31))
            yield lambda height, width, state=state: generate_image(height, width, state)
    paths = find_images(folder)
    while True:
        for path in paths:
            yield lambda height, width, path=path: cv2.resize(read_image(path), (width, height))


def find_images(folder: Path) -> list:
    """Image files in a folder, sorted by name.

    Raises:
        FileNotFoundError: If there is no such folder or no image in it.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f'must be a folder that exists, got {str(folder)!r}')
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise FileNotFoundError(f'{folder} holds no image ({", ".join(SUFFIXES)})')
    return paths


def read_image(path: Path) -> np.ndarray:
    """An image file, (height, width, 3), BGR, uint8.

    Raises:
        ValueError: If it cannot be read.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f'{path} cannot be read as an image')
    return image


def generate_image(height: int, width: int, seed: int) -> np.ndarray:
    """Rectangles and discs on a smooth background with noise, (height, width, 3), uint8."""
    rng = np.random.default_rng(seed)
    ground = rng.uniform(40, 215, (5, 7, 3)).astype(np.float32)
    image = cv2.resize(ground, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        size = int(rng.uniform(0.03, 0.2) * min(height, width)) + 2
        x, y = int(rng.integers(width)), int(rng.integers(height))
        color = tuple(float(value) for value in rng.uniform(0, 255, 3))
        if rng.random() < 0.5:
            cv2.rectangle(image, (x, y), (x + size, y + int(size * rng.uniform(0.5, 2))), color, -1)
        else:
            cv2.circle(image, (x, y), size, color, -1)
    image += rng.normal(0, 6, image.shape)
    return image.clip(0, 255).astype(np.uint8)
