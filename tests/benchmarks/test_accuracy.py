"""benchmarks/accuracy.py: what is compared, going on where a call stopped, and the tables. No training here."""

import importlib
import json
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmdet.registry import MODELS

from lite_detr_mmdet.models.layers import KeyAwareDeformableAttention, LiteEncoder

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / 'benchmarks'
# A stand-in for training: an epoch is a file, the first ones are there already; then one with metrics for testing.
TRAIN = """
import pathlib, sys, time
folder, epochs, seconds = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
for epoch in range(1, epochs + 1):
    checkpoint = folder / f'epoch_{epoch}.pth'
    if not checkpoint.exists():
        time.sleep(seconds)
        checkpoint.write_text('')
        (folder / 'last_checkpoint').write_text(str(checkpoint))
        print(f'Epoch(train) [{epoch}] trained', flush=True)
"""
TEST = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1]) / 'test' / '20260101_000000'
folder.mkdir(parents=True)
names = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
(folder / '20260101_000000.json').write_text(json.dumps({f'coco/bbox_{name}': 0.5 for name in names}))
"""


@pytest.fixture
def modules(monkeypatch):
    """The modules of the driver; those of ``benchmarks`` import each other by their bare names."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ('accuracy_models', 'accuracy_runs', 'accuracy_report', 'accuracy', 'part_sampler')
    return SimpleNamespace(**{name.rpartition('_')[2]: importlib.import_module(name) for name in names})


@pytest.fixture
def fake(modules, monkeypatch):
    """Runs with the stand-in; ``seconds`` is what an epoch of it takes, runs of ``broken`` models fail."""
    settings = SimpleNamespace(seconds=0.0, broken=(), started=[])

    def command(run):
        step = run.next_step()
        settings.started.append((run.folder.parent.name, run.folder.name, step))
        if run.folder.parent.name in settings.broken:
            return [sys.executable, '-S', '-c', 'raise SystemExit("out of memory")']
        words = [TRAIN, run.folder, run.epochs, settings.seconds] if step == 'train' else [TEST, run.folder]
        return [sys.executable, '-S', '-c', *map(str, words)]

    monkeypatch.setattr(modules.runs.Run, 'command', command)
    return settings


def make_runs(modules, root: Path, count: int, epochs: int = 3) -> list:
    runs = [modules.runs.Run(root / 'set' / f'model{index}' / 'seed0', epochs) for index in range(count)]
    for run in runs:
        run.folder.mkdir(parents=True, exist_ok=True)
    return runs


def run_all(modules, runs, time_limit=60.0, parallel=2):
    done = []
    finished = modules.runs.run_all(runs, parallel, time_limit, done.append, interval=0.02)
    return finished, [run.folder.parent.name for run in done]


@pytest.mark.parametrize('index', range(7))
def test_models_are_what_their_names_say(modules, index):
    name = list(modules.models.MODELS)[index]
    cfg = modules.models.make_config('shapes', name, seed=0)
    cfg.model.backbone.base_channels = 8
    cfg.model.neck.in_channels = [16, 32, 64][-len(cfg.model.neck.in_channels) :]
    model = MODELS.build(cfg.model)
    attention = [layer.self_attn for layer in model.encoder.layers]
    attention += [layer.cross_attn for layer in model.decoder.layers]
    key_aware = name.startswith('lite') and not name.endswith('msda')
    assert all(isinstance(module, KeyAwareDeformableAttention) == key_aware for module in attention)
    assert model.num_feature_levels == (3 if '3scale' in name else 4)
    assert {module.num_levels for module in attention} == {model.num_feature_levels}
    assert isinstance(model.encoder, LiteEncoder)
    assert len(model.encoder.layers) == (9 if name.endswith('seq') else 6)
    assert model.encoder.num_low_levels == (0 if name.startswith('dino') else 2 if 'h2l2' in name else 1)
    if name.startswith('lite'):
        assert model.encoder.num_blocks == (1 if '6p1x1' in name else 3)
        assert model.encoder.low_level_update == ('sequential' if name.endswith('seq') else 'joint')


