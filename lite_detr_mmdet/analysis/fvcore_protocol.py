"""Multiply-adds as the authors' released code counts them.

Their ``compute_gflops`` traces the model on the first 100 images of val2017, one by one, lets fvcore count operators
and takes the mean; deformable attention runs in its plain PyTorch form meanwhile. fvcore knows convolutions, linear
layers and matrix products, and also norms (2 to 5 for each element) and ``grid_sampler`` (4 for each sampled channel);
it knows no elementwise products, so that the weighted sum of the samples is not counted. A compiled attention core
would not be counted at all. mmengine holds the same counter, which is used here.
"""

from collections import Counter
from typing import Dict, Optional, Sequence, Tuple

import torch
from mmdet.registry import MODELS
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from .compute import run_model


class _OnTensor(nn.Module):
    """A detector as a function of an image, which is what can be traced."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tuple[Tensor, ...]:
        """Raw outputs of the head for an image, (1, 3, H, W)."""
        return tuple(output for output in run_model(self.model, image) if isinstance(output, Tensor))


def count_by_operator(model: nn.Module, shape: Sequence[int]) -> Dict[str, int]:
    """Multiply-adds of each operator, by fvcore's rules.

    Args:
        model (nn.Module): A detector on the CPU. It is put into evaluation mode, and its attention into plain PyTorch.
        shape (sequence[int]): Height and width of the image, on which the model really runs.
    """
    model.eval()
    for module in model.modules():
        if hasattr(module, 'backend'):
            module.backend = 'reference'
    with torch.no_grad():
        analyzer = FlopAnalyzer(_OnTensor(model), torch.zeros(1, 3, *shape))
        analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings('none')
        return {name: int(count) for name, count in analyzer.by_operator().items() if count}


def count_like_the_authors(
    path: str, shapes: Sequence[Sequence[int]], options: Optional[dict] = None
) -> Dict[str, float]:
    """Mean over images of the multiply-adds of a config's model, in all and of each operator, in 10^9.

    Args:
        path (str): Path of the config.
        shapes (sequence[sequence[int]]): Height and width of each image; equal ones are counted once.
        options (dict, optional): Settings that override those of the config. Defaults to None.

    Returns:
        dict[str, float]: ``total`` and the operators, the largest first.

    Raises:
        ValueError: If there is no shape.
    """
    if not shapes:
        raise ValueError('shapes must hold at least one height and width, got none')
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(options or {})
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    sums: Counter = Counter()
    for shape, times in Counter(tuple(shape) for shape in shapes).items():
        for name, count in count_by_operator(model, shape).items():
            sums[name] += count * times
    means = {name: count / len(shapes) / 1e9 for name, count in sums.most_common()}
    return {'total': sum(means.values()), **means}
