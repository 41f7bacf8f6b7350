#!/usr/bin/env python
"""Draw loss, AP and learning rate of training runs.

python tools/analysis_tools/plot_run.py work_dirs/first work_dirs/second --out runs.png
"""

import argparse
from pathlib import Path
from typing import Dict, List

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from lite_detr_mmdet.analysis.training_log import TrainingLog, read_training_log
from lite_detr_mmdet.output_files import output_file, prepare_output, write_whole

PANELS = (
    ('train', 'loss', 'training loss', 'iteration'),
    ('val', 'coco/bbox_mAP', 'AP on the validation set', 'epoch'),
    ('train', 'lr', 'learning rate', 'iteration'),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dirs', nargs='+', type=Path, metavar='WORK_DIR', help='folders of training runs')
    parser.add_argument(
        '--out', type=output_file, default=Path('runs.png'), help='picture to write (default: %(default)s)'
    )
    parser.add_argument('--metric', default=PANELS[1][1], help='metric of the validation (default: %(default)s)')
    parser.add_argument('--loss', default='loss', help='loss to draw, e.g. loss_cls (default: the total, %(default)s)')
    args = parser.parse_args()
    if args.out.suffix.lower() not in ('.png', '.svg', '.pdf'):
        parser.error(f'--out must end in .png, .svg or .pdf, got {args.out}')
    return args


def label_runs(work_dirs: List[Path]) -> List[str]:
    """The shortest ends of the paths that tell the runs apart."""
    paths = [path.resolve().parts for path in work_dirs]
    for length in range(1, max(map(len, paths)) + 1):
        labels = ['/'.join(parts[-length:]) for parts in paths]
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in work_dirs]


def draw(logs: Dict[str, TrainingLog], metric: str, loss: str) -> plt.Figure:
    """One panel each for loss, metric and learning rate, a line for each run.

    Raises:
        ValueError: If no run has the loss or the metric.
    """
    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 3.8), layout='constrained')
    for axis, (part, name, title, step), asked in zip(axes, PANELS, (loss, metric, 'lr')):
        curves = {label: getattr(log, part).get(asked) for label, log in logs.items()}
        known = sorted({key for log in logs.values() for key in getattr(log, part)})
        if known and not any(curves.values()):
            raise ValueError(f'no run has {asked!r}; there are {", ".join(known)}')
        for label, curve in curves.items():
            if curve:
                marker = 'o' if len(curve[0]) < 40 else None
                axis.plot(*curve, label=label, marker=marker, markersize=3, linewidth=1.4)
            else:
                axis.plot([], [], label=label)  # keeps the colours of the runs the same in all panels
        axis.set_title(title if asked == name else asked)
        axis.set_xlabel(step)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.spines[['top', 'right']].set_visible(False)
    axes[2].ticklabel_format(axis='y', style='sci', scilimits=(0, 0))
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=min(3, len(logs)), frameon=False
    )
    return figure


def main() -> None:
    args = parse_args()
    try:
        logs = dict(zip(label_runs(args.work_dirs), map(read_training_log, args.work_dirs)))
        figure = draw(logs, args.metric, args.loss)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    write_whole(
        prepare_output(args.out), lambda file: figure.savefig(file, format=args.out.suffix[1:].lower(), dpi=130)
    )
    for label, log in logs.items():
        steps, values = log.val.get(args.metric, ([], []))
        best = f', best {args.metric} {max(values):.3f} at {steps[values.index(max(values))]:g}' if values else ''
        iterations = int(max(log.train['loss'][0])) if 'loss' in log.train else 0
        print(f'{label}: {iterations} iterations{best}')
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
