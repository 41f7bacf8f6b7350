"""Benchmarks refuse what they cannot write before they measure."""

import pytest
from helpers.tools import ROOT


@pytest.mark.parametrize(
    'command',
    [
        'accuracy.py report',
        'detectors.py lite-dino-4scale_h3l1-2p1x3_r50',
        'gpu_limits.py',
        'key_aware_deform_attn.py',
        'profile_calls.py lite-dino-4scale_h3l1-2p1x3_r50',
        'runtimes.py . lite-dino-4scale_h3l1-2p1x3_r50',
        'training_memory.py',
    ],
)
def test_unusable_outputs(error_of_tool, monkeypatch, tmp_path, command):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    (tmp_path / 'out.md').mkdir()
    script, *arguments = command.split()
    error = error_of_tool(f'benchmarks/{script}', *arguments, '--out', tmp_path / 'out')
    assert f"argument --out: must be a file to write, got the folder '{tmp_path / 'out'}.md'" in error
