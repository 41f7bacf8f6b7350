"""Epochs that are parts of a pass over the data, so that training can stop and go on often."""

from typing import Iterator

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
import torch
from mmdet.registry import DATA_SAMPLERS
from mmengine.dataset import DefaultSampler


@DATA_SAMPLERS.register_module()
class PartSampler(DefaultSampler):
    """Cuts each pass over the data, in an order of its own, into ``parts`` epochs of equal length.

    Args:
        parts (int): Epochs that make up a pass. Up to ``parts - 1`` images, others each time, are left out of a pass.
        **kwargs: Of ``DefaultSampler``.
    """

    def __init__(self, parts: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.parts = parts
        self.num_samples = len(self.dataset) // parts
        if self.world_size != 1 or self.num_samples == 0:
            raise ValueError(
                f'PartSampler needs one process and at least {parts} images, got {self.world_size} processes and '
                f'{len(self.dataset)} images'
            )

    def __iter__(self) -> Iterator[int]:
        """Numbers of the images of the current epoch."""
        number, part = divmod(self.epoch, self.parts)
        generator = torch.Generator().manual_seed(self.seed + number)
        order = torch.randperm(len(self.dataset), generator=generator)
        return iter(order[part * self.num_samples :][: self.num_samples].tolist())
