#!/usr/bin/env python
"""Draw AP against what a detector costs, for the hosts and their Lite detectors, in the style of the paper's Figure 1.

    python .dev_scripts/plot_ap.py gmacs         write docs/ap_gmacs.svg
    python .dev_scripts/plot_ap.py latency       write docs/ap_latency.svg
    python .dev_scripts/plot_ap.py memory        write docs/ap_memory.svg

AP is the paper's. Multiply-adds are those of the metafiles; latency and memory come from
benchmarks/results/cpu_r50.json, which tools/analysis_tools/benchmark.py wrote.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Dict, List, Tuple

import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from lite_detr_mmdet.analysis.records import Record
from lite_detr_mmdet.zoo import ShippedModel, read_metafiles

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / 'benchmarks' / 'results' / 'cpu_r50.json'
# What is on the axis: field of a row of the record, its unit, and the words below the axis.
COSTS = {
    'latency': ('median_s', 1.0, 'seconds for an image of {shape}, {threads} CPU threads'),
    'memory': ('peak_bytes', 1e6, 'peak memory of inference for an image of {shape}, MB, weights apart'),
}
Point = Tuple[float, float]  # cost and AP
# Label, config of the host, pattern of the configs of its Lite detectors, colour, and whether the backbone is Swin-T.
FAMILIES = [
    ('DINO', 'dino-4scale_swin-t_8xb2-36e_coco', r'lite-dino-4scale_(.*)_swin-t_8xb2-36e_coco', '#c1272d', True),
    ('H-DETR', 'h-detr_swin-t_8xb2-36e_coco', r'lite-h-detr_(.*)_swin-t_8xb2-36e_coco', '#0071bc', True),
    ('DINO', 'dino-4scale_r50_8xb2-36e_coco', r'lite-dino-4scale_(.*)_r50_8xb2-36e_coco', '#c1272d', False),
    ('H-DETR', 'h-detr_r50_8xb2-36e_coco', r'lite-h-detr_(.*)_r50_8xb2-36e_coco', '#0071bc', False),
    (
        'Deformable DETR',
        'deformable-detr-refine-twostage-4scale_r50_16xb2-50e_coco',
        r'lite-deformable-detr_(.*)_r50_16xb2-50e_coco',
        '#22803c',
        False,
    ),
]
# Variants of the paper's main tables; the others are ablations.
VARIANTS = {'h2l2-2p1x3': 'H2L2-(2+1)x3', 'h3l1-6p1x1': 'H3L1-(6+1)x1', 'h3l1-3p1x2': 'H3L1-(3+1)x2'}
VARIANTS['h3l1-2p1x3'] = 'H3L1-(2+1)x3'


def read_costs(against: str, zoo: Dict[str, ShippedModel]) -> Tuple[Dict[str, float], str]:
    """What is on the axis, for each model that has it, and the words below the axis."""
    if against == 'gmacs':
        found = {name: model.metadata['GMACs'] for name, model in zoo.items() if 'GMACs' in model.metadata}
        return found, 'multiply-adds of a 3x800x1060 image, $10^9$ (measured here)'
    if not RECORD.is_file():
        raise SystemExit(f'error: {RECORD} does not exist: tools/analysis_tools/benchmark.py --json writes it')
    record = Record.from_dict(json.loads(RECORD.read_text()))
    name, unit, words = COSTS[against]
    words = words.format(shape='x'.join(map(str, record.shape)), threads=record.environment.threads)
    return {row['config']: row[name] / unit for row in record.results}, words


def find_lite(zoo: Dict[str, ShippedModel], pattern: str, costs: Dict[str, float]) -> List[Point]:
    """Cost and AP of the Lite detectors of a family for which the paper gives an AP, in the order of their cost."""
    found = []
    for name, model in zoo.items():
        match = re.fullmatch(pattern, name)
        if match and match[1] in VARIANTS and 'Paper AP' in model.metadata:
            found.append((costs[name], model.metadata['Paper AP']))
    return sorted(found)


def draw_family(axes: Axes, host: Point, lite: List[Point], label: str, colour: str, marker: str, what: str) -> None:
    """Draw a host, its Lite detectors and what the one with the highest AP saves."""
    best = max(lite, key=lambda point: point[1])
    axes.annotate(
        '',
        xy=best,
        xytext=host,
        arrowprops=dict(arrowstyle='-|>', color=colour, alpha=0.45, linestyle='--', shrinkA=7, shrinkB=7),
    )
    axes.plot(*zip(*lite), color=colour, marker=marker, markersize=7, linewidth=2)
    axes.plot(*host, color=colour, marker=marker, markersize=9, markerfacecolor='white', markeredgewidth=2)
    axes.annotate(label, host, (0, 9), textcoords='offset points', color=colour, ha='center', fontsize=9)
    axes.annotate(
        f'Lite-{label.replace(" ", "-")}',
        best,
        (6, -15) if label == 'H-DETR' else (4, 8),  # the curves of H-DETR run just below those of DINO
        textcoords='offset points',
        color=colour,
        ha='left' if label == 'H-DETR' else 'center',
        fontsize=9,
        fontweight='bold',
    )
    axes.annotate(
        f'{best[0] / host[0] - 1:.0%} {what}',
        [(one + other) / 2 for one, other in zip(best, host)],
        (0, -11),
        textcoords='offset points',
        color=colour,
        ha='center',
        fontsize=8,
    )


def draw(zoo: Dict[str, ShippedModel], against: str) -> plt.Figure:
    """Draw the figure."""
    costs, words = read_costs(against, zoo)
    figure, axes = plt.subplots(figsize=(7.6, 4.6), layout='constrained')
    drawn = [family for family in FAMILIES if family[1] in costs]
    for label, host, pattern, colour, is_swin in drawn:
        point = costs[host], zoo[host].metadata['Paper AP']
        what = 'multiply-adds' if against == 'gmacs' else against
        draw_family(axes, point, find_lite(zoo, pattern, costs), label, colour, 'D' if is_swin else 'o', what)
    axes.set_xlabel(words)
    axes.set_ylabel('AP on COCO val2017 (the paper)')
    axes.grid(color='0.9')
    axes.spines[['top', 'right']].set_visible(False)
    axes.margins(x=0.04 if against == 'gmacs' else 0.16, y=0.08)  # names are longer than these curves are wide
    for is_swin, marker, name in (
        (True, 'D', 'Swin-T, 36 epochs'),
        (False, 'o', 'ResNet-50, 36 epochs (Deformable DETR 50)'),
    ):
        if any(family[-1] == is_swin for family in drawn):
            axes.plot([], [], color='0.35', marker=marker, linestyle='', label=name)
    axes.plot(
        [], [], color='0.35', marker='o', markerfacecolor='white', linestyle='', label='hollow: host; filled: Lite'
    )
    axes.legend(loc='lower right', frameon=False, fontsize=8)
    return figure


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('against', choices=['gmacs', *COSTS], help='what is on the axis')
    parser.add_argument('--out', help='picture to write, in any format of matplotlib (default: docs/ap_AGAINST.svg)')
    args = parser.parse_args()
    args.out = args.out or str(ROOT / 'docs' / f'ap_{args.against}.svg')
    return args


def main() -> None:
    args = parse_args()
    plt.rcParams.update({'svg.hashsalt': 'ap_gmacs', 'font.size': 9})
    metadata = {'Date': None} if args.out.endswith('.svg') else None
    zoo = {model.name: model for model in read_metafiles()}
    draw(zoo, args.against).savefig(args.out, dpi=150, metadata=metadata)


if __name__ == '__main__':
    main()
