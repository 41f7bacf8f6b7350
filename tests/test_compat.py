"""What is fixed for today's torch: loading checkpoints, inheriting configs; nothing more than needed is allowed."""

import os
import pickle
import warnings

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.dist import utils as dist_utils
from mmengine.logging import HistoryBuffer, MMLogger

from lite_detr_mmdet.compat import apply_compat, config_path
from lite_detr_mmdet.compat.safe_globals import history_buffer_method


def runner_checkpoint() -> dict:
    """What mmengine's Runner saves beside the weights."""
    history = HistoryBuffer([0.5, 0.25], [1, 1], max_length=10)
    history.update(np.float64(0.125))
    scalars = dict(step=np.int64(3), loss=np.float64(0.1), flag=np.bool_(True), half=np.float16(2))
    message_hub = dict(log_scalars={'train/loss': history}, runtime_info=scalars, resumed_keys={'train/loss': True})
    arrays = dict(ids=np.arange(4), weights=np.ones((2, 3), np.float32))
    return dict(meta=dict(epoch=1, seed=0), state_dict=dict(w=torch.ones(2)), message_hub=message_hub, arrays=arrays)


def save(content, path, rename=None):
    """Save as the Runner does; ``rename`` replaces a module's name in the pickle, as another numpy would write it."""
    torch.save(content, path)
    if rename is None:
        return
    source = torch.serialization.torch.PyTorchFileReader(str(path))
    data = source.get_record('data.pkl')
    old, new = (b'c' + name.encode() + b'.multiarray\n' for name in rename)
    assert old in data
    writer = torch.serialization.torch.PyTorchFileWriter(str(path) + '.renamed')
    for name in source.get_all_records():
        record = source.get_record(name)
        if name == 'data.pkl':
            record = record.replace(old, new)
        if name not in ('version', 'byteorder', '.format_version', '.storage_alignment', '.data/serialization_id'):
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    os.replace(str(path) + '.renamed', path)


@pytest.mark.parametrize('other_numpy', [False, True], ids=['this numpy', 'the other numpy'])
def test_checkpoint_of_the_runner_loads(tmp_path, other_numpy):
    current = np.empty(0).__reduce__()[0].__module__.rpartition('.')[0]
    other = {'numpy._core': 'numpy.core', 'numpy.core': 'numpy._core'}[current]
    path = tmp_path / 'epoch_1.pth'
    expected = runner_checkpoint()
    save(expected, path, (current, other) if other_numpy else None)
    loaded = torch.load(path, weights_only=True)
    history = loaded['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer) and history.mean() == pytest.approx(0.875 / 3)
    assert history.statistics('current') == 0.125  # found by the names of its methods, which the file asks for
    assert loaded['message_hub']['runtime_info'] == expected['message_hub']['runtime_info']
    assert all(np.array_equal(loaded['arrays'][name], expected['arrays'][name]) for name in expected['arrays'])


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize(
    'content',
    [
        Calls(os.system, 'true'),
        Calls(eval, '1'),
        Calls(getattr, Calls, '__init__'),
        Calls(getattr, HistoryBuffer, 'register_statistics'),
        Calls(getattr, HistoryBuffer, '__init__'),
        Calls(getattr, np.ndarray, 'tofile'),
        Calls(getattr, 'text', 'upper'),
        np.array([dict(a=1), None], dtype=object),
        np.array(['text']),
    ],
    ids=[
        'os.system',
        'eval',
        'class',
        'other method',
        'dunder',
        'tofile',
        'str',
        'object array',
        'string array',
    ],
)
def test_anything_else_is_refused(tmp_path, content):
    path = tmp_path / 'bad.pth'
    torch.save(dict(state_dict={}, extra=content), path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def test_stand_in_for_getattr_knows_four_methods():
    for name in ('min', 'max', 'mean', 'current'):
        assert history_buffer_method(HistoryBuffer, name) is getattr(HistoryBuffer, name)
    with pytest.raises(pickle.UnpicklingError, match="'update'"):
        history_buffer_method(HistoryBuffer, 'update')


def test_applying_twice_changes_nothing():
    def state():
        return (
            set(map(str, torch.serialization.get_safe_globals())),
            Config._get_cfg_path,
            dist_utils._init_dist_pytorch,
            dict(MODULE2PACKAGE),
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


def test_config_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'lite_dino/no-such\.py is not a config of lite_detr_mmdet'):
        config_path('lite_detr_mmdet::lite_dino/no-such.py')
    with pytest.raises(FileNotFoundError, match=r'no-such\.py'):
        write_config(tmp_path, "_base_ = 'lite_detr_mmdet::lite_dino/no-such.py'")


def test_configs_of_other_packages():
    assert config_path('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py').endswith(
        'dino/dino-4scale_r50_8xb2-12e_coco.py'
    )
    with pytest.raises(FileNotFoundError, match=r'mmdet::dino/none\.py is not a config of mmdet: looked in'):
        config_path('mmdet::dino/none.py')
    with pytest.raises(FileNotFoundError, match="the package 'mmnothing' is not installed"):
        config_path('mmnothing::a.py')


def test_other_packages_are_found_as_before(tmp_path):
    cfg = write_config(tmp_path, "_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'")
    assert cfg.model.type == 'DINO'
