#!/usr/bin/env python
"""Count the multiply-adds and parameters of every model in the model zoo; write benchmarks/results/compute.json.

    python benchmarks/compute.py
    python benchmarks/compute.py --missing      count only new models

The figures go from there into the metafiles and tables by .dev_scripts/update_model_zoo.py. The image size is the
one at which the authors' released code has the GFLOPs that their paper states.
"""

import argparse
import json
from pathlib import Path

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
from mmdet.utils import register_all_modules
from tqdm import tqdm

from lite_detr_mmdet.analysis import count_config
from lite_detr_mmdet.analysis.environment import describe_environment
from lite_detr_mmdet.analysis.records import Record
from lite_detr_mmdet.output_files import output_file
from lite_detr_mmdet.zoo import read_metafiles

# Readings of the Deformable DETR that the paper leaves open, as settings of its rows in Table 3.
VARIANTS = {
    'one stage': {'model.as_two_stage': False},
    'small FFN 1/4': {'model.encoder.low_level_ffn_ratio': 4},
    'FFN 2048': {
        'model.encoder.layer_cfg.ffn_cfg.feedforward_channels': 2048,
        'model.decoder.layer_cfg.ffn_cfg.feedforward_channels': 2048,
    },
}
OUT = Path(__file__).resolve().parent / 'results' / 'compute.json'
SHAPE = (800, 1060)
TABLE_3 = ('Table 3', 'Tables 3')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--out', type=output_file, default=OUT, help='file to write (default: benchmarks/results/compute.json)'
    )
    parser.add_argument('--missing', action='store_true', help='keep what --out holds, count only what it lacks')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    register_all_modules()
    zoo = read_metafiles()
    results = dict(models={}, uncounted={}, variants={})
    if args.missing:
        before = json.loads(Path(args.out).read_text())['results']
        names = {model.name for model in zoo}
        results = {part: {name: row for name, row in before[part].items() if name in names} for part in results}
    known = {*results['models'], *results['uncounted']}
    for model in tqdm([model for model in zoo if model.name not in known]):
        try:
            results['models'][model.name] = count_config(str(model.config), SHAPE)
        except (OSError, RuntimeError, ValueError) as error:  # other parts, or a text encoder that is not at hand
            results['uncounted'][model.name] = str(error)
    table_3 = [model for model in zoo if model.metadata.get('Paper Source', '').startswith(TABLE_3)]
    for model in tqdm([model for model in table_3 if model.name not in results['variants']]):
        results['variants'][model.name] = {
            name: count_config(str(model.config), SHAPE, options)
            for name, options in VARIANTS.items()
            if 'low_level' not in str(options) or model.name.startswith('lite-')
        }
    Record('compute', describe_environment(), results, shape=SHAPE, batch_size=1).write(args.out)


if __name__ == '__main__':
    main()
