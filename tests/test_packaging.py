"""What is built and installed: wheel, source distribution, editable install; all ship configs and tools for mim."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import torch

from lite_detr_mmdet import __version__

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parent.parent
CONFIG = 'lite_dino/lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py'
# The operator's build has tests of its own; here it would only take time.
ENV = {**os.environ, 'LITE_DETR_WITHOUT_OPS': '1', 'PIP_NO_INDEX': '1', 'PIP_DISABLE_PIP_VERSION_CHECK': '1'}
ENV.pop('PYTHONPATH', None)


def run(*command, cwd, **kwargs) -> str:
    result = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **kwargs,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def copy_sources(target: Path) -> Path:
    """Copy what a clone would hold: files that git tracks or would track; all but outputs where there is no git."""
    listing = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode == 0:
        for name in filter(None, listing.stdout.split('\0')):
            if (ROOT / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target / name)
    else:
        outputs = shutil.ignore_patterns('.venv*', '.git', 'build', 'dist', 'work_dirs', 'data', '.mim', '*.egg-info')
        shutil.copytree(ROOT, target, dirs_exist_ok=True, ignore=outputs)
    return target


@pytest.fixture(scope='module')
def sources(tmp_path_factory) -> Path:
    return copy_sources(tmp_path_factory.mktemp('sources'))


@pytest.fixture(scope='module')
def wheel(sources, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('wheel')
    run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', folder, '.', cwd=sources)
    (path,) = folder.iterdir()
    return path


def test_wheel_holds_what_is_needed_and_nothing_else(wheel, sources):
    assert wheel.name.startswith(f'lite_detr_mmdet-{__version__}-')
    names = set(zipfile.ZipFile(wheel).namelist())
    top = {name.split('/')[0] for name in names}
    assert top == {'lite_detr_mmdet', f'lite_detr_mmdet-{__version__}.dist-info'}
    for path in (sources / 'lite_detr_mmdet').rglob('*.py'):
        assert path.relative_to(sources).as_posix() in names
    assert 'lite_detr_mmdet/analysis/attention_page.html' in names
    for folder in ('configs', 'tools', 'demo', 'weights'):
        for path in (sources / folder).rglob('*'):
            if path.is_file() and '__pycache__' not in path.parts:
                assert f'lite_detr_mmdet/.mim/{path.relative_to(sources).as_posix()}' in names
    assert 'lite_detr_mmdet/.mim/model-index.yml' in names
    assert f'lite_detr_mmdet/.mim/configs/{CONFIG}' in names
    assert any(name.endswith('licenses/LICENSE') for name in names)
    unwanted = ('__pycache__', '.pyc', 'tests/', '.egg-info', 'work_dirs', '.git')
    assert not [name for name in names if any(part in name for part in unwanted)]


def test_metadata(wheel):
    content = zipfile.ZipFile(wheel).read(f'lite_detr_mmdet-{__version__}.dist-info/METADATA').decode()
    lines = content.splitlines()
    assert 'Name: lite-detr-mmdet' in lines and f'Version: {__version__}' in lines
    assert 'Requires-Python: >=3.10' in lines
    required = [line for line in lines if line.startswith('Requires-Dist: ') and 'extra ==' not in line]
    # pip would install an mmcv without operators: it must not be asked to.
    assert not any('mmcv' in line for line in required) and any('mmdet<3.4' in line for line in required)


def test_one_version_everywhere():
    assert f'\nversion: {__version__}\n' in (ROOT / 'CITATION.cff').read_text()
    assert re.search(rf'^## \[{__version__}\] - \d{{4}}-\d\d-\d\d$', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)


def test_launchers_stay_executable(wheel):
    for info in zipfile.ZipFile(wheel).infolist():
        if info.filename.endswith('.sh'):
            assert info.external_attr >> 16 & 0o111, info.filename


def test_installed_wheel_works(wheel, tmp_path):
    target = tmp_path / 'site'
    run(sys.executable, '-m', 'pip', 'install', '--no-deps', '--no-compile', '--target', target, wheel, cwd=tmp_path)
    config = tmp_path / 'mine.py'
    config.write_text(f"_base_ = 'lite_detr_mmdet::{CONFIG}'\nmodel = dict(num_queries=100)\n")
    code = f"""
