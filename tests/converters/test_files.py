"""Checkpoint files: what is read, refused and written; the command-line tools."""

import argparse
import os
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

import lite_detr_mmdet
from lite_detr_mmdet.checkpoint import file_sha256, save_checkpoint_file
from lite_detr_mmdet.converters import mmdet_to_official
from lite_detr_mmdet.converters.files import convert_mmdet_file, convert_official_file, high_levels_of_name
from lite_detr_mmdet.zoo import find_config

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = 'lite_detr_mmdet::lite_dino/lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py'


class Calls:
    """Pickles as a call of ``os.system``."""

    def __reduce__(self):
        return os.system, ('echo called',)


SMALL = {
    'backbone.depth': 18,
    'backbone.base_channels': 16,
    'neck.in_channels': [32, 64, 128],
    'num_queries': 100,
    'encoder.num_layers': 3,
    'encoder.layer_cfg.ffn_cfg.feedforward_channels': 128,
    'decoder.num_layers': 1,
    'decoder.layer_cfg.ffn_cfg.feedforward_channels': 128,
}


@pytest.fixture(scope='module')
def weights() -> dict:
    """The authors' weights of a small Lite-DINO (1+1)x3."""
    cfg = Config.fromfile(find_config(CONFIG)).model
    for key, value in SMALL.items():
        *path, name = key.split('.')
        node = cfg
        for part in path:
            node = node[part]
        node[name] = value
    model = MODELS.build(cfg)
    torch.nn.init.normal_(model.level_embed)  # which nothing else fills
    return mmdet_to_official(model.state_dict())[0]


@pytest.fixture
def source(weights, tmp_path):
    """Save a checkpoint as the authors' training script does."""

    def save(name: str = 'r50_s3ex3_50.4.pth', **extra) -> Path:
        args = argparse.Namespace(lr=1e-4, enc_scale=3, param_dict_type='default', lr_drop_list=[33, 45])
        schedule = dict(milestones=Counter([30]), last_epoch=35, _last_lr=[1e-5])
        content = dict(model=weights, epoch=35, args=args, lr_scheduler=schedule, **extra)
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def test_converted_file(source, weights, tmp_path):
    path, target = source(), tmp_path / 'converted.pth'
    report, config, num_high_levels = convert_official_file(path, target)
    assert config.name == CONFIG and num_high_levels == 3
    assert config.options == {f'model.{key}': value for key, value in SMALL.items()}
    code = f"""
import torch
checkpoint = torch.load({str(target)!r}, weights_only=True)
assert set(checkpoint) == {{'meta', 'state_dict'}} and len(checkpoint['state_dict']) == {len(report.mapped) + 20}
print(checkpoint['meta']['dataset_meta']['classes'][79], checkpoint['meta']['lite_detr_mmdet_version'])
"""
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout.split() == ['toothbrush', lite_detr_mmdet.__version__], result.stderr
    meta = torch.load(target, weights_only=True)['meta']
    assert meta['converted_from'] == dict(file=path.name, sha256=file_sha256(path), ema=False)
    cfg = Config.fromstring(meta['cfg'], '.py')
    assert cfg.model.num_queries == 100 and cfg.model.bbox_head.type == 'LiteDINOHead'
    assert target.stat().st_mode & 0o777 == path.stat().st_mode & 0o777

    back = convert_mmdet_file(target, tmp_path / 'back.pth')
    official = torch.load(tmp_path / 'back.pth', weights_only=True)
    assert set(official) == {'model'} and set(official['model']) == set(weights)
    assert back.num_rows == 91


def test_averaged_weights(source, weights, tmp_path):
    averaged = {
        f'module.{name}': tensor * 0.5 if tensor.is_floating_point() else tensor for name, tensor in weights.items()
    }
    path = source(ema_model=averaged)
    convert_official_file(path, tmp_path / 'ema.pth', ema=True)
    convert_official_file(path, tmp_path / 'raw.pth')
    ema, raw = (torch.load(tmp_path / name, weights_only=True)['state_dict'] for name in ('ema.pth', 'raw.pth'))
    assert torch.equal(ema['level_embed'] * 2, raw['level_embed']) and not torch.equal(
        ema['level_embed'], raw['level_embed']
    )
    with pytest.raises(ValueError, match=r"must hold 'ema_model', got model, epoch"):
        convert_official_file(source(), tmp_path / 'ema.pth', ema=True)


