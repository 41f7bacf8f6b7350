#!/usr/bin/env python
"""Write the tables of the model zoo from the metafiles, and what was measured into the metafiles.

    python .dev_scripts/update_model_zoo.py            write
    python .dev_scripts/update_model_zoo.py --check    change nothing, fail if something is not up to date

Multiply-adds and parameters come from benchmarks/results/compute.json (benchmarks/compute.py writes it), latency from
the records of benchmarks/detectors.py anywhere below benchmarks/results, AP from the Results of a metafile and the
paper's figures from its Metadata. The READMEs, docs/model_zoo.md and docs/compute.md hold
pairs of marks between which the tables go.

Latency is that of one 3x800x1333 image in float32 with the benchmark's defaults: all cores, glibc's own allocator,
nothing compiled. Of several such runs the newest counts, on a CPU and on a GPU.
"""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Dict, List

import yaml

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
from mmengine.config import Config

from lite_detr_mmdet.utils import silence_upstream_warnings
from lite_detr_mmdet.zoo import ShippedModel, read_metafiles

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / 'benchmarks'
sys.path.append(str(BENCHMARKS))
from lite_detr_mmdet.analysis.records import Record, read_records  # noqa: E402

RESULTS = BENCHMARKS / 'results'
COMPARISON = ROOT / 'docs' / 'compute.md'
OVERVIEW = ROOT / 'docs' / 'model_zoo.md'
BEGIN, END = '<!-- written by .dev_scripts/update_model_zoo.py -->', '<!-- end -->'
BACKBONES = {('ResNet', 18): 'R18', ('ResNet', 50): 'R50', ('SwinTransformer', 96): 'Swin-T'}
BACKBONES[('SwinTransformer', 192)] = 'Swin-L'
BACKBONES[('EfficientNetLite', None)] = 'EfficientNet-Lite0'
NONE = '-'


class MetafileDumper(yaml.SafeDumper):
    """YAML with lists indented below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def update_metafile(text: str, compute: Dict[str, dict]) -> str:
    """The text of a metafile with what was counted in the metadata of its models; leading comments are kept."""
    comments = [line for line in text.splitlines(keepends=True) if line.startswith('#')]
    content = yaml.safe_load(text)
    for model in content['Models']:
        counted = compute.get(model['Name'])
        if counted:
            model['Metadata']['GMACs'] = round(counted['gmacs']['total'], 1)
            model['Metadata']['Encoder GMACs'] = round(counted['gmacs']['encoder'], 1)
            model['Metadata']['Parameters (M)'] = round(counted['params_m']['total'], 1)
            model['Metadata']['Trainable Parameters (M)'] = round(counted['trainable_params_m'], 1)
    return ''.join(comments) + yaml.dump(content, Dumper=MetafileDumper, sort_keys=False, width=1000)


def is_of_the_tables(record: Record) -> bool:
    """Whether a record of benchmarks/detectors.py is of what the tables state."""
    measured = record.shape, record.batch_size, record.dtype
    return measured == ((800, 1333), 1, 'float32') and not record.settings and not record.environment.allocator


def read_latency(folder: Path = RESULTS) -> Dict[str, Dict[str, str]]:
    """Milliseconds of each detector by device, 'cpu' and 'cuda', and config.

    Raises:
        ValueError: If two runs of the same time disagree.
    """
    records = {path: record for path, record in read_records(folder, 'detectors').items() if is_of_the_tables(record)}
    latency: Dict[str, Dict[str, str]] = {'cpu': {}, 'cuda': {}}
    sources: Dict[tuple, Path] = {}
    for path, record in sorted(records.items(), key=lambda item: item[1].environment.date):
        device = record.environment.device
        for row in record.results:
            if row['part'] != 'detector':
                continue
            before = sources.get((device, row['config']))
            if before and records[before].environment.date == record.environment.date:
                raise ValueError(f'{before} and {path} are of the same time and both time {row["config"]}: remove one')
            sources[device, row['config']] = path
            latency[device][row['config']] = f'{1000 * row["median_s"]:.0f}'
    return latency


def format_table(header: List[str], rows: List[list]) -> List[str]:
    """Lines of a table in Markdown."""
    return [f'| {" | ".join(map(str, cells))} |' for cells in [header, ['---'] * len(header), *rows]]


def weights_link(text: str, model: ShippedModel, folder: Path) -> str:
    """Link to the weights of a model in a page of ``folder``; shipped ones lie in the repository."""
    if not model.weights:
        return NONE
    address = model.weights if '://' in model.weights else Path(os.path.relpath(model.weights, folder)).as_posix()
    return f'[{text}]({address})'


def zoo_table(models: List[ShippedModel], latency: Dict[str, Dict[str, str]]) -> List[str]:
    """Table of the models in a folder."""
    header = ['Config', 'Backbone', 'Epochs', 'Attention', 'AP (paper)', 'AP (here)', 'Params (M)', 'GMACs']
    header += ['of the encoder', 'CPU (ms)', 'GPU (ms)', 'Download']
    rows = []
    for model in models:
        cfg = Config.fromfile(model.config)
        backbone = cfg.model.backbone
        rows.append(
            [
                f'[{model.name}]({model.config.name})',
                BACKBONES[backbone.type, backbone.get('depth', backbone.get('embed_dims'))],
                model.metadata['Epochs'],
                'KDA' if 'KeyAwareDeformableAttention' in str(cfg.model) else 'MSDA',
                model.metadata.get('Paper AP', NONE),
                model.results.get('box AP', NONE),
                *(model.metadata.get(name, NONE) for name in ('Parameters (M)', 'GMACs', 'Encoder GMACs')),
                *(latency[device].get(model.name, NONE) for device in ('cpu', 'cuda')),
                weights_link('model', model, model.config.parent),
            ]
        )
    return format_table(header, rows)


def overview_table(models: List[ShippedModel], latency: Dict[str, Dict[str, str]]) -> List[str]:
    """Table of all models, to be sorted on the site."""
    header = ['Config', 'Detector', 'Data', 'AP (paper)', 'AP (here)', 'Params (M)', 'GMACs', 'of the encoder']
    header += ['CPU (ms)', 'GPU (ms)', 'Weights']
    rows = []
    for model in models:
        folder = model.config.parent
        title = next(line for line in (folder / 'README.md').read_text().splitlines() if line.startswith('# '))
        rows.append(
            [
                f'[{model.name}](../{model.config.relative_to(ROOT).as_posix()})',
                f'[{title[2:]}](../configs/{folder.name}/README.md)',
                model.name.rpartition('_')[2],
                model.metadata.get('Paper AP', NONE),
                model.results.get('box AP', NONE),
                *(model.metadata.get(name, NONE) for name in ('Parameters (M)', 'GMACs', 'Encoder GMACs')),
                *(latency[device].get(model.name, NONE) for device in ('cpu', 'cuda')),
                weights_link('file', model, ROOT / 'docs'),
            ]
        )
    return format_table(header, rows)


def comparison_table(models: List[ShippedModel]) -> List[str]:
    """Table of the models of the paper with its figures beside those measured here."""
    header = ['Config', 'Source', 'AP (paper)', 'AP (here)', 'GMACs', 'GFLOPs (paper)', 'Difference']
    header += ['Encoder GMACs', 'Encoder GFLOPs (paper)', 'Params (M)', 'trainable', 'paper']
    rows = []
    for model in models:
        data = model.metadata
        if 'Paper GFLOPs' not in data and 'Paper Encoder GFLOPs' not in data:
            continue
        difference = f'{data["GMACs"] / data["Paper GFLOPs"] - 1:+.1%}' if 'Paper GFLOPs' in data else NONE
        rows.append(
            [
                f'[{model.name}](../{model.config.relative_to(ROOT).as_posix()})',
                data['Paper Source'],
                data.get('Paper AP', NONE),
                model.results.get('box AP', NONE),
                data['GMACs'],
                data.get('Paper GFLOPs', NONE),
                difference,
                data['Encoder GMACs'],
                data.get('Paper Encoder GFLOPs', NONE),
                data['Parameters (M)'],
                data['Trainable Parameters (M)'],
                data.get('Paper Parameters (M)', NONE),
            ]
        )
    return format_table(header, rows)


def variants_table(models: List[ShippedModel], variants: Dict[str, Dict[str, dict]]) -> List[str]:
    """Table of the readings of Deformable DETR: total multiply-adds, and how far they are from the paper's."""
    names = list(dict.fromkeys(name for counted in variants.values() for name in counted))
    rows = []
    for model in models:
        if model.name not in variants:
            continue
        paper = model.metadata['Paper GFLOPs']
        totals = [model.metadata['GMACs']]
        totals += [
            variants[model.name][name]['gmacs']['total'] if name in variants[model.name] else None for name in names
        ]
        cells = [NONE if total is None else f'{total:.1f} ({total / paper - 1:+.1%})' for total in totals]
        rows.append([model.name, paper, *cells])
    return format_table(['Config', 'GFLOPs (paper)', 'as shipped', *names], rows)