import sys
sys.path.insert(0, {str(target)!r})
import lite_detr_mmdet
assert lite_detr_mmdet.__file__.startswith({str(target)!r}), lite_detr_mmdet.__file__
from mmdet.registry import MODELS
from mmengine.config import Config
cfg = Config.fromfile({str(config)!r})
assert cfg.model.num_queries == 100 and 'LiteDINO' in MODELS.module_dict
installed = Config.fromfile({str(target)!r} + '/lite_detr_mmdet/.mim/configs/{CONFIG}')
assert installed.model.type == 'LiteDINO'
cfg.model.backbone.init_cfg = None
assert type(MODELS.build(cfg.model)).__name__ == 'LiteDINO'
print('works')
"""
    assert run(sys.executable, '-c', code, cwd=tmp_path).splitlines()[-1] == 'works'
    tool = target / 'lite_detr_mmdet' / '.mim' / 'tools' / 'train.py'
    environment = {**ENV, 'PYTHONPATH': str(target)}
    result = subprocess.run([sys.executable, tool, '--help'], env=environment, capture_output=True, text=True)
    assert '--launcher' in result.stdout and '--local-rank' in result.stdout


# Runs each tool of an installed package as `mim run` does, in one process: importing takes longer than all else.
RUN_TOOLS = """
import contextlib, io, runpy, sys
from pathlib import Path
import lite_detr_mmdet
tools = Path(lite_detr_mmdet.__file__).parent / '.mim' / 'tools'
assert str(tools).startswith(sys.argv[1]), tools
def call(path, *words):
    sys.argv = [str(path), *words]
    sys.path[0] = str(path.parent)  # as for any script
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_path(str(path), run_name='__main__')
    except SystemExit as error:
        assert error.code in (0, None), (path, error.code)
    return printed.getvalue()
scripts = sorted(tools.rglob('*.py'))
for path in scripts:
    assert 'usage: ' in call(path, '--help'), path
