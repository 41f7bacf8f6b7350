"""Resizing to the sizes of the authors' evaluation."""

from typing import Tuple

from mmdet.datasets.transforms import Resize
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class DETRResize(Resize):
    """Resize as the repositories of DETR and its descendants do when they evaluate.

    The short side becomes the smaller number of ``scale``, or less if the long side would exceed the larger one. The
    long side is rounded down; mmdet's ``Resize`` rounds to the nearest pixel (480x640 becomes 800x1066 here, 800x1067
    there). Pixels are interpolated by Pillow, which antialiases when it shrinks an image.

    Args:
        scale (tuple[int, int]): Maximum length of the long side and length of the short side, in any order. Defaults
            to (1333, 800).
        keep_ratio (bool): Must be True. Defaults to True.
        backend (str): 'pillow' or 'cv2'. Defaults to 'pillow'.
        kwargs: See mmdet's ``Resize``.

    Raises:
        ValueError: If ``keep_ratio`` is not True.
    """

    def __init__(
        self, scale: Tuple[int, int] = (1333, 800), keep_ratio: bool = True, backend: str = 'pillow', **kwargs
    ) -> None:
        if not keep_ratio:
            raise ValueError(f'keep_ratio must be True, got {keep_ratio}')
        # The size is computed here, so the parent resizes to exactly that.
        super().__init__(scale=scale, keep_ratio=False, backend=backend, **kwargs)

    def _resize_img(self, results: dict) -> None:
        height, width = results['img'].shape[:2]
        results['scale'] = detr_size((width, height), min(self.scale), max(self.scale))
        super()._resize_img(results)


def detr_size(size: Tuple[int, int], short_side: int, long_side: int) -> Tuple[int, int]:
    """Width and height that an image is resized to.

    Args:
        size (tuple[int, int]): Width and height of the image.
        short_side (int): Pixels of the short side.
        long_side (int): Maximum length of the long side in pixels.
    """
    short, long = sorted(size)
    if long * short_side > long_side * short:
        short_side = round(long_side * short / long)
    other = int(short_side * long / short)
    return (short_side, other) if size[0] < size[1] else (other, short_side)
