"""Configs that inherit from the shipped ones; what is fixed is fixed once."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.config import utils as config_utils
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.dist import utils as dist_utils
from mmengine.hooks import CheckpointHook
from mmengine.logging import MMLogger
from mmengine.registry import FUNCTIONS
from mmengine.runner import Runner, runner

from lite_detr_mmdet.compat import apply_compat


def test_applying_twice_changes_nothing():
    def state():
        return (
            set(map(str, torch.serialization.get_safe_globals())),
            Config._get_cfg_path,
            dist_utils._init_dist_pytorch,
            dict(MODULE2PACKAGE),
            Config.pretty_text,
            Runner.resume,
            CheckpointHook.before_train,
            CheckpointHook._save_best_checkpoint,
            runner.save_checkpoint,
            dict(FUNCTIONS.children),
        )

    before = state()
    apply_compat()
    assert state() == before


def write_config(folder, text: str) -> Config:
    path = folder / 'mine.py'
    path.write_text(text)
    return Config.fromfile(path)


SHAPES = 'lite_detr_mmdet::lite_dino/lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes.py'
OWN = f"""
_base_ = '{SHAPES}'
metainfo = dict(classes=('cat', 'dog'))
model = dict(bbox_head=dict(num_classes=2), num_queries=20, test_cfg=dict(max_per_img=10))
train_dataloader = dict(dataset=dict(metainfo=metainfo))
"""


def test_inherited_config_trains_a_step(tmp_path, batch, capfd):
    cfg = write_config(tmp_path, OWN)
    assert cfg.train_dataloader.dataset.metainfo.classes == ('cat', 'dog')
    assert cfg.model.type == 'LiteDINO' and cfg.custom_imports.imports == ['lite_detr_mmdet']
    MMLogger.get_instance('inherited config')  # warnings of the registry go to the current logger
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*lite_detr_mmdet.*')
        model = MODELS.build(cfg.model)
    output = ''.join(capfd.readouterr())
    assert 'WARNING' not in output and 'lite_detr_mmdet' not in output
    model.init_weights()
    data = model.data_preprocessor(batch((2,), num_classes=2), training=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = model.encoder.layers[0].self_attn.value_proj.weight.clone()
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    optimizer.step()
    assert not torch.equal(before, model.encoder.layers[0].self_attn.value_proj.weight)


def test_inherited_config_has_the_scope_of_the_registry(tmp_path):
    cfg = write_config(tmp_path, f"_base_ = '{SHAPES}'\nused = _base_.model\nmodel = dict(num_queries=20)\n")
    scopes = {value for key, value in find_scopes(cfg._cfg_dict.to_dict())}
    assert scopes <= {'mmdet'}, scopes


def find_scopes(item):
    """All entries ``_scope_`` in nested dicts and lists."""
    if isinstance(item, dict):
        for key, value in item.items():
            if key == '_scope_':
                yield key, value
            yield from find_scopes(value)
    elif isinstance(item, (list, tuple)):
        for value in item:
            yield from find_scopes(value)


def test_base_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no-such\.py.* is not a config of lite_detr_mmdet'):
        write_config(tmp_path, "_base_ = 'lite_detr_mmdet::lite_dino/no-such.py'")


def test_other_packages_are_found_as_before(tmp_path):
    cfg = write_config(tmp_path, "_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'")
    assert cfg.model.type == 'DINO'
    for name in ('dino/dino-4scale_r50_8xb2-12e_coco.py', '_base_/datasets/coco_detection.py'):
        found, scope = Config._get_cfg_path(f'mmdet::{name}', 'mine.py')
        expected, expected_scope = plain_mmengine(f'mmdet::{name}')
        assert Path(found).samefile(expected) and scope == expected_scope == 'mmdet'


def plain_mmengine(name: str) -> tuple:
    code = f'from mmengine.config import Config; print(*Config._get_cfg_path({name!r}, "mine.py"), sep="\\n")'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    return tuple(result.stdout.splitlines()[-2:])


def test_no_metafile_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(config_utils, 'load', None)
    assert write_config(tmp_path, "_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'").model.type == 'DINO'


@pytest.mark.parametrize(
    'name, error',
    [
        ('mmdet::dino/no-such.py', FileNotFoundError),
        ('no_such_package::dino/a.py', AssertionError),
        ('mmdet::../../../etc/passwd', ValueError),
        ('mmdet::dino', ValueError),
    ],
)
def test_what_is_not_found_is_mmengines_error(tmp_path, name, error):
    with pytest.raises(error):
        write_config(tmp_path, f'_base_ = {name!r}')
