"""Checkpoints of the Runner load with torch's restricted unpickler; nothing more than they need is allowed."""

import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

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
