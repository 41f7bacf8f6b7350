"""Importing: who may import whom, what is checked, what is registered."""

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lite_detr_mmdet.compat import versions

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'lite_detr_mmdet'
# What each part may import: of this package the parts named, of others those named (None: anything).
MAY_IMPORT = {
    '__main__': ({'utils', 'zoo'}, set()),
    'version': (set(), set()),
    'threads': (set(), set()),
    'text': (set(), set()),
    'output_files': (set(), set()),
    'timing': (set(), {'torch'}),
    'ops': (set(), {'torch'}),
    'models/backbones': (set(), None),
    'models/layers': ({'ops'}, None),
    'models/dense_heads': (set(), None),
    'models/detectors': ({'models/dense_heads'}, None),
    'analysis': (
        {'acceleration', 'datasets', 'models/detectors', 'models/layers', 'ops', 'output_files', 'timing'},
        None,
    ),
    'zoo': (set(), {'mmengine', 'yaml'}),
    'checkpoint': ({'output_files', 'text'}, None),
    'compat': ({'checkpoint', 'ops', 'output_files', 'zoo'}, None),
    'datasets': ({'output_files', 'text'}, None),
    'engine': ({'datasets', 'models/layers', 'ops'}, None),
    'pretrained': ({'checkpoint', 'compat'}, None),
    'utils': ({'checkpoint', 'compat', 'datasets', 'engine', 'zoo'}, None),
    'converters': ({'checkpoint', 'zoo'}, None),
    'acceleration': ({'ops', 'models/backbones', 'models/layers', 'models/dense_heads', 'models/detectors'}, None),
    'apis': ({'acceleration', 'checkpoint', 'compat', 'datasets', 'output_files', 'zoo'}, None),
    'evaluation': (set(), None),
    'adapters': ({'apis', 'checkpoint', 'output_files'}, None),
    'export': ({'apis', 'checkpoint', 'models/layers', 'models/detectors', 'output_files', 'zoo'}, None),
}


def part_of(module: str) -> str:
    """The part of the package that a dotted module name below it belongs to."""
    names = module.split('.')
    return '/'.join(names[:2]) if names[0] == 'models' and len(names) > 1 else names[0]


def imports(path: Path) -> set:
    """Absolute names of all modules that a file imports, wherever in the file."""
    found = set()
    package = ('lite_detr_mmdet', *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                '.'.join([*package[: len(package) - node.level + 1], node.module or '']) if node.level else node.module
            )
            base = base.rstrip('.')
            # `from .. import x`: x is a module of the package, or a name that the package defines
            found.update(f'{base}.{alias.name}' if node.module is None else base for alias in node.names)
    return found


def python(code: str, **env) -> subprocess.CompletedProcess:
    """Run code in another interpreter that finds this tree first."""
    return subprocess.run(
        [sys.executable, '-c', textwrap.dedent(code)],
        env={**os.environ, 'PYTHONPATH': str(ROOT), **env},
        capture_output=True,
        text=True,
    )


FILES = sorted(path for path in PACKAGE.rglob('*.py') if '.mim' not in path.parts)


def own_part(path: Path) -> str:
    """The part of the package that a file belongs to."""
    name = '.'.join(path.relative_to(PACKAGE).with_suffix('').parts)
    return part_of(name.removesuffix('.__init__'))


def target_of(module: str) -> str:
    """The part of the package that an imported module belongs to, or the top-level name of another package."""
    top, _, rest = module.partition('.')
    return part_of(rest or '__init__') if top == 'lite_detr_mmdet' else top


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_direction(path):
    part = own_part(path)
    if part in ('__init__', 'models'):
        return  # these two put the parts together
    assert part in MAY_IMPORT, f'a new part of the package, {part}: say here what it may import'
    own, others = MAY_IMPORT[part]
    for module in imports(path):
        if module.split('.')[0] == 'lite_detr_mmdet':
            assert target_of(module) in own | {part, 'version'}, f'{part} must not import {module}'
        elif others is not None:
            assert target_of(module) in others | sys.stdlib_module_names, f'{part} must not import {module}'


@pytest.mark.parametrize('part', MAY_IMPORT)
def test_rules_are_used(part):
    used = {target_of(module) for path in FILES if own_part(path) == part for module in imports(path)}
    own, others = MAY_IMPORT[part]
    assert not (own | (others or set())) - used, 'a rule that nothing needs lets the next slip pass'


