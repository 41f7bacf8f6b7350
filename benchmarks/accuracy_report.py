"""Mean and spread of the runs of benchmarks/accuracy.py, as JSON and as Markdown tables."""

import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Dict, List, Optional

from accuracy_models import BASELINE, LITE, MODELS, SMALLER
from records import Environment

METRICS = dict(AP='mAP', AP50='mAP_50', AP75='mAP_75', APS='mAP_s', APM='mAP_m', APL='mAP_l')
WITHOUT_KDA = 'lite-dino_h3l1-2p1x3-msda'
# The shape of Tables 1 and 5: a claim, the metric, the model that should be better and the other one.
CLAIMS = (
    ('dropping stride 8 costs small objects', 'APS', BASELINE, SMALLER),
    ('the interleaved encoder brings them back', 'APS', LITE, SMALLER),
    ('key-aware attention adds', 'AP', LITE, WITHOUT_KDA),
)


def summarize(records: List[dict]) -> Dict[str, Dict[str, dict]]:
    """Statistics by data set and model.

    Args:
        records (list[dict]): Runs with ``dataset``, ``model``, ``seed`` and ``metrics``, those in shares of 1.

    Returns:
        dict[str, dict[str, dict]]: For each data set and model ``seeds`` and, for each metric in percent, ``mean`` and
        ``sd``, the standard deviation over the seeds (None for a single one). A metric of which the data holds no
        object (-1 in COCO's evaluation) is None.
    """
    summary: Dict[str, Dict[str, dict]] = {}
    for dataset in sorted({record['dataset'] for record in records}):
        for model in MODELS:
            runs = [record for record in records if (record['dataset'], record['model']) == (dataset, model)]
            if not runs:
                continue
            row = dict(seeds=sorted(run['seed'] for run in runs))
            for name in METRICS:
                values = [100 * run['metrics'][name] for run in runs]
                sd = statistics.stdev(values) if len(values) > 1 else None
                row[name] = None if min(values) < 0 else dict(mean=statistics.mean(values), sd=sd)
            summary.setdefault(dataset, {})[model] = row
    return summary


def cell(value: Optional[dict]) -> str:
    """Mean and, with several seeds, standard deviation."""
    if value is None:
        return '-'
    return f'{value["mean"]:.1f}' + ('' if value['sd'] is None else f' ± {value["sd"]:.1f}')


def ratio(row: dict, baseline: Optional[dict]) -> str:
    """AP over that of the baseline, in percent."""
    if baseline is None or not row['AP'] or not baseline['AP'] or not baseline['AP']['mean']:
        return '-'
    return f'{100 * row["AP"]["mean"] / baseline["AP"]["mean"]:.1f} %'


def format_claims(rows: Dict[str, dict]) -> List[str]:
    """Each claim with the difference that was found; nothing where a model is missing."""
    lines = []
    for claim, metric, better, other in CLAIMS:
        if better in rows and other in rows and rows[better][metric] and rows[other][metric]:
            difference = rows[better][metric]['mean'] - rows[other][metric]['mean']
            lines.append(f'- {claim}: {metric} of `{better}` minus `{other}` is {difference:+.1f}')
    return lines


def format_markdown(environment: Environment, records: List[dict]) -> str:
    """Tables of all data sets.

    Args:
        environment (Environment): Where the runs were made.
        records (list[dict]): As for :func:`summarize`.
    """
    lines = ['# Accuracy under one schedule', '']
    lines += environment.lines()
    for dataset, rows in summarize(records).items():
        recipe = next(record['recipe'] for record in records if record['dataset'] == dataset)
        lines += [
            '',
            f'## {dataset}',
            '',
            ', '.join(f'{name} {value}' for name, value in recipe.items())
            + '; the last checkpoint, mean ± standard deviation over seeds.',
            '',
            '| model | seeds | ' + ' | '.join(METRICS) + f' | AP / {BASELINE} |',
            '| --- ' * (len(METRICS) + 3) + '|',
        ]
        for model, row in rows.items():
            cells = ' | '.join(cell(row[name]) for name in METRICS)
            lines.append(f'| {model} | {len(row["seeds"])} | {cells} | {ratio(row, rows.get(BASELINE))} |')
        claims = format_claims(rows)
        lines += ['', *claims] if claims else []
    return '\n'.join(lines) + '\n'


def read_records(out: Path) -> List[dict]:
    """Runs of ``out``.json; none if there is no such file."""
    path = Path(f'{out}.json')
    return json.loads(path.read_text())['records'] if path.exists() else []


def write_report(out: Path, environment: Environment, records: List[dict]) -> None:
    """Write ``out``.json and ``out``.md."""
    content = dict(environment=asdict(environment), records=records)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Aside and moved, so that an interruption leaves the runs before.
    partial = Path(f'{out}.json.partial')
    partial.write_text(json.dumps(content, indent=1) + '\n')
    partial.replace(f'{out}.json')
    Path(f'{out}.md').write_text(format_markdown(environment, records))
