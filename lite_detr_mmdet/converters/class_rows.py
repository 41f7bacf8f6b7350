"""Which row of the authors' class branches belongs to which label.

The authors number classes by the category ids of the annotation file; their COCO models have 91 rows for 80 classes.
mmdet numbers the classes that there are.
"""

from typing import List, Optional, Sequence

import torch
from mmengine.model import bias_init_with_prob
from torch import Tensor

COCO_ROWS = 91
COCO_UNUSED_IDS = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_CATEGORY_IDS = tuple(index for index in range(COCO_ROWS) if index not in COCO_UNUSED_IDS)


def rows_of_labels(
    num_rows: int, num_classes: Optional[int] = None, category_ids: Optional[Sequence[int]] = None
) -> List[int]:
    """Row of each label.

    Args:
        num_rows (int): Rows of the authors' class branches.
        num_classes (int, optional): Number of labels. Defaults to None: 80 for the 91 rows of COCO, else all rows.
        category_ids (sequence[int], optional): Category id of each label, which is its row. Defaults to None: those
            of COCO for 80 of 91 rows; 0, 1, ... or 1, 2, ... if the rows are as many, or one more than the labels.

    Raises:
        ValueError: If the numbers do not fit together.
    """
    if category_ids is not None:
        if num_classes not in (None, len(category_ids)):
            raise ValueError(
                f'category_ids must be as many as the classes, got {len(category_ids)} and {num_classes=}'
            )
        wrong = [index for index in category_ids if not 0 <= index < num_rows]
        if wrong or len(set(category_ids)) != len(category_ids):
            raise ValueError(f'category_ids must be different rows below {num_rows}, got {list(category_ids)}')
        return list(category_ids)
    if num_classes is None:
        num_classes = len(COCO_CATEGORY_IDS) if num_rows == COCO_ROWS else num_rows
    if num_rows == COCO_ROWS and num_classes == len(COCO_CATEGORY_IDS):
        return list(COCO_CATEGORY_IDS)
    if num_rows == num_classes:
        return list(range(num_classes))
    if num_rows == num_classes + 1:
        return list(range(1, num_rows))
    raise ValueError(
        f'the weights have {num_rows} rows for {num_classes} classes: category_ids must say which row is which class'
    )


def select_rows(tensor: Tensor, rows: Sequence[int], foreground_first: bool = False) -> Tensor:
    """Rows of a class branch or a label embedding in the order of the labels.

    Args:
        tensor (Tensor): (num_rows, ...).
        rows (sequence[int]): Row of each label.
        foreground_first (bool): Whether row 0 stands for "foreground" and keeps its place: the encoder's branch of
            two-stage models is trained with label 0 for every object. Defaults to False.

    Returns:
        Tensor: (num_classes, ...).
    """
    rows = [0, *rows[1:]] if foreground_first else list(rows)
    return tensor[rows].clone()


def spread_rows(
    tensor: Tensor, rows: Sequence[int], num_rows: int, foreground_first: bool = False, is_bias: bool = False
) -> Tensor:
    """Inverse of :func:`select_rows`; rows without a label are 0, biases those of an untrained branch.

    Args:
        tensor (Tensor): (num_classes, ...).
        rows (sequence[int]): Row of each label.
        num_rows (int): Rows to make.
        foreground_first (bool): As in :func:`select_rows`. Defaults to False.
        is_bias (bool): Whether it is a branch's bias. Defaults to False.

    Returns:
        Tensor: (num_rows, ...).
    """
    spread = tensor.new_full((num_rows, *tensor.shape[1:]), bias_init_with_prob(0.01) if is_bias else 0.0)
    spread[torch.tensor(rows)] = tensor
    if foreground_first:
        spread[rows[0]] = bias_init_with_prob(0.01) if is_bias else 0.0
        spread[0] = tensor[0]
    return spread