def test_package_imports_no_tools_and_configs_import_nothing():
    assert not any(module.split('.')[0] in ('tools', 'demo', 'tests') for path in FILES for module in imports(path))
    for path in (ROOT / 'configs').rglob('*.py'):
        assert not any(
            isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.walk(ast.parse(path.read_text()))
        )


def first_imports(path: Path) -> list:
    """Top-level names of the modules that a file imports at its top, in order."""
    names = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names += [alias.name.split('.')[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.append(node.module.split('.')[0])
    return names


FOLDERS = ('tools', 'demo', 'benchmarks', '.dev_scripts')
SCRIPTS = [path for folder in FOLDERS for path in (ROOT / folder).rglob('*.py')]


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_scripts_import_the_package_first(path):
    # Before mmdet, which it completes; tools and demos also before torch, which reads how long threads spin.
    later = {'mmdet', 'mmcv'}
    parts = path.relative_to(ROOT).parts
    if parts[0] in ('tools', 'demo') and 'dev' not in parts and 'lite_detr_mmdet' in first_imports(path):
        later |= {'torch', 'mmengine'}
    names = first_imports(path)
    before = names[: names.index('lite_detr_mmdet')] if 'lite_detr_mmdet' in names else names
    assert not later & set(before), f'import lite_detr_mmdet before {later & set(before)}'


@pytest.mark.parametrize(
    'before, environment, expected',
    [('', {}, '1000'), ('', {'GOMP_SPINCOUNT': '7'}, '7'), ('', {'OMP_WAIT_POLICY': 'passive'}, 'None')]
    + [('import torch', {}, 'None')],
)
def test_spinning_of_threads_is_limited(monkeypatch, before, environment, expected):
    for name in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY'):
        monkeypatch.delenv(name, raising=False)
    code = f"{before}\nimport os, lite_detr_mmdet\nprint(os.environ.get('GOMP_SPINCOUNT'))"
    result = python(code, LITE_DETR_OPS_ONLY='1', **environment)
    assert result.stdout.strip() == expected, result.stderr


def test_ops_need_torch_only():
    result = python(
        """
        import sys

        class Block:
            def find_spec(self, name, path=None, target=None):
                if name.split('.')[0] in ('mmcv', 'mmengine', 'mmdet'):
                    raise ModuleNotFoundError(f'{name} is blocked', name=name)

        sys.meta_path.insert(0, Block())
        import torch
        from lite_detr_mmdet.ops import key_aware_deform_attn
        assert 'torch._dynamo' not in sys.modules  # a second or two that only torch.compile needs
        output = key_aware_deform_attn(
            torch.randn(1, 2, 2, 4), torch.randn(1, 12, 2, 4), torch.tensor([[3, 4]]), torch.tensor([0]),
            torch.rand(1, 2, 1, 2), torch.randn(1, 2, 2, 1, 3, 2),
        )
        assert output.shape == (1, 2, 8) and output.isfinite().all()
        assert not {'mmcv', 'mmengine', 'mmdet'} & set(sys.modules)
        """,
        LITE_DETR_OPS_ONLY='1',
    )
    assert result.returncode == 0, result.stderr


def test_everything_is_registered():
    result = python(
        """
        import sys
        import lite_detr_mmdet
        assert 'lite_detr_mmdet.apis' not in sys.modules  # imported when it is first used
        import mmdet.engine, mmdet.models
        from mmdet.registry import HOOKS, MODELS
        for name, item in {**MODELS.module_dict, **HOOKS.module_dict}.items():
            print(name, item.__module__)
        """
    )
    assert result.returncode == 0, result.stderr
    modules = dict(line.split() for line in result.stdout.splitlines())
    registered = {name for name, module in modules.items() if module.startswith('lite_detr_mmdet.')}
    assert {'LiteDINO', 'LiteDeformableDETR', 'HDETR', 'HDETRHead', 'LiteHDETR'} <= registered
    assert {'LiteEncoder', 'KeyAwareDeformableAttention', 'EpochSeedHook'} <= registered
    assert {'LiteGroundingDINO', 'LiteGroundingDinoEncoder', 'LiteMSDeformAttnPixelDecoder'} <= registered
    # Nothing may be registered anew under a name of mmdet's: a config would silently mean something else.
    assert modules['DINO'] == 'mmdet.models.detectors.dino'


@pytest.mark.parametrize('missing', ['mmengine', 'mmcv', 'mmdet'])
def test_missing_package(missing):
    result = python(
        f"""
        import sys
        sys.modules[{missing!r}] = None  # import then fails as if it were not installed
        import lite_detr_mmdet
        """
    )
    error = result.stderr.rpartition('ImportError: ')[2]
    assert result.returncode == 1 and f'needs {missing} >=' in error
    assert versions.REQUIREMENTS[missing].command in error and 'LITE_DETR_OPS_ONLY=1' in error


def test_operators_of_mmcv_that_cannot_be_loaded(monkeypatch, tmp_path):
    (tmp_path / '_ext.py').write_text("raise ImportError('undefined symbol: something of another torch')")
    result = python(
        f"""
        import sys
        import mmcv
        mmcv.__path__.insert(0, {str(tmp_path)!r})
        import lite_detr_mmdet
        """
    )
    error = result.stderr.rpartition('ImportError: ')[2]
    assert result.returncode == 1 and 'undefined symbol' in error and versions.INSTALL_MMCV in error
    assert 'MMCV_WITH_OPS=1 pip install --no-build-isolation' in error


def test_two_distributions_of_mmcv_are_named(monkeypatch):
    installed = {'mmcv': '2.1.0', 'mmcv-lite': '2.0.1'}

    def version(name):
        if name in installed:
            return installed[name]
        raise versions.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(versions.metadata, 'version', version)
    monkeypatch.setattr(versions, 'REQUIREMENTS', {'mmcv': versions.REQUIREMENTS['mmcv']})
    with pytest.warns(UserWarning, match='mmcv 2.1.0 and mmcv-lite 2.0.1 are installed and share the module'):
        versions.check_versions()


def test_mmdet_that_refuses_another_package_by_assertion(tmp_path):
    (tmp_path / 'mmdet').mkdir()
    (tmp_path / 'mmdet' / '__init__.py').write_text("raise AssertionError('MMCV==2.3.6 is used but incompatible')")
    result = python(f'import sys; sys.path.insert(0, {str(tmp_path)!r}); import lite_detr_mmdet')
    error = result.stderr.rpartition('ImportError: ')[2]
    assert result.returncode == 1 and 'MMCV==2.3.6' in error and versions.REQUIREMENTS['mmdet'].command in error


def test_mmdet_that_is_too_old_for_mmcv_is_named_first():
    # mmdet itself stops with an assertion about mmcv here; the remedy is another mmdet.
    result = python(
        """
        from importlib import metadata
        original = metadata.version
        metadata.version = lambda name: '3.0.0' if name == 'mmdet' else original(name)  # of the others the true ones
        import lite_detr_mmdet
        """
    )
    error = result.stderr.rpartition('ImportError: ')[2]
    assert result.returncode == 1
    assert '3.0.0 is installed' in error and "pip install 'mmdet>=3.3.0,<3.4.0'" in error


@pytest.mark.parametrize(
    'name, version',
    [('mmengine', '0.9.1'), ('mmengine', '0.11.0rc0'), ('mmcv', '1.7.2'), ('mmcv', '2.2.0'), ('mmdet', '3.2.0')]
    + [('mmdet', '3.4.0.dev1'), ('mmdet', '4.0.0'), ('mmcv-lite', '2.2.0'), ('onedl-mmcv', '2.4.0')]
    + [('onedl-mmdetection', '3.3.0'), ('onedl-mmengine', '0.11.0')],
)
def test_version_that_does_not_fit(monkeypatch, name, version):
    import importlib

    module, requirement = next((key, item) for key, item in versions.REQUIREMENTS.items() if name in item.ranges)
    monkeypatch.setattr(importlib.import_module(module), '__version__', version)
    monkeypatch.setattr(versions, 'installed_distributions', lambda _: {name: version})
    monkeypatch.setattr(versions, 'REQUIREMENTS', {module: requirement})
    with pytest.raises(ImportError) as error:
        versions.check_versions()
    assert f'{name} {version} is installed' in str(error.value) and requirement.command in str(error.value)


@pytest.mark.parametrize(
    'name, version, distributions',
    [('mmengine', '0.10.7', ['mmengine']), ('mmcv', '2.0.1', ['mmcv']), ('mmcv', '2.1.0', ['mmcv-lite'])]
    + [('mmcv', '2.3.6', ['onedl-mmcv']), ('mmdet', '3.5.1', ['onedl-mmdetection'])]
    + [('mmengine', '0.10.12', ['onedl-mmengine']), ('mmdet', '3.3.0', [])],
)
def test_version_that_fits(name, version, distributions):
    versions.check_version(name, version, distributions)