def test_file_that_asks_for_more_than_tensors_is_refused(source, tmp_path, capfd):
    target = tmp_path / 'converted.pth'
    with pytest.raises(
        ValueError, match=r'is refused: it holds more than tensors and plain values, namely posix\.system'
    ):
        convert_official_file(source(hook=Calls()), target)
    assert 'called' not in capfd.readouterr().out and not target.exists()


@pytest.mark.parametrize('content', [b'', b'not a checkpoint', b'PK\x03\x04 broken'])
def test_file_that_is_no_checkpoint(tmp_path, content):
    path = tmp_path / 'bad.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'bad\.pth (cannot be read|is refused)'):
        convert_official_file(path, tmp_path / 'out.pth')


def test_bad_arguments(source, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'must be a checkpoint file that exists, got .*none\.pth'):
        convert_official_file(tmp_path / 'none.pth', tmp_path / 'out.pth')
    with pytest.raises(FileNotFoundError, match='must be a file in a folder that exists'):
        convert_official_file(source(), tmp_path / 'none' / 'out.pth')
    with pytest.raises(ValueError, match=r'num_high_levels .* must be 3 \(H3L1\) or 2 \(H2L2\)'):
        convert_official_file(source('mine.pth'), tmp_path / 'out.pth')
    with pytest.raises(ValueError, match='classes must be as many as num_classes, got 1 and 2'):
        convert_official_file(source(), tmp_path / 'out.pth', classes=['cat'], num_classes=2)
    torch.save(dict(epoch=1), tmp_path / 'empty.pth')
    with pytest.raises(ValueError, match=r"must hold 'model', got epoch"):
        convert_official_file(tmp_path / 'empty.pth', tmp_path / 'out.pth')
    assert not (tmp_path / 'out.pth').exists()


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / 'checkpoint.pth'
    save_checkpoint_file(dict(a=torch.ones(1)), path)
    before = path.read_bytes()
    with pytest.raises((AttributeError, TypeError)):  # a generator cannot be pickled
        save_checkpoint_file(dict(a=(item for item in [])), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    'name, expected',
    [('r50_s2ex3_49.9.pth', 2), ('r50_s3ex1_50.2', 3), ('checkpoint0035.pth', None), ('classes3ex.pth', None)],
)
def test_levels_in_the_names_of_released_files(name, expected):
    assert high_levels_of_name(name) == expected


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Run a script in this process; return what it prints."""

    def run(script: str, *arguments) -> str:
        monkeypatch.setattr(sys, 'argv', [script, *map(str, arguments)])
        capsys.readouterr()
        runpy.run_path(str(ROOT / 'tools' / 'model_converters' / script), run_name='__main__')
        return capsys.readouterr().out

    return run


def test_tools(run_tool, source, tmp_path):
    target = tmp_path / 'converted.pth'
    output = run_tool('official_to_mmdet.py', source('mine.pth'), target, '--num-high-levels', 2)
    name = CONFIG.replace('h3l1', 'h2l2')
    assert f'config: {name} --cfg-options model.backbone.depth=18 ' in output
    assert ' model.neck.in_channels=[32,64,128] ' in output
    assert 'mapped   transformer.level_embed -> level_embed' in Path(f'{target}.txt').read_text()
    output = run_tool('mmdet_to_official.py', target, tmp_path / 'back.pth')
    assert '80 classes, 91 rows' in output and (tmp_path / 'back.pth').exists()
    with pytest.raises(SystemExit, match='error: must be a checkpoint file that exists'):
        run_tool('official_to_mmdet.py', tmp_path / 'none.pth', target)