@pytest.mark.parametrize('dataset', ['shapes', 'bccd', 'hit_uav', 'hit_uav_tiles'])
def test_nothing_else_differs(modules, dataset, tmp_path):
    def rest(cfg):
        rest = cfg.to_dict()
        for part in ('type', 'encoder', 'num_feature_levels'):
            rest['model'].pop(part, None)
        rest['model']['backbone'].pop('out_indices')
        for part in ('in_channels', 'num_outs'):
            rest['model']['neck'].pop(part)
        rest['model']['decoder']['layer_cfg'].pop('cross_attn_cfg')
        return rest

    recipe = dict(epochs=5, parts=2, batch_size=3, lr=1e-3, num_queries=30)
    names = list(modules.models.MODELS)[: None if dataset == 'shapes' else 3]
    configs = [modules.models.make_config(dataset, name, 7, tmp_path, recipe) for name in names]
    assert all(rest(cfg) == rest(configs[0]) for cfg in configs)
    assert len({modules.models.fingerprint(cfg) for cfg in configs}) == len(configs)
    cfg = configs[0]
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[-1].T_max) == (5, 5)
    assert (cfg.val_cfg is None) == (dataset == 'shapes')
    assert cfg.train_dataloader.sampler == dict(type='PartSampler', parts=2)
    assert (cfg.train_dataloader.batch_size, cfg.optim_wrapper.optimizer.lr) == (3, 1e-3)
    assert (cfg.model.num_queries, cfg.randomness.seed) == (30, 7)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        assert Path(loader.dataset.data_root) == tmp_path and loader.batch_size == 3
    names = dict(shapes='annotations/val.json', bccd='annotations/instances_test.json')
    assert cfg.test_evaluator.ann_file == f'{tmp_path}/{names.get(dataset, "test.json")}'


def test_tiles_have_no_default(modules):
    with pytest.raises(ValueError, match='data_root'):
        modules.models.make_config('hit_uav_tiles', 'dino-4scale', 0)


def test_paths_do_not_change_the_fingerprint(modules, tmp_path):
    here, there = (modules.models.make_config('shapes', 'dino-4scale', 0, tmp_path / name) for name in 'ab')
    assert modules.models.fingerprint(here) == modules.models.fingerprint(there)


def test_parts_of_a_pass(modules):
    def epoch(number):
        sampler.set_epoch(number)
        indices = list(sampler)
        assert len(indices) == len(sampler) == 3
        return indices

    sampler = modules.sampler.PartSampler(parts=3, dataset=range(11), seed=1)
    first, second = [[epoch(number) for number in range(begin, begin + 3)] for begin in (0, 3)]
    for parts in (first, second):
        assert len(set().union(*parts)) == 9  # no image twice in a pass
    assert first != second and epoch(1) == first[1]
    with pytest.raises(ValueError, match='at least 3 images, got 1 processes and 2 images'):
        modules.sampler.PartSampler(parts=3, dataset=range(2), seed=1)


def test_first_seeds_come_first(modules):
    order = modules.accuracy.order_runs(['dino-4scale', 'dino-3scale', 'lite-dino_h3l1-2p1x3'], seeds=2, other_seeds=1)
    assert order == [(name, 0) for name in ('dino-4scale', 'dino-3scale', 'lite-dino_h3l1-2p1x3')] + [
        ('dino-4scale', 1),
        ('lite-dino_h3l1-2p1x3', 1),
    ]


def test_trains_then_tests_each_run(modules, fake, tmp_path):
    finished, done = run_all(modules, make_runs(modules, tmp_path, 3))
    assert finished and sorted(done) == ['model0', 'model1', 'model2']
    assert sorted(fake.started) == [
        (f'model{index}', 'seed0', step) for index in range(3) for step in ('test', 'train')
    ]
    run = modules.runs.Run(tmp_path / 'set' / 'model0' / 'seed0', 3)
    assert set(run.seconds()) == {'train', 'test'} and 'Epoch(train) [3] trained' in run.last_line()


