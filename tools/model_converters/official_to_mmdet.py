#!/usr/bin/env python
"""Convert a checkpoint of Lite DETR's, DINO's, H-DETR's or Deformable DETR's authors to mmdet.

    python tools/model_converters/official_to_mmdet.py SRC DST

The model is inferred from the weights; the config that fits is printed and embedded in DST. What became of each weight
is written beside it, to DST.txt. Files that could run code while they are loaded are refused.
"""

import argparse

from lite_detr_mmdet.converters.files import convert_official_file
from lite_detr_mmdet.output_files import write_text


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='SRC', help="the authors' checkpoint")
    parser.add_argument('target', metavar='DST', help='checkpoint to write')
    parser.add_argument('--num-high-levels', type=int, help='Lite models: 3 for H3L1, 2 for H2L2 (default: by name)')
    parser.add_argument('--num-queries', type=int, help='H-DETR: number of one-to-one queries (default: 300)')
    parser.add_argument('--num-classes', type=int, help="number of classes (default: COCO's 80 for 91 rows, else all)")
    parser.add_argument('--classes', nargs='+', help='names of the classes')
    parser.add_argument('--category-ids', nargs='+', type=int, help='category id of each class in the annotations')
    parser.add_argument('--ema', action='store_true', help='take the averaged weights that DINO may save')
    parser.add_argument('--overwrite', action='store_true', help='replace files that already exist')
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    try:
        report, config, num_high_levels = convert_official_file(**args)
    except (FileExistsError, FileNotFoundError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    write_text(str(report), f'{args["target"]}.txt')
    print(report.summary())
    if num_high_levels is not None:
        print(f'high-level levels: {num_high_levels}')
    print(f'config: {config.name} {config.command_line()}'.rstrip())
    print(f'written: {args["target"]} and {args["target"]}.txt')


if __name__ == '__main__':
    main()
