#!/usr/bin/env python
"""Train DINO and Lite-DINO alike, several runs side by side on one GPU or CPU, and report AP by object size.

    python benchmarks/accuracy.py run shapes --data-root data/small_shapes --parallel 8 --time-limit 540
    python benchmarks/accuracy.py run bccd --data-root data/bccd --seeds 3 --time-limit 540
    python benchmarks/accuracy.py compare hit_uav --data-root data/hit_uav
    python benchmarks/accuracy.py report

`run` goes on where the last call stopped, at the last finished epoch of each run, and writes OUT.json and OUT.md anew
after every run that is done. Runs that OUT.json holds are not repeated. `--seeds` are those of the main pair, DINO and
Lite-DINO H3L1-(2+1)x3; the other models get `--other-seeds`, all models before second seeds. `compare` reads the
detections of the runs and gives each difference an interval.
"""

import argparse
import hashlib
import json
import signal
import sys
from pathlib import Path
from typing import Dict, List, Tuple

import torch
from accuracy_bootstrap import ImageMatches, compare
from accuracy_models import BASELINE, LITE, MODELS, NEEDS_DATA_ROOT, RECIPES, fingerprint, make_config
from accuracy_report import CLAIMS, METRICS, format_markdown, read_report, write_report
from accuracy_runs import Run, run_all
from mmengine.config import DictAction

from lite_detr_mmdet.analysis.environment import describe_environment
from lite_detr_mmdet.output_files import output_pair

OUT = Path(__file__).resolve().parent / 'results' / 'accuracy'
SETTINGS = dict(
    epochs=int, parts=int, save_every=int, validate_every=int, batch_size=int, lr=float, num_queries=int, size=int
)  # of a recipe


def order_runs(models: List[str], seeds: int, other_seeds: int) -> List[Tuple[str, int]]:
    """Models and seeds, the first seed of all models before the second of any."""
    return [
        (model, seed)
        for seed in range(max(seeds, other_seeds))
        for model in models
        if seed < (seeds if model in (BASELINE, LITE) else other_seeds)
    ]


def prepare_run(args: argparse.Namespace, model: str, seed: int) -> Tuple[Run, str]:
    """Write the config of a run; return the run and the fingerprint of its config.

    Raises:
        SystemExit: If the folder holds a run that was begun with other settings.
    """
    cfg = make_config(args.dataset, model, seed, args.data_root, args.recipe)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    cfg.train_dataloader.num_workers = args.workers
    folder = (args.work_dir / args.dataset / model / f'seed{seed}').resolve()
    digest, marker = fingerprint(cfg), folder / 'fingerprint.txt'
    if marker.exists() and marker.read_text() != digest:
        raise SystemExit(f'{folder} was begun with other settings: remove it or name another --work-dir')
    folder.mkdir(parents=True, exist_ok=True)
    cfg.test_evaluator.outfile_prefix = str(folder / 'detections')
    cfg.dump(folder / 'config.py')
    marker.write_text(digest)
    return Run(folder, cfg.train_cfg.max_epochs, amp=args.amp), digest


def find_record(records: List[dict], args: argparse.Namespace, model: str, seed: int, digest: str) -> bool:
    """Whether a run is among the records.

    Raises:
        SystemExit: If it is, with other settings.
    """
    for record in records:
        if (record['dataset'], record['model'], record['seed']) == (args.dataset, model, seed):
            if record['fingerprint'] != digest:
                raise SystemExit(
                    f'{args.out}.json holds {model} with seed {seed} and other settings: name another --out'
                )
            return True
    return False


def train(args: argparse.Namespace) -> bool:
    """Bring all runs to their end or to the time limit."""
    environment = describe_environment('cuda' if torch.cuda.is_available() else 'cpu')
    records, comparisons, _ = read_report(args.out)
    runs, keys = [], {}
    for model, seed in order_runs(args.models, args.seeds, args.other_seeds):
        run, digest = prepare_run(args, model, seed)
        if not find_record(records, args, model, seed, digest):
            runs.append(run)
            keys[run.name] = dict(dataset=args.dataset, model=model, seed=seed, fingerprint=digest)
    print(f'{len(runs)} runs to do, {len(records)} recorded', flush=True)

    def record(run: Run) -> None:
        metrics = json.loads(run.metrics_file().read_text().strip().splitlines()[-1])
        values = {name: metrics[f'coco/bbox_{key}'] for name, key in METRICS.items()}
        log = hashlib.sha256((run.folder / 'log.txt').read_bytes()).hexdigest()[:16]
        recipe = {**RECIPES[args.dataset], **args.recipe, 'precision': 'amp' if args.amp else 'fp32'}
        measured = dict(commit=environment.commit, cpu=environment.cpu, gpu=environment.gpu, **environment.versions)
        result = {'metrics': values, 'curve': read_curve(run.folder), 'recipe': recipe, 'log': log}
        records.append({**keys[run.name], **result, **measured, 'seconds': run.seconds()})
        print(f'{run.name}: done, AP {100 * values["AP"]:.1f}', flush=True)
        write_report(args.out, environment, records, comparisons)

    return run_all(runs, args.parallel, args.time_limit, record)


