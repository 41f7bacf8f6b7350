"""mmengine's Runner and its loader read what this package has checked, wherever it comes from."""

import pytest
import torch
from helpers.web_server import cache, server  # noqa: F401
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from lite_detr_mmdet.checkpoint import CheckpointError, DownloadError
from lite_detr_mmdet.compat import runner_checkpoints


def save(folder, **content):
    path = folder / 'a.pth'
    torch.save(content, path)
    return path


def test_addresses_are_read_as_files_are(server, cache, tmp_path):  # noqa: F811
    server.files['/good.pth'] = save(tmp_path, state_dict=dict(w=torch.ones(1))).read_bytes()
    server.files['/evil.pth'] = save(tmp_path, state_dict=print).read_bytes()
    loaded = CheckpointLoader.load_checkpoint(f'{server.url}/good.pth')
    assert loaded['state_dict']['w'] == 1 and [path.suffix for path in cache.glob('*.pth')] == ['.pth']
    with pytest.raises(CheckpointError, match=r'evil\.pth is refused: .*print'):
        CheckpointLoader.load_checkpoint(f'{server.url}/evil.pth')
    with pytest.raises(DownloadError):
        CheckpointLoader.load_checkpoint(f'{server.url}/none.pth')


def test_names_of_mmcls_are_read_as_files_are(server, cache, tmp_path, monkeypatch):  # noqa: F811
    """mmengine's own loader looks their addresses up."""
    server.files['/good.pth'] = save(tmp_path, state_dict={'backbone.w': torch.ones(1)}).read_bytes()
    server.files['/evil.pth'] = save(tmp_path, state_dict=print).read_bytes()
    urls = {name: f'{server.url}/{name}.pth' for name in ('good', 'evil')}
    monkeypatch.setattr(mmengine_checkpoint, 'get_mmcls_models', lambda: urls)
    assert CheckpointLoader.load_checkpoint('mmcls://good')['state_dict'] == dict(w=torch.ones(1))
    with pytest.raises(CheckpointError, match=r'evil\.pth is refused: .*print'):
        CheckpointLoader.load_checkpoint('mmcls://evil')


def test_configs_of_the_message_hub_are_looked_at(tmp_path):
    """mmdet builds from the one in ``runtime_info``, if there is one."""
    for name in ('cfg', 'config'):
        hub = dict(runtime_info={name: 'import os', 'epoch': 1}, log_scalars={}, resumed_keys={})
        path = save(tmp_path, meta=dict(epoch=1, iter=1), state_dict={}, message_hub=hub)
        loaded = CheckpointLoader.load_checkpoint(str(path))
        assert loaded['message_hub']['runtime_info'] == dict(epoch=1)
        token = runner_checkpoints._resuming.set(True)
        try:
            with pytest.raises(CheckpointError, match=f"the config that it holds as '{name}' is not data"):
                CheckpointLoader.load_checkpoint(str(path))
        finally:
            runner_checkpoints._resuming.reset(token)
