"""What the Runner reads when it resumes is there, and of the right kind."""

import copy

import pytest
import torch
from mmengine.runner import CheckpointLoader

from lite_detr_mmdet.checkpoint import CheckpointError, check_resumable, load_checkpoint_file
from lite_detr_mmdet.compat.runner_checkpoints import _checked_resume

GOOD = dict(
    meta=dict(epoch=1, iter=2, seed=3),
    state_dict=dict(w=torch.ones(1)),
    message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
    optimizer=dict(state={}, param_groups=[]),
    param_schedulers=[dict(last_step=1)],
)
CHANGES = [
    ('meta', None, 'meta must be a table, got nothing'),
    ('state_dict', None, 'state_dict must be a table of weights, got nothing'),
    ('state_dict', dict(w=3), 'must hold tensors as .state_dict., got int as w'),
    ('meta', dict(iter=2), 'epoch must be a number, got nothing'),
    ('meta', dict(epoch=-1, iter=2), 'epoch must be a number, got int'),
    ('meta', dict(epoch=1, iter='2'), 'iter must be a number, got str'),
    ('meta', dict(epoch=1, iter=2, seed=1.5), 'seed must be a number, got float'),
    ('message_hub', None, "message_hub must be the Runner's tables, got nothing"),
    ('message_hub', dict(log_scalars={}, runtime_info={}), "must be the Runner's tables, got dict"),
    ('message_hub', dict(log_scalars={1: 2}, runtime_info={}, resumed_keys={}), "must be the Runner's tables"),
    ('optimizer', [], "optimizer must be an optimizer's state, got list"),
    ('optimizer', dict(state={}), "must be an optimizer's state, got dict"),
    ('optimizer', dict(state=[], param_groups=[]), "must be an optimizer's state, got dict"),
    ('optimizer', dict(a=dict(state={}, param_groups=[]), b=3), "must be an optimizer's state, got dict"),
    ('param_schedulers', 3, 'param_schedulers must be a list of states, got int'),
    ('param_schedulers', [3], 'param_schedulers must be a list of states, got list'),
]


@pytest.mark.parametrize('name, value, fault', CHANGES, ids=range(len(CHANGES)))
def test_parts_that_are_missing_or_wrong(name, value, fault):
    content = copy.deepcopy(GOOD)
    check_resumable('a.pth', content)
    content.pop(name)
    if value is not None:
        content[name] = value
    with pytest.raises(CheckpointError, match=f'^a.pth .*{fault}'):
        check_resumable('a.pth', content)


def test_what_need_not_be_there():
    content = dict(GOOD, meta=dict(epoch=1, iter=2, seed=None), optimizer=dict(a=GOOD['optimizer']))
    check_resumable('a.pth', content)
    check_resumable('a.pth', {name: GOOD[name] for name in ('meta', 'state_dict', 'message_hub')})


def test_resuming_checks_them_and_refuses_code(tmp_path):
    """Loading weights to start from does neither, before and after."""
    path = str(tmp_path / 'a.pth')
    resume = _checked_resume(lambda runner, filename: CheckpointLoader.load_checkpoint(filename))
    code = dict(GOOD['meta'], cfg='import os')
    for content, fault in ((dict(GOOD, message_hub={}), 'cannot be resumed'), (dict(GOOD, meta=code), 'is not data')):
        torch.save(content, path)
        assert 'cfg' not in CheckpointLoader.load_checkpoint(path)['meta']
        with pytest.raises(CheckpointError, match=fault):
            resume(None, path)
        assert 'cfg' not in CheckpointLoader.load_checkpoint(path)['meta']
    torch.save(GOOD, path)
    resume(None, path)
    assert load_checkpoint_file(path)['meta'] == GOOD['meta']
