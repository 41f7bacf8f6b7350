#!/usr/bin/env python
"""Does attention look at objects? Share of the strongest samples of the last encoder layer that lie in a box.

    python benchmarks/accuracy_attention.py data/hit_uav_tiles/images data/hit_uav_tiles/test.json \
        work_dirs/accuracy/hit_uav_tiles/*/seed*

The paper says so of key-aware attention (Figure 5). For each level: of the 100 samples of all queries with the largest
weights, how many lie in the box of an object, in percent, mean over the images. The last column is what samples at
random places would give.
"""

import argparse
import json
from pathlib import Path
from typing import List

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
import torch
from accuracy_tokens import choose_images, load
from mmdet.utils import register_all_modules
from mmengine.logging import MMLogger
from torch import Tensor, nn

from lite_detr_mmdet.analysis import trace_attention
from lite_detr_mmdet.utils import silence_upstream_warnings

TOP_K = 100


def inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether each point (x, y) of (n, 2) lies in one of the boxes (x1, y1, x2, y2) of (m, 4): (n, )."""
    points = points[:, None]
    return ((points >= boxes[:, :2]) & (points <= boxes[:, 2:])).all(-1).any(-1)


@torch.no_grad()
def share_on_objects(model: nn.Module, image: Path, boxes: Tensor) -> List[float]:
    """Percent of the strongest samples of each level that lie in a box."""
    layer = trace_attention(model, str(image)).layer('encoder', -1)
    shares = []
    for level in range(layer.weights.shape[3]):
        weights = layer.weights[0, :, :, level].flatten()
        points = layer.location_pixels[0, :, :, level].reshape(-1, 2)
        shares.append(100 * inside(points[weights.topk(TOP_K).indices], boxes).float().mean().item())
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', type=Path, help='folder of images')
    parser.add_argument('annotations', type=Path, help="file in COCO's format")
    parser.add_argument('runs', nargs='+', type=Path, help='folders of runs')
    parser.add_argument('--limit', type=int, default=60, help='images (default: %(default)s)')
    args = parser.parse_args()
    silence_upstream_warnings()
    register_all_modules()
    MMLogger.get_instance('mmengine').setLevel('ERROR')
    content = json.loads(args.annotations.read_text())
    names = {entry['id']: entry['file_name'] for entry in content['images']}
    sizes = {entry['file_name']: (entry['width'], entry['height']) for entry in content['images']}
    boxes = {}
    for entry in content['annotations']:
        x, y, width, height = entry['bbox']
        boxes.setdefault(names[entry['image_id']], []).append([x, y, x + width, y + height])
    images = choose_images(args.images, args.annotations, args.limit)
    truth = [torch.tensor(boxes[image.name]) for image in images]
    chance = []
    for image, found in zip(images, truth):
        grid = torch.cartesian_prod(*(torch.arange(side) for side in sizes[image.name])).float()
        chance.append(100 * inside(grid, found).float().mean())
    print('| run | stride 8 | stride 16 | stride 32 | stride 64 | at random |')
    print('| --- ' * 6 + '|')
    for folder in args.runs:
        model = load(folder)
        shares = torch.tensor([share_on_objects(model, *pair) for pair in zip(images, truth)]).mean(0)
        cells = [*['-'] * (4 - len(shares)), *(f'{share:.0f}' for share in shares), f'{sum(chance) / len(chance):.0f}']
        print(f'| {"/".join(folder.parts[-2:])} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
    main()
