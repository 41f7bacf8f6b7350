#!/usr/bin/env python
"""Tell from the encoder's tokens whether a run of the accuracy study stalled.

    python benchmarks/accuracy_tokens.py tests/data/bccd/images work_dirs/accuracy/bccd/*/seed*
    python benchmarks/accuracy_tokens.py data/hit_uav_tiles/images work_dirs/accuracy/hit_uav_tiles/*/seed* \
        --annotations data/hit_uav_tiles/test.json --limit 20

Two numbers for each level. Cosine: the squared length of the mean of all tokens of an image, each scaled to length 1.
That is the mean cosine of two tokens: 1 if all are alike, so that nothing tells objects from background, and near 0 if
they differ. Best: how many of the 100 tokens of an image with the best class scores lie on the level; only such tokens
become queries. Means over the images; the newest checkpoint of each run.
"""

import argparse
import json
from pathlib import Path
from typing import List, Optional, Tuple

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import Tensor, nn
from torch.nn.functional import normalize

from lite_detr_mmdet.analysis import trace_attention
from lite_detr_mmdet.checkpoint import load_checkpoint_file
from lite_detr_mmdet.utils import silence_upstream_warnings

NUM_BEST = 100


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
def describe_tokens(model: nn.Module, images: List[Path]) -> Tuple[Tensor, Tensor]:
    """Mean cosine of two tokens, and number of tokens among the best: (num_levels, ) each."""
    kept = {}

    def keep(module: nn.Module, args: tuple, kwargs: dict, memory: Tensor) -> None:
        kept.update(memory=memory, sizes=kwargs['spatial_shapes'].prod(-1).tolist())

    model.encoder.register_forward_hook(keep, with_kwargs=True)
    cosines, best = [], []
    for image in images:
        scores = trace_attention(model, str(image)).selection.scores[0]
        levels = kept['memory'][0].split(kept['sizes'])
        cosines.append(torch.stack([normalize(tokens, dim=-1).mean(0).square().sum() for tokens in levels]))
        chosen = torch.zeros_like(scores).index_fill_(0, scores.topk(NUM_BEST).indices, 1)
        best.append(torch.stack([part.sum() for part in chosen.split(kept['sizes'])]))
    return torch.stack(cosines).mean(0), torch.stack(best).mean(0)


def choose_images(folder: Path, annotations: Optional[Path], limit: int) -> List[Path]:
    """Images of a folder, or those with objects that an annotation file lists, evenly spread."""
    if annotations is None:
        paths = sorted(path for path in folder.iterdir() if path.suffix in ('.jpg', '.png'))
    else:
        content = json.loads(annotations.read_text())
        with_objects = {entry['image_id'] for entry in content['annotations']}
        paths = sorted(folder / entry['file_name'] for entry in content['images'] if entry['id'] in with_objects)
    return paths[:: max(1, len(paths) // limit)][:limit]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', type=Path, help='folder of images')
    parser.add_argument('runs', nargs='+', type=Path, help='folders of runs')
    parser.add_argument('--annotations', type=Path, help="file in COCO's format; its images with objects are taken")
    parser.add_argument('--limit', type=int, default=20, help='images (default: %(default)s)')
    args = parser.parse_args()
    images = choose_images(args.images, args.annotations, args.limit)
    if not images:
        parser.error(f'{args.images} must hold images (.jpg, .png)')
    silence_upstream_warnings()
    register_all_modules()
    MMLogger.get_instance('mmengine').setLevel('ERROR')
    columns = [f'{what}, stride {8 * 2**level}' for what in ('cosine', 'best') for level in range(4)]
    print(f'| run | {" | ".join(columns)} |')
    print('| --- ' * 9 + '|')
    for folder in args.runs:
        cosines, best = describe_tokens(load(folder), images)
        missing = ['-'] * (4 - len(cosines))
        cells = [*missing, *(f'{x:.2f}' for x in cosines), *missing, *(f'{x:.0f}' for x in best)]
        print(f'| {"/".join(folder.parts[-2:])} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
    main()
