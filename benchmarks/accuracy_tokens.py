#!/usr/bin/env python
"""Tell from the encoder's tokens whether a run of the accuracy study stalled.

    python benchmarks/accuracy_tokens.py tests/data/bccd/images work_dirs/accuracy/bccd/*/seed*

For each level: the squared length of the mean of all tokens of an image, each scaled to length 1. That is the mean
cosine of two tokens: 1 if all are alike, so that nothing tells objects from background, and near 0 if they differ. The
mean over the images; the newest checkpoint of each run.
"""

import argparse
from pathlib import Path
from typing import List

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import Tensor, nn

from lite_detr_mmdet.analysis.trace_attention import prepare_image
from lite_detr_mmdet.checkpoint import load_checkpoint_file
from lite_detr_mmdet.utils import silence_upstream_warnings


def load(folder: Path) -> nn.Module:
    """The model of a run, with the weights that the run's ``last_checkpoint`` names."""
    cfg = Config.fromfile(folder / 'config.py', import_custom_modules=False)
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model).eval()
    name = Path((folder / 'last_checkpoint').read_text().strip()).name
    model.load_state_dict(load_checkpoint_file(folder / name)['state_dict'])
    model.cfg = cfg
    return model


@torch.no_grad()
def likeness(model: nn.Module, images: List[Path]) -> Tensor:
    """Mean cosine of two tokens of a level, (num_levels, )."""
    kept = {}

    def keep(module: nn.Module, args: tuple, kwargs: dict, memory: Tensor) -> None:
        kept.update(memory=memory, sizes=kwargs['spatial_shapes'].prod(-1).tolist())

    model.encoder.register_forward_hook(keep, with_kwargs=True)
    rows = []
    for image in images:
        model(**model.data_preprocessor(prepare_image(model, image), False), mode='predict')
        levels = kept['memory'][0].split(kept['sizes'])
        rows.append(torch.stack([nn.functional.normalize(tokens, dim=-1).mean(0).square().sum() for tokens in levels]))
    return torch.stack(rows).mean(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', type=Path, help='folder of images')
    parser.add_argument('runs', nargs='+', type=Path, help='folders of runs')
    args = parser.parse_args()
    images = sorted(path for path in args.images.iterdir() if path.suffix in ('.jpg', '.png'))
    if not images:
        parser.error(f'{args.images} must hold images (.jpg, .png)')
    silence_upstream_warnings()
    register_all_modules()
    MMLogger.get_instance('mmengine').setLevel('ERROR')
    print('| run | ' + ' | '.join(f'stride {8 * 2**level}' for level in range(4)) + ' |')
    print('| --- ' * 5 + '|')
    for folder in args.runs:
        values = [f'{value:.2f}' for value in likeness(load(folder), images)]
        print(
            f'| {"/".join(folder.parts[-2:])} | ' + ' | '.join(['-'] * (4 - len(values)) + values) + ' |', flush=True
        )


if __name__ == '__main__':
    main()