def read_curve(folder: Path) -> List[list]:
    """Epoch and AP on the validation images, from the logs of all parts of a run."""
    curve = {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if 'coco/bbox_mAP' in entry:
                curve[entry['step']] = entry['coco/bbox_mAP']
    return [[epoch, value] for epoch, value in sorted(curve.items())]


def compare_runs(args: argparse.Namespace) -> None:
    """Give the differences of a data set intervals, from the detections of its recorded runs.

    Detections are not in the repository: models that lack those of a run here keep their recorded intervals.
    """
    records, comparisons, environment = read_report(args.out)
    if environment is None:
        raise SystemExit(f'{args.out}.json does not exist: call run first')
    cfg = make_config(args.dataset, LITE, 0, args.data_root)
    classes = cfg.test_dataloader.dataset.metainfo.classes
    ann_file = Path(cfg.test_evaluator.ann_file)
    ids = [entry['id'] for entry in json.loads(ann_file.read_text())['categories'] if entry['name'] in classes]
    files = {
        (record['model'], record['seed']): args.work_dir.joinpath(
            args.dataset, record['model'], f'seed{record["seed"]}', 'detections.bbox.json'
        )
        for record in records
        if record['dataset'] == args.dataset
    }
    missing = {model: path for (model, _), path in files.items() if not path.is_file()}
    for model, path in missing.items():
        print(f'{model}: intervals stay as recorded, there is no {path}', flush=True)
    matches: Dict[str, Dict[int, ImageMatches]] = {}
    for (model, seed), path in files.items():
        if model not in missing:
            matches.setdefault(model, {})[seed] = ImageMatches(ann_file, json.loads(path.read_text()), ids)
    claims = [claim for claim in CLAIMS if claim.better in matches and claim.other in matches]
    pairs = {(claim.better, claim.other) for claim in claims}  # each once, though several claims are of one pair
    found = {pair: compare(*(matches[model] for model in pair), args.replicates) for pair in pairs}
    new = {claim.key: found[claim.better, claim.other][claim.metric] for claim in claims}
    comparisons[args.dataset] = {**comparisons.get(args.dataset, {}), **new}
    write_report(args.out, environment, records, comparisons)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='action', required=True)
    run = commands.add_parser('run', help='train and evaluate what is not done yet')
    run.add_argument('dataset', choices=tuple(RECIPES))
    run.add_argument('--data-root', type=Path, help='folder of the data (default: that of the config)')
    run.add_argument('--models', nargs='+', choices=tuple(MODELS), default=list(MODELS), metavar='MODEL')
    run.add_argument('--seeds', type=int, default=3, help='seeds of the main pair (default: %(default)s)')
    run.add_argument('--other-seeds', type=int, default=1, help='seeds of other models (default: %(default)s)')
    run.add_argument('--parallel', type=int, default=1, help='runs at a time (default: %(default)s)')
    run.add_argument('--workers', type=int, default=1, help='data workers of a run (default: %(default)s)')
    run.add_argument('--time-limit', type=float, default=540, help='seconds of this call (default: %(default)s)')
    run.add_argument('--amp', action='store_true', help='automatic mixed precision')
    for name, kind in SETTINGS.items():
        run.add_argument(f'--{name.replace("_", "-")}', type=kind, help='override of the recipe')
    run.add_argument('--work-dir', type=Path, default=Path('work_dirs/accuracy'))
    run.add_argument('--cfg-options', nargs='+', action=DictAction, help='further settings, for trials')
    compared = commands.add_parser('compare', help='give differences between models an interval')
    compared.add_argument('dataset', choices=tuple(RECIPES))
    compared.add_argument('--data-root', type=Path, help='folder of the data (default: that of the config)')
    compared.add_argument('--work-dir', type=Path, default=Path('work_dirs/accuracy'))
    compared.add_argument('--replicates', type=int, default=1000, help='draws (default: %(default)s)')
    report = commands.add_parser('report', help='write the tables anew')
    for command in (run, compared, report):
        command.add_argument('--out', type=output_pair, default=OUT, help='record, OUT.json, and its tables, OUT.md')
    args = parser.parse_args()
    if args.action != 'report' and args.dataset in NEEDS_DATA_ROOT and args.data_root is None:
        parser.error(f'{args.dataset} needs --data-root, the folder that accuracy_tiles.py has written')
    if args.action == 'run':
        args.recipe = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
        for name in set(args.recipe) - set(RECIPES[args.dataset]):
            parser.error(f'--{name.replace("_", "-")} is no setting of {args.dataset}')
        args.data_root = args.data_root and args.data_root.resolve()
        for name in ('seeds', 'parallel', 'time_limit'):
            if getattr(args, name) <= 0:
                parser.error(f'--{name.replace("_", "-")} must be above 0, got {getattr(args, name)}')
    return args


def main() -> None:
    args = parse_args()
    # So that a call that is told to end ends its processes, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if args.action == 'compare':
        compare_runs(args)
    if args.action in ('compare', 'report'):
        records, comparisons, environment = read_report(args.out)
        if environment is None:
            raise SystemExit(f'{args.out}.json does not exist: call run first')
        write_report(args.out, environment, records, comparisons)
        print(format_markdown(environment, records, comparisons))
        return
    finished = train(args)
    report = Path(f'{args.out}.md')
    print(report.read_text() if report.exists() else 'no run is done yet')
    sys.exit(0 if finished else 75)  # EX_TEMPFAIL: call again


if __name__ == '__main__':
    main()
