"""Every command takes every form of a name, and answers a wrong one with the same words."""

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.tools import ROOT

from lite_detr_mmdet.zoo import ConfigNotFoundError, find_config

NAME = 'lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco'
FORMS = [
    NAME,
    f'{NAME}.py',
    'lite-dino-4scale_h3l1-2p1x3_r50',
    f'lite_detr_mmdet::lite_dino/{NAME}.py',
    f'configs/lite_dino/{NAME}.py',
    'mmdet::dino/dino-4scale_r50_8xb2-36e_coco.py',
]
WRONG = ['lite-dino-4scale_h3l1-2p1x3_r5', f'configs/{NAME}.py', 'mmdet::dino/dino-4scale_r5.py', 'nowhere::a.py']
# What each command is called with; the launchers and mim pass their words on to train.py and test.py.
COMMANDS = {
    'tools/train.py': ['{}'],
    'tools/test.py': ['{}', 'http://host/checkpoint.pth'],
    'tools/analysis_tools/get_flops.py': ['{}'],
    'demo/image_demo.py': ['{image}', '{}', '--weights', 'http://host/checkpoint.pth'],
    'benchmarks/detectors.py': ['{}'],
}


@pytest.fixture(params=COMMANDS)
def parse(request, monkeypatch, tmp_path):
    """Let a command read its arguments."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str((ROOT / request.param).parent))
    module = runpy.run_path(request.param)
    cv2.imwrite(str(tmp_path / 'image.png'), np.zeros((4, 4, 3), np.uint8))

    def parse(config: str):
        words = [word.format(config, image=tmp_path / 'image.png') for word in COMMANDS[request.param]]
        monkeypatch.setattr(sys, 'argv', [request.param, *words])
        return module['parse_args']()

    return parse


def test_every_form_of_a_name(parse):
    for name in FORMS:
        args = parse(name)
        # get_flops keeps the name for its table, beside the file
        (path,) = args.paths if 'paths' in args else args.configs if 'configs' in args else [args.config]
        assert Path(path).samefile(find_config(name))


def test_wrong_name(parse, capsys):
    for name in WRONG:
        with pytest.raises(ConfigNotFoundError) as expected:
            find_config(name)
        with pytest.raises(SystemExit):
            parse(name)
        assert capsys.readouterr().err.rstrip().endswith(str(expected.value))
