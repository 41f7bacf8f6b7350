#!/usr/bin/env python
"""Write a config for your own data.

    python tools/misc/new_config.py data/bolts --base lite-dino-4scale_h3l1-2p1x3_r50 --out configs/bolts.py

DATA_ROOT is a folder in COCO format, or one of Pascal VOC or YOLO, which is converted into DATA_ROOT/coco first.
"""

import argparse
import sys
from pathlib import Path
from typing import List, Optional

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
from mmengine.config import Config

from lite_detr_mmdet.datasets.formats import FormatError
from lite_detr_mmdet.datasets.formats.folder import CocoFolder, open_folder
from lite_detr_mmdet.datasets.inspection.config import read_splits
from lite_detr_mmdet.output_files import output_file, prepare_output, write_text
from lite_detr_mmdet.text import printable
from lite_detr_mmdet.utils import existing_checkpoint, existing_config, silence_upstream_warnings
from lite_detr_mmdet.zoo import config_folder, find_model, get_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data_root', type=Path, help='folder of the data')
    parser.add_argument('--base', required=True, type=existing_config, help='config to inherit, by name or file')
    parser.add_argument('--out', required=True, type=output_file, help='config file to write')
    parser.add_argument('--val-share', type=float, default=0.2, help='validation images where none are set aside')
    parser.add_argument(
        '--weights', type=existing_checkpoint, help='checkpoint to start from (default: the released one of the base)'
    )
    parser.add_argument('--force', action='store_true', help='overwrite OUT')
    args = parser.parse_args()
    if args.out.suffix != '.py':
        parser.error(f'--out must be a .py file, got {args.out}')
    if args.out.exists() and not args.force:
        parser.error(f'{args.out} already exists; --force overwrites it')
    return args


def literal(value: object) -> str:
    """Python text of strings that come with the data.

    mmengine substitutes double braces in the text of a config before Python reads it: a class name with braces and
    quotes could end its own literal and run what follows.
    """
    return repr(value).replace('{{', '{\\x7b')


def base_reference(base: Path) -> str:
    """How a config elsewhere names its base: by package for a shipped one."""
    folder = config_folder().resolve()
    path = base.resolve()
    return f'lite_detr_mmdet::{path.relative_to(folder).as_posix()}' if path.is_relative_to(folder) else str(path)


def format_model(cfg: Config, folder: CocoFolder) -> str:
    """Settings of the model: the number of classes, and more queries where an image needs them.

    Raises:
        FormatError: If the base has no single place for the number of classes.
    """
    inspected = read_splits(cfg)
    if len(inspected.num_classes) != 1:
        places = ', '.join(inspected.num_classes) or 'none'
        raise FormatError(f'--base must state num_classes in one place, got {places}: write its config by hand')
    (place,) = inspected.num_classes
    text = f'num_classes={len(folder.classes)}'
    for part in reversed(place.split('.')[1:]):
        text = f'{part}=dict({text})'
    if inspected.num_queries is not None and folder.most_objects > inspected.num_queries:
        text += f', num_queries={-(-folder.most_objects // 100) * 100}'
    return f'model = dict({text})'


def format_config(base: Path, folder: CocoFolder, weights: Optional[str] = None) -> str:
    """The config as text."""
    cfg = get_config(base)
    delete = '_delete_=True, ' if (cfg.train_dataloader.dataset.get('metainfo') or {}) else ''
    lines: List[str] = [
        f'"""{base.stem} on data of my own."""',
        '',
        f'_base_ = {base_reference(base)!r}',
        '',
        f'data_root = {literal(folder.root.as_posix() + "/")}',
        f'data = dict(data_root=data_root, metainfo=dict({delete}classes={literal(folder.classes)}))',
        format_model(cfg, folder),
    ]
    splits = {**folder.splits}
    splits.setdefault('test', splits['val'])
    for name, split in splits.items():
        images = f'ann_file={literal(split.ann_file)}, data_prefix=dict(img={literal(split.image_prefix)})'
        lines.append(f'{name}_dataloader = dict(dataset=dict({images}, **data))')
    for name in ('val', 'test'):
        lines.append(f'{name}_evaluator = dict(ann_file=data_root + {literal(splits[name].ann_file)})')
    model = find_model(base)
    if weights is None and model is not None:
        weights = model.weights
    elif weights is not None and '://' not in weights:
        weights = str(Path(weights).resolve())
    if weights:
        lines.append(f'load_from = {literal(weights)}  # the class layers, which do not fit, start anew')
    return '\n'.join(lines) + '\n'


def main() -> None:
    args = parse_args()
    silence_upstream_warnings()
    try:
        folder = open_folder(args.data_root, args.val_share)
        text = format_config(Path(args.base), folder, args.weights)
    except FormatError as error:
        sys.exit(f'new_config.py: {error}')
    write_text(text, prepare_output(args.out))
    print(*map(printable, folder.notes), sep='\n')
    print(printable(f'wrote {args.out}: {len(folder.classes)} classes, {", ".join(folder.classes)}\n'))
    print('next:')
    print(f'  python -m lite_detr_mmdet check {args.out}')
    print(f'  python -m lite_detr_mmdet train {args.out} --auto-scale-lr')


if __name__ == '__main__':
    main()
