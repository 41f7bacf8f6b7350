#!/usr/bin/env python
"""Convert a checkpoint of this package or of mmdet to the names of the authors' repositories.

    python tools/model_converters/mmdet_to_official.py SRC DST

What became of each weight is written beside it, to DST.txt. DINO and Lite-DINO trained in mmdet have a class and a
box branch for each decoder layer, where the authors share one of each: such a checkpoint is refused unless --untied is
given, and DST then needs the options of the authors' scripts that are printed.
"""

import argparse

from lite_detr_mmdet.converters.files import convert_mmdet_file
from lite_detr_mmdet.output_files import write_text


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='SRC', help='checkpoint of this package or of mmdet')
    parser.add_argument('target', metavar='DST', help='checkpoint to write')
    parser.add_argument(
        '--num-rows', type=int, help='rows of the class branches (default: 91 for 80 classes, else all)'
    )
    parser.add_argument('--category-ids', nargs='+', type=int, help='category id of each class in the annotations')
    parser.add_argument('--overwrite', action='store_true', help='replace files that already exist')
    parser.add_argument(
        '--untied', action='store_true', help='DINO: write branches that differ; prints the options that load them'
    )
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    try:
        report = convert_mmdet_file(**args)
    except (FileExistsError, FileNotFoundError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    write_text(str(report), f'{args["target"]}.txt')
    print(report.summary())
    if report.options:
        print(f"load it in the authors' scripts with: --options {' '.join(report.options)}")
    print(f'written: {args["target"]} and {args["target"]}.txt')


if __name__ == '__main__':
    main()
