"""How the tokens of an image divide among the levels (Table 2 of the paper)."""

from typing import List, NamedTuple, Sequence


class LevelTokens(NamedTuple):
    """Tokens of one level.

    Attributes:
        stride (int): Pixels of the image for each token, in height and in width.
        height (int): Rows of the map.
        width (int): Columns of the map.
        share (float): Share of all tokens, from 0 to 1.
    """

    stride: int
    height: int
    width: int
    share: float


def count_tokens(shape: Sequence[int], strides: Sequence[int] = (8, 16, 32, 64)) -> List[LevelTokens]:
    """Tokens of each level, those of the highest resolution first.

    Args:
        shape (sequence[int]): Height and width of the image.
        strides (sequence[int]): Strides of the levels. Defaults to (8, 16, 32, 64).

    Raises:
        ValueError: If a size or a stride is not positive.
    """
    if len(shape) != 2 or min(shape) < 1 or not strides or min(strides) < 1:
        raise ValueError(f'shape and strides must be positive, got {tuple(shape)} and {tuple(strides)}')
    sizes = [tuple(-(-size // stride) for size in shape) for stride in strides]
    total = sum(height * width for height, width in sizes)
    return [
        LevelTokens(stride, height, width, height * width / total) for stride, (height, width) in zip(strides, sizes)
    ]
