"""Image files of strangers, opened with a limit of our own."""

from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from PIL import Image

MAX_PIXELS = 150_000_000
"""Largest image that is decoded: 450 MB as RGB. Below Pillow's limit (179 megapixels), so that one message is seen."""


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image, its header read and its pixels not yet.

    Pillow's own guard against decompression bombs is a global that other libraries turn off: sahi does on its first
    image.

    Raises:
        OSError, ValueError: If the file cannot be read as an image, or has more than ``MAX_PIXELS`` pixels.
    """
    try:
        file = Image.open(path)
    except Image.DecompressionBombError as error:
        raise ValueError(f'more than {MAX_PIXELS} pixels: {error}') from error
    with file:
        width, height = file.size
        if width * height > MAX_PIXELS:
            raise ValueError(f'more than {MAX_PIXELS} pixels: {width}x{height} could be a decompression bomb')
        yield file
