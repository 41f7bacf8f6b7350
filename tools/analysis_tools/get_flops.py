#!/usr/bin/env python
"""Count the multiply-adds and parameters of detectors, in all and of each part.

    python tools/analysis_tools/get_flops.py CONFIG [CONFIG ...]
    python tools/analysis_tools/get_flops.py --compare               every model of the paper beside its figures
    python tools/analysis_tools/get_flops.py --tokens                tokens of each level (Table 2 of the paper)
    python tools/analysis_tools/get_flops.py CONFIG --like-authors 800x1066 ...   mean by the rules of their code

What is counted is described in docs/compute.md. Nothing is computed, so that no GPU, no weights and no operators are
needed, and the result is the same everywhere.
"""

import argparse
import json
from pathlib import Path
from typing import List, Optional

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
from mmdet.utils import register_all_modules
from mmengine.config import DictAction
from terminaltables import AsciiTable
from tqdm import tqdm

from lite_detr_mmdet.analysis import PARTS, count_config, count_like_the_authors, count_tokens
from lite_detr_mmdet.output_files import output_file, prepare_output, write_text
from lite_detr_mmdet.utils import existing_config
from lite_detr_mmdet.zoo import ShippedModel, read_metafiles


def parts_table(rows: List[dict]) -> List[list]:
    """Multiply-adds and parameters of each part."""
    names = ['total', *PARTS]
    cells = [['config', '', *names]]
    for row in rows:
        cells.append([Path(row['config']).stem, 'GMACs', *(f'{row["gmacs"][name]:.1f}' for name in names)])
        cells.append(['', 'M params', *(f'{row["params_m"][name]:.2f}' for name in names)])
    return cells


def paper_table(rows: List[dict], models: List[Optional[ShippedModel]]) -> List[list]:
    """Multiply-adds and parameters beside those of the paper, '-' where it gives none; None is not a shipped model."""
    cells = [['config', 'AP (paper)', 'GMACs', '(paper)', 'off by', 'encoder', '(paper)', 'M params', '(paper)']]
    for row, model in zip(rows, models):
        paper = model.metadata if model else {}
        total, paper_total = round(row['gmacs']['total'], 1), paper.get('Paper GFLOPs')
        cells.append(
            [
                Path(row['config']).stem,
                paper.get('Paper AP', '-'),
                total,
                paper_total or '-',
                f'{total / paper_total - 1:+.1%}' if paper_total else '-',
                f'{row["gmacs"]["encoder"]:.1f}',
                paper.get('Paper Encoder GFLOPs', '-'),
                f'{row["params_m"]["total"]:.1f}',
                paper.get('Paper Parameters (M)', '-'),
            ]
        )
    return cells


def tokens_table(shape: List[int], strides: List[int]) -> List[list]:
    """Tokens of each level; the level of the lowest resolution is S1 of the paper."""
    levels = count_tokens(shape, strides)
    cells = [['level', 'stride', 'map', 'tokens', 'share']]
    for index, level in enumerate(levels):
        name = f'S{len(levels) - index}'
        tokens = level.height * level.width
        cells.append([name, level.stride, f'{level.height}x{level.width}', tokens, f'{level.share:.2%}'])
    return cells


def is_of_the_paper(model: ShippedModel) -> bool:
    """Whether the paper has multiply-adds of a model, in all or of its encoder."""
    return 'Paper GFLOPs' in model.metadata or 'Paper Encoder GFLOPs' in model.metadata


def image_size(text: str) -> List[int]:
    """Height and width, written as HxW."""
    sizes = text.lower().split('x')
    if len(sizes) != 2 or not all(size.isdigit() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f'must be height and width as 800x1060, got {text!r}')
    return [int(size) for size in sizes]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='model or config, as `get_config` takes them')
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        default=[800, 1060],
        metavar=('H', 'W'),
        help='size of the image (default: 800 1060)',
    )
    parser.add_argument('--json', metavar='OUT', type=output_file, help='write the figures to this file')
    parser.add_argument(
        '--compare', action='store_true', help="print the paper's figures beside; without CONFIG of all"
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, default={}, help='settings of all configs, as key=value'
    )
    parser.add_argument('--tokens', action='store_true', help='print how the tokens divide among the levels')
    parser.add_argument(
        '--strides', nargs='+', type=int, default=[8, 16, 32, 64], help='levels of --tokens (default: 8 16 32 64)'
    )
    parser.add_argument(
        '--like-authors',
        nargs='+',
        type=image_size,
        metavar='HxW',
        help="mean over images of these sizes, counted by fvcore's rules on a real run, as the authors' code does",
    )
    args = parser.parse_args()
    if not args.configs and not args.compare and not args.tokens:
        parser.error('CONFIG is missing; without one there are only --compare and --tokens')
    if min(args.strides) < 1:
        parser.error(f'--strides must be positive integers, got {args.strides}')
    if min(args.shape) < 1:
        parser.error(f'--shape must be two positive integers, height and width, got {args.shape[0]} {args.shape[1]}')
    try:
        args.paths = [existing_config(config) for config in args.configs]
    except argparse.ArgumentTypeError as error:
        parser.error(f'CONFIG: {error}')
    return args


def print_like_authors(args: argparse.Namespace) -> None:
    """Print 10^9 multiply-adds by fvcore's rules, in all and of each operator."""
    print(f'Mean over {len(args.like_authors)} image sizes, GMACs by the rules of fvcore.')
    for config, path in zip(args.configs, args.paths):
        counted = count_like_the_authors(path, args.like_authors, args.cfg_options)
        print(f'{Path(config).stem}: ' + ', '.join(f'{name} {count:.2f}' for name, count in counted.items()))


def main() -> None:
    args = parse_args()
    if args.tokens:
        print(AsciiTable(tokens_table(args.shape, args.strides)).table)
        if not args.configs and not args.compare:
            return
    register_all_modules()
    if args.like_authors:
        print_like_authors(args)
        return
    shipped = {model.config.resolve(): model for model in read_metafiles()} if args.compare else {}
    if not args.configs:
        args.paths = [str(path) for path, model in shipped.items() if is_of_the_paper(model)]
        args.configs = args.paths
    rows = []
    for config, path in zip(tqdm(args.configs, disable=len(args.configs) == 1), args.paths):
        try:
            rows.append(dict(config=config, **count_config(path, args.shape, args.cfg_options)))
        except (KeyError, TypeError, ValueError) as error:
            raise SystemExit(f'{config}: {error}') from error
    print(f'Image 3x{args.shape[0]}x{args.shape[1]}; the core of deformable attention is counted.')
    models = [shipped.get(Path(path).resolve()) for path in args.paths]
    print(AsciiTable(paper_table(rows, models) if args.compare else parts_table(rows)).table)
    if args.json:
        counted = 'convolutions, linear layers, matrix products, core of deformable attention; a multiply-add is one'
        content = dict(shape=args.shape, counted=counted, models=rows)
        write_text(json.dumps(content, indent=2) + '\n', prepare_output(args.json))


if __name__ == '__main__':
    main()
