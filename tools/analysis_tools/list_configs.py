#!/usr/bin/env python
"""List the shipped configs with their parameters, counted on the models as built, in the README of their folder.

    python tools/analysis_tools/list_configs.py            write the table into configs/*/README.md
    python tools/analysis_tools/list_configs.py --check    fail if a table is not up to date

Figures of the paper come from the folder's metafile.yml, which the table marks as the paper's.
"""

import argparse
from pathlib import Path
from typing import Dict, List

import torch
import yaml
from mmdet.registry import MODELS
from mmengine.config import Config
from tqdm import tqdm

import lite_detr_mmdet  # noqa: F401  registers the models

CONFIGS = Path(__file__).resolve().parent.parent.parent / 'configs'
BEGIN, END = '<!-- written by tools/analysis_tools/list_configs.py -->', '<!-- end -->'
HEADER = [
    '| Config | Parameters (M) | of the encoder (M) | Epochs | AP (paper) | GFLOPs (paper) |',
    '| --- | --- | --- | --- | --- | --- |',
]


def count_parameters(module: torch.nn.Module) -> float:
    """Millions of parameters, frozen ones included."""
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def paper_figures(folder: Path) -> Dict[str, dict]:
    """Metadata of each model of the folder's metafile by the path of its config; empty without a metafile."""
    metafile = folder / 'metafile.yml'
    if not metafile.exists():
        return {}
    return {model['Config']: model['Metadata'] for model in yaml.safe_load(metafile.read_text())['Models']}


def make_table(folder: Path) -> List[str]:
    """Lines of the table of the configs in ``folder``."""
    lines = list(HEADER)
    figures = paper_figures(folder)
    for path in tqdm(sorted(folder.glob('*.py')), desc=folder.name):
        cfg = Config.fromfile(path)
        model = MODELS.build(cfg.model)
        metadata = figures.get(path.relative_to(CONFIGS.parent).as_posix(), {})
        cells = [
            f'[{path.stem}]({path.name})',
            f'{count_parameters(model):.2f}',
            f'{count_parameters(model.encoder):.2f}',
            cfg.train_cfg.max_epochs,
            metadata.get('Paper AP', ''),
            metadata.get('Paper GFLOPs', ''),
        ]
        lines.append(f'| {" | ".join(map(str, cells))} |'.replace('|  |', '| |').replace('|  |', '| |'))
    return lines


def insert_table(text: str, table: List[str]) -> str:
    """The text with the table between its two marks.

    Raises:
        ValueError: If the text has no such marks.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f'the README must hold the lines {BEGIN!r} and {END!r}')
    return '\n'.join([before + BEGIN, '', *table, '', END]) + after


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='change nothing, fail if a table is not up to date')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    outdated = []
    for readme in sorted(CONFIGS.glob('*/README.md')):
        old = readme.read_text()
        new = insert_table(old, make_table(readme.parent))
        if new != old:
            outdated.append(str(readme.relative_to(CONFIGS.parent)))
            if not args.check:
                readme.write_text(new)
    if outdated and args.check:
        raise SystemExit(f'not up to date: {", ".join(outdated)}; run tools/analysis_tools/list_configs.py')
    print(f'written: {", ".join(outdated)}' if outdated else 'all tables are up to date')


if __name__ == '__main__':
    main()