def test_goes_on_where_time_was_up(modules, fake, tmp_path):
    fake.seconds = 0.4
    begin = time.monotonic()
    finished, done = run_all(modules, make_runs(modules, tmp_path, 2, epochs=50), time_limit=1.5)
    assert not finished and done == [] and time.monotonic() - begin < 15
    epochs = [len(list(tmp_path.glob(f'set/model{index}/seed0/epoch_*.pth'))) for index in range(2)]
    assert all(0 < count < 50 for count in epochs)
    time.sleep(1)  # nothing trains on behind our back
    assert epochs == [len(list(tmp_path.glob(f'set/model{index}/seed0/epoch_*.pth'))) for index in range(2)]
    fake.seconds = 0
    finished, done = run_all(modules, make_runs(modules, tmp_path, 2, epochs=50))
    assert finished and sorted(done) == ['model0', 'model1']
    log = (tmp_path / 'set' / 'model0' / 'seed0' / 'log.txt').read_text()
    assert log.count('Epoch(train)') == 50  # no epoch was trained twice


def test_failure_of_one_leaves_the_others(modules, fake, tmp_path, capsys):
    fake.broken = ('model0',)
    finished, done = run_all(modules, make_runs(modules, tmp_path, 2), parallel=1)
    assert not finished and done == ['model1']
    assert 'set/model0/seed0: train failed' in capsys.readouterr().out
    assert 'out of memory' in (tmp_path / 'set' / 'model0' / 'seed0' / 'log.txt').read_text()


def make_record(model, seed, value, small):
    metrics = dict(AP=value, AP50=0.9, AP75=0.6, APS=small, APM=0.5, APL=-1.0)
    return dict(dataset='shapes', model=model, seed=seed, metrics=metrics, recipe=dict(epochs=4))


def test_tables(modules):
    records = [make_record('dino-4scale', seed, 0.5 + 0.01 * seed, 0.3) for seed in range(3)]
    records += [make_record('lite-dino_h3l1-2p1x3', 0, 0.459, 0.29), make_record('dino-3scale', 0, 0.4, 0.1)]
    text = modules.report.format_markdown(modules.accuracy.describe_environment(), records)
    assert '| dino-4scale | 3 | 51.0 ± 1.0 | 90.0 ± 0.0 | 60.0 ± 0.0 | 30.0 ± 0.0 | 50.0 ± 0.0 | - | 100.0 % |' in text
    assert '| lite-dino_h3l1-2p1x3 | 1 | 45.9 | 90.0 | 60.0 | 29.0 | 50.0 | - | 90.0 % |' in text
    assert 'APS of `dino-4scale` minus `dino-3scale` is +20.0' in text and 'key-aware attention' not in text
    assert text.index('| dino-4scale') < text.index('| lite-dino_h3l1-2p1x3') < text.index('| dino-3scale')


def test_verdicts(modules):
    records = [make_record('dino-4scale', 0, 0.5, 0.3), make_record('lite-dino_h3l1-2p1x3', 0, 0.49, 0.3)]
    keep = modules.report.CLAIMS[0]

    def verdict(low, high):
        found = {keep.key: dict(difference=(low + high) / 2, low=low, high=high, seeds=1)}
        environment = modules.accuracy.describe_environment()
        text = modules.report.format_markdown(environment, records, dict(shapes=found))
        return next(line for line in text.splitlines() if keep.text in line)

    # 99 % of 50.0 points is half a point less
    assert verdict(-0.4, 0.8).endswith('+0.2 [-0.4, +0.8], 1 seed: **supported**')
    assert verdict(-2.0, -0.6).endswith('**refuted**') and verdict(-2.0, 0.2).endswith('**undecided**')


