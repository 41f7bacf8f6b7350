"""tools/analysis_tools/get_flops.py: names of configs, what is printed and written, wrong arguments."""

import json
import runpy
import sys

import pytest

from lite_detr_mmdet.analysis import PARTS
from lite_detr_mmdet.zoo import read_metafiles

TOOL = 'tools/analysis_tools/get_flops.py'
MAIN = 'lite_detr_mmdet::lite_dino/lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py'
SMALL = ['--shape', '64', '96', '--cfg-options', 'model.num_queries=10', 'model.backbone.init_cfg=None']


@pytest.fixture
def get_flops(monkeypatch, capsys):
    """Run the tool in this process and return what it prints."""

    def run(*arguments) -> str:
        monkeypatch.setattr(sys, 'argv', [TOOL, *map(str, arguments)])
        runpy.run_path(TOOL, run_name='__main__')
        return capsys.readouterr().out

    return run


@pytest.fixture(autouse=True)
def in_root(monkeypatch, config):
    monkeypatch.chdir(config.parent.parent.parent)


def test_paths_and_names_of_packages(get_flops, config, tmp_path):
    out = tmp_path / 'out.json'
    names = [str(config), f'lite_detr_mmdet::lite_dino/{config.name}', 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py']
    printed = get_flops(*names, *SMALL, '--json', out)
    assert '3x64x96' in printed and all(name.split('/')[-1].removesuffix('.py') in printed for name in names)
    content = json.loads(out.read_text())
    assert content['shape'] == [64, 96] and 'core of deformable attention' in content['counted']
    first, second, third = content['models']
    assert [model['config'] for model in content['models']] == names
    for model in content['models']:
        assert set(model['gmacs']) == set(model['params_m']) == {'total', *PARTS}
    assert first['gmacs'] == second['gmacs'] and first['params_m'] == second['params_m']
    assert third['params_m']['total'] > 2 * first['params_m']['total']


def test_comparison_with_the_paper(get_flops):
    printed = get_flops(MAIN, '--compare')
    (line,) = [line for line in printed.splitlines() if 'h3l1-2p1x3_r50' in line]
    cells = [cell.strip() for cell in line.strip('|').split('|')]
    (model,) = [model for model in read_metafiles() if f'lite_dino/{model.config.name}' in MAIN]
    counted, encoder, params = (model.metadata[name] for name in ('GMACs', 'Encoder GMACs', 'Parameters (M)'))
    assert cells[1:] == ['50.4', str(counted), '151', '+1.1%', str(encoder), '53', str(params), '47']


def test_config_that_is_not_in_the_paper(get_flops, config):
    printed = get_flops(config, '--compare', *SMALL)
    (line,) = [line for line in printed.splitlines() if config.stem in line]
    assert line.count(' - ') == 5


@pytest.mark.parametrize(
    'arguments, message',
    [
        ([], 'CONFIG is missing; without one there are only --compare and --tokens'),
        (['no/such.py'], "CONFIG: 'no/such.py' is not a config file that exists"),
        (['mmdet::dino/no.py'], "CONFIG: 'mmdet::dino/no.py' is not a config of mmdet"),
        (['lite_detr_mmdet::no.py'], "CONFIG: 'lite_detr_mmdet::no.py' is not a config of lite_detr_mmdet"),
        (['nowhere::dino/no.py'], "the package 'nowhere' is not installed"),
        ([MAIN, '--shape', '0', '64'], '--shape must be two positive integers, height and width, got 0 64'),
        ([MAIN, '--shape', '64'], 'argument --shape: expected 2 arguments'),
        (['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '--shape', '8', '8'], 'DINO cannot process a 3x8x8 image'),
        (['mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'], 'YOLOX has no encoder'),
    ],
)
def test_wrong_arguments(error_of_tool, arguments, message):
    assert message in error_of_tool(TOOL, *arguments)


def test_tokens(get_flops):
    """Table 2 of the paper, at a size that all strides divide."""
    printed = get_flops('--tokens', '--shape', 1024, 1024)
    shares = [line.split('|')[-2].strip() for line in printed.splitlines() if '| S' in line]
    assert shares == ['75.29%', '18.82%', '4.71%', '1.18%']
    assert '100x133' in get_flops('--tokens')
    assert get_flops('--tokens', '--strides', 4, 8).count('| S') == 2


def test_like_the_authors(get_flops, config):
    printed = get_flops(config, '--like-authors', '64x96', '96X64', *SMALL[3:])
    assert 'Mean over 2 image sizes' in printed
    counts = dict(part.rsplit(' ', 1) for part in printed.splitlines()[-1].partition(': ')[2].split(', '))
    assert {'conv', 'linear', 'bmm', 'grid_sampler', 'layer_norm'} < set(counts)
    assert float(counts['total']) == pytest.approx(sum(map(float, counts.values())) / 2, abs=0.05)


@pytest.mark.parametrize('size', ['64', 'axb', '0x5'])
def test_bad_size(get_flops, size, capsys):
    with pytest.raises(SystemExit):
        get_flops(MAIN, '--like-authors', size)
    assert 'must be height and width as 800x1060' in capsys.readouterr().err