def insert_tables(text: str, *tables: List[str]) -> str:
    """The text with the tables between its pairs of marks, one after the other.

    Raises:
        ValueError: If the text has not one pair of marks for each table.
    """
    parts = re.split(f'{re.escape(BEGIN)}.*?{re.escape(END)}', text, flags=re.DOTALL)
    if len(parts) != len(tables) + 1:
        raise ValueError(
            f'the page must hold the marks {BEGIN!r} and {END!r} {len(tables)} times, got {len(parts) - 1}'
        )
    blocks = ['\n'.join([BEGIN, '', *table, '', END]) for table in tables]
    return parts[0] + ''.join(block + part for block, part in zip(blocks, parts[1:]))


class Writer:
    """Writes files that change, or only notes them."""

    def __init__(self, check: bool) -> None:
        self.check = check
        self.changed = []

    def write(self, path: Path, text: str) -> None:
        if path.read_text() != text:
            self.changed.append(str(path.relative_to(ROOT)))
            if not self.check:
                path.write_text(text)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='change nothing, fail if something is not up to date')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    silence_upstream_warnings()
    writer = Writer(args.check)
    (results,) = (record.results for record in read_records(RESULTS, 'compute').values())
    for metafile in sorted(ROOT.glob('configs/*/metafile.yml')):
        writer.write(metafile, update_metafile(metafile.read_text(), results['models']))
    latency = read_latency()
    models = read_metafiles(ROOT)
    for readme in sorted(ROOT.glob('configs/*/README.md')):
        own = [model for model in models if model.config.parent == readme.parent]
        writer.write(readme, insert_tables(readme.read_text(), zoo_table(own, latency)))
    writer.write(OVERVIEW, insert_tables(OVERVIEW.read_text(), overview_table(models, latency)))
    tables = comparison_table(models), variants_table(models, results['variants'])
    writer.write(COMPARISON, insert_tables(COMPARISON.read_text(), *tables))
    if writer.changed and args.check:
        raise SystemExit(f'not up to date: {", ".join(writer.changed)}; run .dev_scripts/update_model_zoo.py')
    print(f'written: {", ".join(writer.changed)}' if writer.changed else 'everything is up to date')


if __name__ == '__main__':
    main()
