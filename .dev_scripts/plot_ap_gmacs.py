#!/usr/bin/env python
"""Draw AP against multiply-adds of the hosts and of their Lite detectors, in the style of the paper's Figure 1.

    python .dev_scripts/plot_ap_gmacs.py            write docs/ap_gmacs.svg

AP is the paper's, multiply-adds are those measured here; both come from the metafiles.
"""

import argparse
import re
from pathlib import Path
from typing import Dict, List

import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from lite_detr_mmdet.zoo import ShippedModel, read_metafiles

OUT = Path(__file__).resolve().parent.parent / 'docs' / 'ap_gmacs.svg'
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


def find_lite(zoo: Dict[str, ShippedModel], pattern: str) -> List[ShippedModel]:
    """Lite detectors of a family for which the paper gives an AP, in the order of their cost."""
    found = []
    for name, model in zoo.items():
        match = re.fullmatch(pattern, name)
        if match and match[1] in VARIANTS and 'Paper AP' in model.metadata:
            found.append(model)
    return sorted(found, key=lambda model: model.metadata['GMACs'])


def draw_family(
    axes: Axes, host: ShippedModel, lite: List[ShippedModel], label: str, colour: str, marker: str
) -> None:
    """Draw a host, its Lite detectors and what the best of these saves."""
    points = [(model.metadata['GMACs'], model.metadata['Paper AP']) for model in lite]
    host_point = host.metadata['GMACs'], host.metadata['Paper AP']
    axes.annotate(
        '',
        xy=points[-1],
        xytext=host_point,
        arrowprops=dict(arrowstyle='-|>', color=colour, alpha=0.45, linestyle='--', shrinkA=7, shrinkB=7),
    )
    axes.plot(*zip(*points), color=colour, marker=marker, markersize=7, linewidth=2)
    axes.plot(*host_point, color=colour, marker=marker, markersize=9, markerfacecolor='white', markeredgewidth=2)
    axes.annotate(label, host_point, (0, 9), textcoords='offset points', color=colour, ha='center', fontsize=9)
    axes.annotate(
        f'Lite-{label.replace(" ", "-")}',
        points[-1],
        (6, -15) if label == 'H-DETR' else (4, 8),  # the curves of H-DETR run just below those of DINO
        textcoords='offset points',
        color=colour,
        ha='left' if label == 'H-DETR' else 'center',
        fontsize=9,
        fontweight='bold',
    )
    middle = [(one + other) / 2 for one, other in zip(points[-1], host_point)]
    saved = 1 - points[-1][0] / host_point[0]
    axes.annotate(
        f'{-saved:.0%} multiply-adds',
        middle,
        (0, -11),
        textcoords='offset points',
        color=colour,
        ha='center',
        fontsize=8,
    )


def draw(zoo: Dict[str, ShippedModel]) -> plt.Figure:
    """Draw the figure."""
    figure, axes = plt.subplots(figsize=(7.6, 4.6), layout='constrained')
    for label, host, pattern, colour, is_swin in FAMILIES:
        draw_family(axes, zoo[host], find_lite(zoo, pattern), label, colour, 'D' if is_swin else 'o')
    axes.set_xlabel('multiply-adds of a 3x800x1060 image, $10^9$ (measured here)')
    axes.set_ylabel('AP on COCO val2017 (the paper)')
    axes.grid(color='0.9')
    axes.spines[['top', 'right']].set_visible(False)
    axes.margins(x=0.04, y=0.08)
    for marker, name in (('D', 'Swin-T, 36 epochs'), ('o', 'ResNet-50, 36 epochs (Deformable DETR 50)')):
        axes.plot([], [], color='0.35', marker=marker, linestyle='', label=name)
    axes.plot(
        [], [], color='0.35', marker='o', markerfacecolor='white', linestyle='', label='hollow: host; filled: Lite'
    )
    axes.legend(loc='lower right', frameon=False, fontsize=8)
    return figure


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--out', default=OUT, help='picture to write, in any format of matplotlib (default: docs/ap_gmacs.svg)'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    plt.rcParams.update({'svg.hashsalt': 'ap_gmacs', 'font.size': 9})
    metadata = {'Date': None} if str(args.out).endswith('.svg') else None
    draw({model.name: model for model in read_metafiles()}).savefig(args.out, dpi=150, metadata=metadata)


if __name__ == '__main__':
    main()
