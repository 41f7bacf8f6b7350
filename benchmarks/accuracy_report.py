"""Mean and spread of the runs of benchmarks/accuracy.py, as JSON and as Markdown tables."""

import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

from accuracy_models import BASELINE, LITE, MODELS, SMALLER

from lite_detr_mmdet.analysis.records import Environment
from lite_detr_mmdet.output_files import prepare_output, write_text

METRICS = dict(AP='mAP', AP50='mAP_50', AP75='mAP_75', APS='mAP_s', APM='mAP_m', APL='mAP_l')
WITHOUT_KDA = 'lite-dino_h3l1-2p1x3-msda'


class Claim(NamedTuple):
    """A claim of the paper as a difference between two models.

    Attributes:
        text (str): What is claimed.
        metric (str): Metric that tells.
        better (str): The model that should be better, or as good.
        other (str): What it is compared with.
        tolerance (float): Share of the other's metric that may be lost, 0 for a claim of being better.
    """

    text: str
    metric: str
    better: str
    other: str
    tolerance: float = 0.0

    @property
    def key(self) -> str:
        return f'{self.metric}: {self.better} - {self.other}'

    def verdict(self, low: float, high: float, other: float) -> str:
        """'supported', 'refuted' or 'undecided', from the interval of the difference and the other's mean."""
        bound = -self.tolerance * other
        return 'supported' if low > bound else 'refuted' if high < bound else 'undecided'


# In the shape of Tables 1, 4 and 5.
CLAIMS = (
    Claim("Lite-DINO keeps 99 % of DINO's AP", 'AP', LITE, BASELINE, 0.01),
    Claim("Lite-DINO keeps 99 % of DINO's AP on small objects", 'APS', LITE, BASELINE, 0.01),
    Claim("Lite-DINO keeps 99 % of DINO's AP on medium objects", 'APM', LITE, BASELINE, 0.01),
    Claim("Lite-DINO keeps 99 % of DINO's AP on large objects", 'APL', LITE, BASELINE, 0.01),
    Claim('dropping stride 8 costs small objects', 'APS', BASELINE, SMALLER),
    Claim('the interleaved encoder brings them back', 'APS', LITE, SMALLER),
    Claim('key-aware attention adds', 'AP', LITE, WITHOUT_KDA),
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


def format_claims(rows: Dict[str, dict], comparisons: Dict[str, dict]) -> List[str]:
    """Each claim with the difference that was found, its interval and a verdict; nothing where a model is missing."""
    lines = []
    for claim in CLAIMS:
        better, other = rows.get(claim.better, {}).get(claim.metric), rows.get(claim.other, {}).get(claim.metric)
        if not better or not other:
            continue
        line = f'- {claim.text}: {claim.metric} of `{claim.better}` minus `{claim.other}` is '
        found = comparisons.get(claim.key)
        if found is None:
            lines.append(f'{line}{better["mean"] - other["mean"]:+.1f}')
            continue
        verdict = claim.verdict(found['low'], found['high'], other['mean'])
        lines.append(
            f'{line}{found["difference"]:+.1f} [{found["low"]:+.1f}, {found["high"]:+.1f}], '
            f'{found["seeds"]} seed{"" if found["seeds"] == 1 else "s"}: **{verdict}**'
        )
    return lines


def format_markdown(
    environment: Environment, records: List[dict], comparisons: Optional[Dict[str, dict]] = None
) -> str:
    """Tables of all data sets.

    Args:
        environment (Environment): Where the runs were made.
        records (list[dict]): As for :func:`summarize`.
        comparisons (dict[str, dict], optional): By data set and key of a claim, what
            :func:`accuracy_bootstrap.compare` found. Defaults to None.
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
        claims = format_claims(rows, (comparisons or {}).get(dataset, {}))
        lines += ['', *claims] if claims else []
    return '\n'.join(lines) + '\n'


def read_report(out: Path) -> Tuple[List[dict], Dict[str, dict], Optional[Environment]]:
    """Runs, comparisons and environment of ``out``.json; empty if there is no such file."""
    path = Path(f'{out}.json')
    if not path.exists():
        return [], {}, None
    content = json.loads(path.read_text())
    return content['records'], content.get('comparisons', {}), Environment(**content['environment'])


def write_report(
    out: Path, environment: Environment, records: List[dict], comparisons: Optional[Dict[str, dict]] = None
) -> None:
    """Write ``out``.json and ``out``.md."""
    content = dict(environment=asdict(environment), records=records, comparisons=comparisons or {})
    prepare_output(out)
    write_text(json.dumps(content, indent=1) + '\n', f'{out}.json')
    write_text(format_markdown(environment, records, comparisons), f'{out}.md')