def test_compare_without_all_detections(modules, tmp_path, monkeypatch, capsys):
    classes = modules.models.make_config('shapes', modules.models.LITE, 0, tmp_path).train_dataloader.dataset
    categories = [dict(id=index, name=name) for index, name in enumerate(classes.metainfo.classes)]
    images = [dict(id=index, width=99, height=99, file_name=f'{index}.png') for index in range(4)]
    box = dict(category_id=0, bbox=[10, 10, 50, 50], area=2500, iscrowd=0)
    objects = [dict(box, id=index + 1, image_id=index) for index in range(4)]
    (tmp_path / 'annotations').mkdir()
    content = dict(images=images, categories=categories, annotations=objects)
    (tmp_path / 'annotations' / 'val.json').write_text(json.dumps(content))

    names = (modules.models.BASELINE, modules.models.LITE, modules.models.SMALLER)
    for name, found in zip(names[:2], (4, 2)):  # all objects, and half of them
        folder = tmp_path / 'work' / 'shapes' / name / 'seed0'
        folder.mkdir(parents=True)
        detections = [dict(image_id=index, category_id=0, bbox=[10, 10, 50, 50], score=0.9) for index in range(found)]
        (folder / 'detections.bbox.json').write_text(json.dumps(detections))
    recorded = dict(difference=1.0, low=0.5, high=2.0, seeds=1)
    smaller = next(claim.key for claim in modules.report.CLAIMS if claim.other == modules.models.SMALLER)
    out = tmp_path / 'accuracy'
    environment = modules.accuracy.describe_environment()
    records = [make_record(name, 0, 0.5, 0.3) for name in names]
    modules.report.write_report(out, environment, records, dict(shapes={smaller: recorded}))

    words = ['accuracy.py', 'compare', 'shapes', '--replicates', 20, '--data-root', tmp_path, '--out', out]
    monkeypatch.setattr(sys, 'argv', [*map(str, words), '--work-dir', str(tmp_path / 'work')])
    modules.accuracy.main()
    comparisons = modules.report.read_report(out)[1]['shapes']
    assert comparisons[smaller] == recorded
    assert comparisons[modules.report.CLAIMS[0].key]['difference'] < -40
    assert f'{modules.models.SMALLER}: intervals stay as recorded' in capsys.readouterr().out


def test_command_line(modules, fake, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(modules.accuracy, 'run_all', partial(modules.runs.run_all, interval=0.02))

    def call(*arguments) -> int:
        words = ['run', 'shapes', '--work-dir', tmp_path / 'work', '--out', tmp_path / 'results' / 'accuracy']
        words += ['--models', 'dino-4scale', 'dino-3scale', '--seeds', 2, '--parallel', 2]
        monkeypatch.setattr(sys, 'argv', ['accuracy.py', *map(str, [*words, *arguments])])
        with pytest.raises(SystemExit) as error:
            modules.accuracy.main()
        return error.value.code

    assert call('--time-limit', 1e-6) == 75 and 'no run is done yet' in capsys.readouterr().out
    assert call() == 0
    content = json.loads((tmp_path / 'results' / 'accuracy.json').read_text())
    runs = sorted((record['model'], record['seed']) for record in content['records'])
    assert runs == [('dino-3scale', 0), ('dino-4scale', 0), ('dino-4scale', 1)]
    assert 'commit' in content['environment'] and content['records'][0]['recipe']['precision'] == 'fp32'

    # elsewhere, with the results alone: nothing is trained again
    fake.started.clear()
    assert call('--work-dir', tmp_path / 'elsewhere') == 0 and fake.started == []
    # other settings are not mixed in
    assert 'was begun with other settings' in call('--epochs', 3)
    assert 'name another --out' in call('--epochs', 3, '--work-dir', tmp_path / 'third')
    assert call('--parallel', 0) == 2
    monkeypatch.setattr(sys, 'argv', ['accuracy.py', 'compare', 'hit_uav_tiles'])
    with pytest.raises(SystemExit):
        modules.accuracy.main()
    assert 'hit_uav_tiles needs --data-root' in capsys.readouterr().err