name = 'lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes'
assert name in call(tools / 'analysis_tools' / 'get_flops.py', name, '--shape', '64', '96')
assert not any(Path.cwd().iterdir()), 'help and counting write nothing'
sizes = ('--num-train', '1', '--num-val', '1', '--size', '48')
call(tools / 'dataset_converters' / 'generate_shapes.py', 'shapes', *sizes)
print(len(scripts), sorted(path.name for path in Path.cwd().iterdir()))
"""


def test_every_tool_works_from_a_wheel_in_an_empty_folder(wheel, sources, tmp_path):
    target, empty = tmp_path / 'site', tmp_path / 'empty'
    empty.mkdir()
    run(sys.executable, '-m', 'pip', 'install', '--no-deps', '--no-compile', '--target', target, wheel, cwd=tmp_path)
    code = f'import sys; sys.path.insert(0, {str(target)!r})\n{RUN_TOOLS}'
    printed = run(sys.executable, '-W', 'ignore', '-c', code, target, cwd=empty).splitlines()[-1]
    assert printed == f"{len(list((sources / 'tools').rglob('*.py')))} ['shapes']"


def test_maintainers_scripts_are_not_shipped(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if '.dev_scripts' in name or 'update_model_zoo' in name or '/dev/' in name]
    assert 'lite_detr_mmdet/py.typed' in names


def bounds_of_setuptools() -> set:
    """Every bound of setuptools that a file of this repository states."""
    files = [
        *ROOT.glob('*.*'),
        *ROOT.glob('requirements/*.txt'),
        *ROOT.glob('docs/*.md'),
        *ROOT.glob('.dev_scripts/*'),
    ]
    files += [*(ROOT / 'lite_detr_mmdet').rglob('*.py')]
    texts = [path.read_text() for path in files if path.suffix in ('.md', '.py', '.sh', '.cfg', '.toml', '.txt')]
    return {bound for text in texts for bound in re.findall(r'setuptools(>=[\d.]+,<[\d.]+)', text)}


def test_one_bound_of_setuptools():
    assert bounds_of_setuptools() == {'>=77.0.3,<81'}


def test_hooks_have_the_pinned_versions():
    pinned = dict(re.findall(r'^([\w-]+)==([\d.]+)$', (ROOT / 'requirements' / 'dev.txt').read_text(), re.MULTILINE))
    hooks = re.findall(r"'([\w-]+)==([\d.]+)'", (ROOT / '.pre-commit-config.yaml').read_text())
    assert hooks and all(pinned[name] == version for name, version in hooks)


def test_source_distribution_builds_the_same_wheel(sources, wheel, tmp_path):
    code = f'from setuptools.build_meta import build_sdist; print(build_sdist({str(tmp_path)!r}))'
    archive = tmp_path / run(sys.executable, '-c', code, cwd=sources).splitlines()[-1]
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter='data')
    unpacked = tmp_path / archive.name.removesuffix('.tar.gz')
    for name in (
        'csrc',
        'tests',
        'requirements',
        'Makefile',
        'LICENSE',
        'model-index.yml',
        '.dev_scripts/setup_env.sh',
    ):
        assert (unpacked / name).exists() or not (sources / name).exists(), name
    built = tmp_path / 'wheel'
    run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', built, unpacked, cwd=tmp_path)
    (second,) = built.iterdir()
    assert set(zipfile.ZipFile(second).namelist()) == set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.slow
def test_editable_install_links_configs(tmp_path):
    sources = copy_sources(tmp_path / 'sources')
    environment = tmp_path / 'environment'
    venv.create(environment, symlinks=True)
    python = environment / 'bin' / 'python'
    purelib = run(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))', cwd=tmp_path).strip()
    # All that is installed here, pip too, can be imported there, without being copied.
    outer = Path(torch.__file__).parent.parent
    (Path(purelib) / 'outer.pth').write_text(f'{outer}\n')
    run(python, '-m', 'pip', 'install', '--no-deps', '--no-build-isolation', '-e', sources, cwd=tmp_path)

    links = sources / 'lite_detr_mmdet' / '.mim'
    for name in ('configs', 'tools', 'demo', 'weights', 'model-index.yml'):
        assert (links / name).is_symlink() and (links / name).resolve() == sources / name
    config = tmp_path / 'mine.py'
    config.write_text(f"_base_ = 'lite_detr_mmdet::{CONFIG}'\n")
    code = f"""
from pathlib import Path
import lite_detr_mmdet
from mmengine.config import Config
assert lite_detr_mmdet.__file__ == {str(sources / 'lite_detr_mmdet' / '__init__.py')!r}, lite_detr_mmdet.__file__
before = Config.fromfile({str(config)!r}).model.num_queries
edited = Path({str(sources / 'configs' / CONFIG)!r})
edited.write_text(edited.read_text().replace("type='LiteDINO',", "type='LiteDINO', num_queries=300,"))
print(before, Config.fromfile({str(config)!r}).model.num_queries)
"""
    assert run(python, '-c', code, cwd=tmp_path).splitlines()[-1] == '900 300'
    # Installing anew, and building a wheel of a tree with links, change nothing.
    run(python, '-m', 'pip', 'install', '--no-deps', '--no-build-isolation', '-e', sources, cwd=tmp_path)
    assert (links / 'configs').is_symlink()
    run(python, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', tmp_path / 'w', sources, cwd=tmp_path)
    (path,) = (tmp_path / 'w').iterdir()
    names = zipfile.ZipFile(path).namelist()
    assert len(names) == len(set(names)) and f'lite_detr_mmdet/.mim/configs/{CONFIG}' in names
    assert (links / 'configs').is_symlink()
