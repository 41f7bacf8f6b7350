#!/usr/bin/env python
"""Check the data of a config before training on it.

    python tools/misc/check_dataset.py CONFIG
    python tools/misc/check_dataset.py CONFIG --fix data/mine/fixed

Compares class names with annotation files and heads, and looks for files that are missing or broken, ids that stand
for two things, boxes that are not finite, empty, outside or doubled, copies of images within and between splits,
objects that vanish in resizing, and images with more objects than the detector has queries. Each finding names file,
id and remedy. The exit status is 1 if there is an error.
"""

import argparse
import sys
from pathlib import Path

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
from mmengine.config import DictAction

from lite_detr_mmdet.datasets.inspection import inspect_config, read_splits
from lite_detr_mmdet.datasets.inspection.fixes import fix_splits
from lite_detr_mmdet.datasets.inspection.sheet import draw_sheet
from lite_detr_mmdet.utils import existing_config, silence_upstream_warnings
from lite_detr_mmdet.utils.overrides import apply_overrides
from lite_detr_mmdet.zoo import get_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=existing_config, help='config, by name or file')
    parser.add_argument('--fix', type=Path, metavar='OUT', help='write repaired annotation files into this folder')
    parser.add_argument('--sheet', type=Path, metavar='PNG', help='draw samples with their boxes')
    parser.add_argument('--shown', type=int, default=5, help='places to list of each finding (default: %(default)s)')
    parser.add_argument('--annotations-only', action='store_true', help='do not open the images')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='settings that override the config')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    silence_upstream_warnings()
    cfg = get_config(args.config)
    if args.cfg_options:
        try:
            apply_overrides(cfg, args.cfg_options)
        except ValueError as error:
            sys.exit(f'check_dataset.py: --cfg-options: {error}')
    report = inspect_config(cfg, read_images=not args.annotations_only)
    print(report.format(args.shown))
    splits = [split for split in read_splits(cfg).splits if split.content]
    if args.sheet:
        print(f'samples: {draw_sheet(splits, args.sheet)}')
    if args.fix:
        try:
            fixed = fix_splits(splits, args.fix)
        except FileExistsError as error:
            sys.exit(f'check_dataset.py: {error}')
        for path, told in fixed:
            print(f'wrote {path}: {told}')
    sys.exit(1 if report.has_errors else 0)


if __name__ == '__main__':
    main()
