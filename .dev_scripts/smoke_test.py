#!/usr/bin/env python
"""Use an installed package as users do: names, a training step, detection, with the compiled operator.

Run it from a folder that does not hold the sources; ``--installed-in`` says where the package must come from. With
``--compare-boxes FILE`` a checkpoint beside FILE is used if there is one, and its boxes must be those of FILE.
"""

import argparse
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Dict

import lite_detr_mmdet  # before torch and mmdet: see there

# isort: split
import numpy as np
import torch
from mmdet.testing import demo_mm_inputs
from packaging.requirements import Requirement
from torch import nn

from lite_detr_mmdet.compat.versions import installed_distributions
from lite_detr_mmdet.ops import extension

NAME = 'lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes'
CHECKPOINT = 'smoke.pth'
TOLERANCES = dict(bboxes=0.01, scores=1e-4)  # pixels, and shares


def describe_versions() -> str:
    """Versions of Python, torch, mmcv, mmengine and mmdet as cells of a table."""
    cells = [platform.python_version(), torch.__version__]
    for module in ('mmcv', 'mmengine', 'mmdet'):
        found = installed_distributions(module)
        cells.append(' and '.join(f'{name} {version}' for name, version in found.items()))
    return ' | '.join(cells)


def check_installation(folder: Path) -> None:
    """Fail if the package comes from elsewhere, what it requires is missing, or its operator is not compiled."""
    package = Path(lite_detr_mmdet.__file__).resolve().parent
    if folder.resolve() not in package.parents:
        raise SystemExit(f'the package is imported from {package}, not from {folder}')
    for text in metadata.requires('lite-detr-mmdet'):
        requirement = Requirement(text)
        if requirement.name in ('mmdet', 'mmengine'):
            continue  # OneDL's packages do as well; importing this one has checked them
        if requirement.marker is None and metadata.version(requirement.name) not in requirement.specifier:
            raise SystemExit(f'{text} is required, {metadata.version(requirement.name)} is installed')
    if not extension.is_available():
        raise SystemExit('the compiled operator cannot be loaded')


def train(checkpoint: Path) -> None:
    """One training step from a fixed random state; save what it ends with."""
    torch.manual_seed(0)
    model = lite_detr_mmdet.get_model(NAME, device='cpu')
    for branches in (model.bbox_head.cls_branches, model.bbox_head.reg_branches):
        for branch in branches:  # they start at zero: all detections would be alike
            last = branch[-1] if isinstance(branch, nn.Sequential) else branch
            nn.init.normal_(last.weight, std=0.1)
    model.train()
    data = model.data_preprocessor(demo_mm_inputs(2, image_shapes=[(3, 64, 64)] * 2, num_classes=3), training=True)
    for sample in data['data_samples']:
        boxes = sample.gt_instances.bboxes
        sample.gt_instances.bboxes = boxes.tensor if hasattr(boxes, 'tensor') else boxes
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=1e-6).step()
    torch.save(dict(meta=dict(cfg=model.cfg.pretty_text), state_dict=model.state_dict()), checkpoint)


def detect(checkpoint: Path) -> Dict[str, np.ndarray]:
    """Boxes, scores and labels of a fixed image."""
    detector = lite_detr_mmdet.Detector(NAME, weights=checkpoint, device='cpu', show_progress=False)
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    detections = detector(image, pred_score_thr=0)['predictions'][0]
    return {name: np.array(detections[name]) for name in ('bboxes', 'scores', 'labels')}


def compare_detections(actual: Dict[str, np.ndarray], expected: Dict[str, np.ndarray]) -> None:
    """Fail unless each detection has a twin; equal scores may come in another order."""
    if len(actual['scores']) != len(expected['scores']):
        raise SystemExit(f'{len(actual["scores"])} detections instead of {len(expected["scores"])}')
    errors = np.maximum(
        np.abs(actual['bboxes'][:, None] - expected['bboxes'][None]).max(-1) / TOLERANCES['bboxes'],
        np.abs(actual['scores'][:, None] - expected['scores'][None]) / TOLERANCES['scores'],
    )
    errors[actual['labels'][:, None] != expected['labels'][None]] = np.inf
    worst = max(errors.min(0).max(), errors.min(1).max())
    print(f'the worst of {len(actual["scores"])} detections is off by {worst:.3g} of {TOLERANCES}')
    if worst > 1:
        raise SystemExit('boxes differ')


def check_detection(reference: Path) -> None:
    """Train a step, then detect; compare the detections with those of ``reference``, if it exists, else write it."""
    train(Path('trained.pth'))
    checkpoint = reference.parent / CHECKPOINT
    if not reference.exists():
        Path('trained.pth').replace(checkpoint)
        np.savez(reference, **detect(checkpoint))
        print('reference boxes')
        return
    with np.load(reference) as expected:
        compare_detections(detect(checkpoint), dict(expected))
    print('equal boxes')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--installed-in', type=Path, help='environment that the package belongs to')
    parser.add_argument('--compare-boxes', type=Path, metavar='FILE', help='.npz of another run; written if missing')
    parser.add_argument('--versions', action='store_true', help='print versions, and do no more')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.versions:
        print(describe_versions())
        return
    check_installation(args.installed_in or Path(sys.prefix))
    num_models = len(lite_detr_mmdet.list_models())
    if num_models == 0:
        raise SystemExit('the package ships no models')
    if args.compare_boxes:
        check_detection(args.compare_boxes)
        return
    train(Path(CHECKPOINT))
    num_detections = len(detect(Path(CHECKPOINT))['scores'])
    print(f'lite_detr_mmdet {lite_detr_mmdet.__version__}: {num_models} models, {num_detections} detections')


if __name__ == '__main__':
    main()
