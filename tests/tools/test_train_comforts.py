"""What makes training comfortable: averaged weights, early stopping, statistics, bfloat16, other classes, curves."""

import json
from pathlib import Path

import pytest
import torch

from lite_detr_mmdet.analysis.training_log import read_training_log
from lite_detr_mmdet.engine import cpu_has_bfloat16
from lite_detr_mmdet.utils import add_tensorboard
from lite_detr_mmdet.zoo import get_config

pytestmark = pytest.mark.process


@pytest.fixture(scope='module')
def comfortable(run_tool, config, tiny_options, tmp_path_factory):
    """Work dir of a run with both bases of hooks and the statistics of attention."""
    folder = tmp_path_factory.mktemp('comfortable')
    path = folder / 'mine.py'
    path.write_text(f"""
_base_ = [
    {str(config)!r},
    'lite_detr_mmdet::_base_/hooks/ema.py',
    'lite_detr_mmdet::_base_/hooks/early_stopping.py',
]
default_hooks = dict(
    ema=_base_.ema_hook,
    early_stopping=dict(_base_.early_stopping_hook, patience=1, min_delta=2.0),  # no AP grows by 2
    checkpoint=_base_.best_checkpoint,
)
custom_hooks = [*_base_.custom_hooks, dict(type='AttentionStatisticsHook', interval=2, num_queries=16)]
""")
    options = [*tiny_options, 'train_cfg.max_epochs=5', 'train_cfg.val_interval=1']
    result = run_tool('tools/train.py', path, '--work-dir', folder, *options)
    return folder, result.output


def test_early_stopping(comfortable):
    folder, output = comfortable
    assert (folder / 'epoch_2.pth').exists() and not (folder / 'epoch_3.pth').exists()
    assert 'Epoch(train) [2][4/4]' in output and 'Epoch(train) [3]' not in output
    assert len(list(folder.glob('best_coco_bbox_mAP_epoch_*.pth'))) == 1


def test_averaged_weights_are_saved(comfortable):
    folder, _ = comfortable
    content = torch.load(folder / 'epoch_2.pth', weights_only=True)
    averaged, last = content['state_dict'], content['ema_state_dict']
    name = 'bbox_head.reg_branches.0.0.weight'
    first = torch.load(folder / 'epoch_1.pth', weights_only=True)
    assert last['steps'] == 8
    # With the moving average of a few steps, the momentum is close to one: weights follow, but not all the way.
    moved = (averaged[name] - first['state_dict'][name]).abs().mean()
    behind = (averaged[name] - last[f'module.{name}']).abs().mean()
    assert 0 < behind < moved


def test_averaged_weights_are_published_alone(comfortable, run_tool, tmp_path):
    folder, _ = comfortable
    run_tool('tools/model_converters/publish_model.py', folder / 'epoch_2.pth', tmp_path)
    (path,) = tmp_path.glob('*.pth')
    content = torch.load(path, weights_only=True)
    assert 'ema_state_dict' not in content
    trained = torch.load(folder / 'epoch_2.pth', weights_only=True)['state_dict']
    name = 'bbox_head.reg_branches.0.0.weight'
    torch.testing.assert_close(content['state_dict'][name].float(), trained[name], atol=2e-3, rtol=2e-3)


def test_statistics_of_attention_are_logged(comfortable):
    folder, _ = comfortable
    curves = read_training_log(folder).train
    modules = {name.rpartition('/')[0] for name in curves if name.startswith('kda/')}
    assert {'kda/encoder.layers.0.self_attn', 'kda/decoder.layers.0.cross_attn'} <= modules
    for module in modules:
        last = {name: curves[f'{module}/{name}'][1][-1] for name in ('entropy', 'reach', 'outside')}
        shares = [curves[f'{module}/share_{level}'][1][-1] for level in range(4)]
        assert sum(shares) == pytest.approx(1, abs=1e-3) and 0 < last['entropy'] <= 1
        assert 0 <= last['outside'] < 1 and last['reach'] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
@pytest.mark.skipif(not cpu_has_bfloat16(), reason='this CPU does not compute in bfloat16')
def test_bfloat16_on_a_cpu(run_tool, config, tiny_options, trained, tmp_path):
    result = run_tool('tools/train.py', config, '--amp', '--work-dir', tmp_path, *tiny_options)
    assert 'Epoch(train) [2][4/4]' in result.output
    found = read_training_log(tmp_path).train['loss'][1]
    plain = read_training_log(trained.work_dir).train['loss'][1]
    assert found != plain and found[0] == pytest.approx(plain[0], rel=0.01)
    weights = torch.load(tmp_path / 'epoch_2.pth', weights_only=True)['state_dict']
    assert all(value.dtype != torch.bfloat16 and value.isfinite().all() for value in weights.values())


