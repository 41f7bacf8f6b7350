"""OpenMMLab's package manager with this package: install, list, search, download, run, train, test, gridsearch."""

import http.server
import importlib.util
import os
import re
import shutil
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from helpers.environments import build_wheel, make_environment, run

from lite_detr_mmdet import __version__

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        importlib.util.find_spec('mim') is None, reason='openmim is not installed (requirements/mim.txt)'
    ),
]
takes_a_minute = pytest.mark.skipif(
    os.environ.get('LITE_DETR_RELEASE_TESTS') != '1', reason='takes a minute: LITE_DETR_RELEASE_TESTS=1 runs it'
)
ROOT = Path(__file__).resolve().parent.parent.parent
NAME = 'lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco'
SHAPES = 'lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes.py'
PARTS = ('lite_detr_mmdet', 'configs', 'tools', 'demo', 'weights')
FILES = ('setup.py', 'setup.cfg', 'pyproject.toml', 'MANIFEST.in', 'model-index.yml', 'README.md', 'LICENSE')


class Environment:
    """An environment with mim, and with this package once it is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = make_environment(folder / 'environment')
        self.sources = folder / 'sources'
        for name in PARTS:
            ignored = shutil.ignore_patterns('__pycache__', '.mim', '*.so')
            shutil.copytree(ROOT / name, self.sources / name, ignore=ignored)
        for name in FILES:
            shutil.copy2(ROOT / name, self.sources / name)

    def mim(self, *arguments, **env) -> str:
        code = 'from mim.cli import cli; cli()'
        # mim looks for wheels of mmcv at its makers' site: let it not.
        env = {'MMCV_BASE_URL': 'http://127.0.0.1:9', 'PIP_RETRIES': '0', 'COLUMNS': '200', **env}
        return run(self.python, '-W', 'ignore', '-c', code, *arguments, cwd=self.folder, **env)

    @property
    def package(self) -> Path:
        """The installed package."""
        (path,) = (self.folder / 'environment' / 'lib').glob('python*/site-packages/lite_detr_mmdet')
        return path


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp('mim'))
    wheel = build_wheel(environment.sources, environment.folder / 'dist')
    output = environment.mim('install', 'lite_detr_mmdet', '--find-links', wheel.parent, '--no-deps')
    assert f'Successfully installed lite_detr_mmdet-{__version__}' in output
    return environment


@pytest.fixture
def address(tmp_path):
    """Serve the folder ``tmp_path``."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()


def test_list(installed):
    lines = [line.split() for line in installed.mim('list').splitlines()]
    assert ['lite-detr-mmdet', __version__] in [line[:2] for line in lines]


def test_search(installed):
    output = installed.mim('search', 'lite_detr_mmdet', '--config', NAME)
    assert f'config id: {NAME}\n' in output and re.search(r'^model +lite-dino$', output, re.MULTILINE)
    found = installed.mim('search', 'lite_detr_mmdet', '--condition', 'epochs<20', '--field', 'epochs')
    assert NAME.replace('36e', '12e') in found and NAME not in found


def test_download(installed, address, tmp_path):
    torch.save(dict(state_dict={}), tmp_path / 'model-12345678.pth')
    metafile = installed.package / '.mim' / 'configs' / 'lite_dino' / 'metafile.yml'
    original = metafile.read_text()
    content = yaml.safe_load(original)
    model = next(model for model in content['Models'] if model['Name'] == NAME)
    model['Weights'] = f'{address}/model-12345678.pth'
    metafile.write_text(yaml.safe_dump(content))
    try:
        installed.mim(
            'download', 'lite_detr_mmdet', '--config', NAME, '--dest', tmp_path / 'zoo', NO_PROXY='127.0.0.1'
        )
    finally:
        metafile.write_text(original)
    zoo = tmp_path / 'zoo'
    assert (zoo / 'model-12345678.pth').read_bytes() == (tmp_path / 'model-12345678.pth').read_bytes()
    assert "type='LiteDINO'" in (zoo / f'{NAME}.py').read_text()


def test_run(installed, tmp_path):
    arguments = (tmp_path / 'shapes', '--num-train', 2, '--num-val', 2, '--size', 48)
    output = installed.mim('run', 'lite_detr_mmdet', 'generate_shapes', *arguments)
    assert '.mim/tools/dataset_converters/generate_shapes.py' in output
    assert len(list((tmp_path / 'shapes' / 'train').iterdir())) == 2


def test_train_and_test(installed, tiny_options, tmp_path):
    options = [*tiny_options, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    arguments = ('lite_detr_mmdet', SHAPES, '--gpus', 0)
    output = installed.mim('train', *arguments, '--work-dir', tmp_path / 'train', *options)
    assert 'Training finished successfully' in output and (tmp_path / 'train' / 'epoch_1.pth').exists()
    assert f'{installed.package}/.mim/tools/train.py' in output
    arguments = (*arguments, '--checkpoint', tmp_path / 'train' / 'epoch_1.pth', '--work-dir', tmp_path / 'test')
    assert 'Testing finished successfully' in installed.mim('test', *arguments, *tiny_options)


@takes_a_minute
def test_gridsearch(installed, tiny_options, tmp_path):
    options = ' '.join(['--optim_wrapper.optimizer.lr', '0.001', '0.002'])
    arguments = ('--work-dir', tmp_path / 'search', '--gpus', 0, '--search-args', options)
    tiny = [*tiny_options, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    tiny.remove('optim_wrapper.optimizer.lr=0.001')  # which is searched for
    output = installed.mim('gridsearch', 'lite_detr_mmdet', SHAPES, *arguments, *tiny)
    assert output.count('finished successfully') >= 2
    assert len(list(tmp_path.glob('search_search_*/epoch_1.pth'))) == 2


@takes_a_minute
@pytest.mark.skipif(torch.cuda.is_available(), reason='the processes would need a GPU each')
def test_distributed_training_from_an_installed_package(installed, tiny_options, tmp_path, port):
    script = installed.package / '.mim' / 'tools' / 'dist_train.sh'
    config = installed.package / '.mim' / 'configs' / 'lite_dino' / SHAPES
    options = [*tiny_options, 'train_dataloader.batch_size=1', 'train_cfg.max_epochs=1']
    command = ('bash', script, config, 2, '--work-dir', tmp_path / 'work', *options)
    run(*command, cwd=tmp_path, PYTHON=str(installed.python), PORT=port)
    written = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert 'GPU number: 2' in written and (tmp_path / 'work' / 'epoch_1.pth').exists()


@takes_a_minute
def test_editable_install(tmp_path):
    environment = Environment(tmp_path)
    arguments = ('--no-deps', '--no-build-isolation', '-e', environment.sources)
    environment.mim('install', *arguments, LITE_DETR_WITHOUT_OPS='1')
    # mim looks for the package beside its metadata, where an editable install has none: docs/mim.md makes a link.
    assert 'lite-detr-mmdet' not in environment.mim('list')
    (target,) = (tmp_path / 'environment' / 'lib').glob('python*/site-packages')
    (target / 'lite_detr_mmdet').symlink_to(environment.sources / 'lite_detr_mmdet')
    assert 'lite-detr-mmdet' in environment.mim('list')
    assert f'config id: {NAME}' in environment.mim('search', 'lite_detr_mmdet', '--config', NAME)
    arguments = (tmp_path / 'shapes', '--num-train', 1, '--num-val', 1, '--size', 48)
    assert 'finished successfully' in environment.mim('run', 'lite_detr_mmdet', 'generate_shapes', *arguments)
