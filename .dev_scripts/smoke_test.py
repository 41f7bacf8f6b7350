#!/usr/bin/env python
"""Use an installed package as users do: names, a training step, detection, with the compiled operator.

Run it from a folder that does not hold the sources; ``--installed-in`` says where the package must come from.
"""

import argparse
from importlib import metadata
from pathlib import Path

import lite_detr_mmdet  # before torch and mmdet: see there

# isort: split
import numpy as np
import torch
from mmdet.testing import demo_mm_inputs
from packaging.requirements import Requirement

from lite_detr_mmdet.ops import extension

NAME = 'lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes'


def check_installation(folder: Path) -> None:
    """Fail if the package comes from elsewhere, what it requires is missing, or its operator is not compiled."""
    package = Path(lite_detr_mmdet.__file__).resolve().parent
    if folder.resolve() not in package.parents:
        raise SystemExit(f'the package is imported from {package}, not from {folder}')
    for text in metadata.requires('lite-detr-mmdet'):
        requirement = Requirement(text)
        if requirement.marker is None and metadata.version(requirement.name) not in requirement.specifier:
            raise SystemExit(f'{text} is required, {metadata.version(requirement.name)} is installed')
    if not extension.is_available():
        raise SystemExit('the compiled operator cannot be loaded')


def train_and_detect(folder: Path) -> int:
    """One training step, a checkpoint, detection with it; return the number of detections."""
    model = lite_detr_mmdet.get_model(NAME, device='cpu')
    model.train()
    data = model.data_preprocessor(demo_mm_inputs(2, image_shapes=[(3, 64, 64)] * 2, num_classes=3), training=True)
    for sample in data['data_samples']:
        boxes = sample.gt_instances.bboxes
        sample.gt_instances.bboxes = boxes.tensor if hasattr(boxes, 'tensor') else boxes
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=1e-4).step()
    torch.save(dict(meta=dict(cfg=model.cfg.pretty_text), state_dict=model.state_dict()), folder / 'smoke.pth')
    detector = lite_detr_mmdet.Detector(NAME, weights=folder / 'smoke.pth', device='cpu', show_progress=False)
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    return len(detector(image, pred_score_thr=0)['predictions'][0]['scores'])


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--installed-in', type=Path, required=True, help='environment that the package belongs to')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_installation(args.installed_in)
    num_models = len(lite_detr_mmdet.list_models())
    if num_models == 0:
        raise SystemExit('the package ships no models')
    num_detections = train_and_detect(Path.cwd())
    print(f'lite_detr_mmdet {lite_detr_mmdet.__version__}: {num_models} models, {num_detections} detections')


if __name__ == '__main__':
    main()