def test_other_classes_start_from_a_checkpoint(run_tool, config, tiny_options, trained, shapes, tmp_path):
    names = ['disc', 'rectangle', 'triangle', 'star']
    for split in ('train', 'val'):
        content = json.loads((shapes / f'annotations/{split}.json').read_text())
        content['categories'].append(dict(id=99, name='star'))
        content['annotations'][0]['category_id'] = 99
        (tmp_path / f'{split}.json').write_text(json.dumps(content))
    classes = ','.join(f"'{name}'" for name in names)
    options = [f'load_from={trained.checkpoint}', 'model.bbox_head.num_classes=4', 'train_cfg.max_epochs=1']
    for split in ('train', 'val', 'test'):
        annotations = 'train' if split == 'train' else 'val'
        options.append(f'{split}_dataloader.dataset.ann_file={tmp_path}/{annotations}.json')
        options.append(f'{split}_dataloader.dataset.metainfo.classes=({classes})')
    options += [f'{split}_evaluator.ann_file={tmp_path}/val.json' for split in ('val', 'test')]
    options.append('optim_wrapper.optimizer.lr=1e-9')
    result = run_tool('tools/train.py', config, '--work-dir', tmp_path / 'run', *tiny_options, *options)
    assert f'weights of {trained.checkpoint}: ' in result.output
    assert 'have another shape and start anew' in result.output and 'size mismatch for' not in result.output
    assert 'star 1' in result.output
    old, new = (
        torch.load(path, weights_only=True)['state_dict']
        for path in (trained.checkpoint, tmp_path / 'run' / 'epoch_1.pth')
    )
    assert new['bbox_head.cls_branches.0.weight'].shape[0] == 4
    name = 'bbox_head.reg_branches.0.0.weight'
    torch.testing.assert_close(new[name], old[name], atol=1e-6, rtol=0)


def test_curves_for_tensorboard_where_it_is_installed(monkeypatch):
    cfg = get_config('lite-dino-4scale_h3l1-2p1x3_r50')
    before = len(cfg.visualizer.vis_backends)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    add_tensorboard(cfg)
    assert len(cfg.visualizer.vis_backends) == before
    monkeypatch.setattr('importlib.util.find_spec', lambda name: name)
    add_tensorboard(cfg)
    add_tensorboard(cfg)
    types = [backend['type'] for backend in cfg.visualizer.vis_backends]
    assert len(types) == before + 1 and types[-1] == 'TensorboardVisBackend'


def test_plot(run_tool, trained, comfortable, tmp_path):
    out = tmp_path / 'runs.png'
    result = run_tool('tools/analysis_tools/plot_run.py', trained.work_dir, comfortable[0], '--out', out)
    assert f'{Path(trained.work_dir).name}: 8 iterations, best coco/bbox_mAP' in result.output
    assert out.read_bytes()[:4] == b'\x89PNG'
    result = run_tool('tools/analysis_tools/plot_run.py', tmp_path, check=False)
    assert result.returncode == 1 and result.output.startswith(f'error: {tmp_path} holds no')
    result = run_tool('tools/analysis_tools/plot_run.py', trained.work_dir, '--loss', 'los', check=False)
    assert result.returncode == 1 and "no run has 'los'; there are" in result.output


def test_log_of_a_resumed_run(tmp_path):
    for time, steps in (('1', (1, 2, 3)), ('2', (3, 4))):
        folder = tmp_path / time / 'vis_data'
        folder.mkdir(parents=True)
        lines = [json.dumps(dict(loss=step / int(time), lr=0.1, epoch=1, iter=step, step=step)) for step in steps]
        (folder / 'scalars.json').write_text('\n'.join([*lines, json.dumps({'coco/bbox_mAP': 0.5, 'step': 1})]))
    with open(tmp_path / '2' / 'vis_data' / 'scalars.json', 'a') as file:
        file.write('\n{"loss": 1')  # killed while it wrote
    log = read_training_log(tmp_path)
    assert log.train['loss'] == ([1, 2, 3, 4], [1, 2, 1.5, 2]) and log.val['coco/bbox_mAP'] == ([1], [0.5])
    (tmp_path / '1' / 'vis_data' / 'scalars.json').write_text('no\n{}\n')
    with pytest.raises(ValueError, match=r'scalars.json, line 1, must be an object with a step'):
        read_training_log(tmp_path)
