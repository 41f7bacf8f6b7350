"""Checkpoints are written as plain values; what has no plain form is left out and told."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from lite_detr_mmdet.checkpoint import CheckpointError, plain_checkpoint, restore_histories


class Name(str):
    """A text that another reader would not know."""


def test_everything_becomes_plain_or_is_left_out():
    weights = OrderedDict(w=torch.ones(1))
    weights._metadata = {'': dict(version=2)}
    content = {
        'state_dict': weights,
        Name('a'): Name('b'),
        object(): 1,
        'objects': np.array([object()]),
        3: np.arange(2),
    }
    plain, left_out = plain_checkpoint(content)
    assert list(plain) == ['state_dict', 'a', 3] and plain['a'] == 'b' and plain[3].tolist() == [0, 1]
    assert {type(plain['a']), *(type(key) for key in plain)} == {str, int}
    assert type(plain['state_dict']) is OrderedDict and plain['state_dict']._metadata == weights._metadata
    assert len(left_out) == 2 and "['objects'] (ndarray)" in left_out and '(object)' in left_out[0]


def test_histories():
    hub = dict(log_scalars=dict(loss=HistoryBuffer([1.0], [2], max_length=3), other=4))
    plain = plain_checkpoint(hub)[0]
    restore_histories(plain)
    assert plain['log_scalars']['loss'].data[0].tolist() == [1.0] and plain['log_scalars']['other'] == 4
    restore_histories({})
    restore_histories(dict(log_scalars=3))


@pytest.mark.parametrize(
    'values', [[1.0], 3, torch.ones(2, 2), torch.ones(5)], ids=['list', 'number', 'table', 'long']
)
def test_histories_of_a_stranger(tmp_path, values):
    history = dict(log_history=values, count_history=torch.ones(1), max_length=3)
    torch.save(dict(message_hub=dict(log_scalars=dict(loss=history))), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r'a\.pth cannot be read .* a log history that is not a list of numbers'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))
