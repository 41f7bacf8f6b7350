"""Adapters without their libraries: nothing is imported before it is used, and the error names the command."""

import subprocess
import sys

import pytest

from lite_detr_mmdet import adapters
from lite_detr_mmdet.adapters.optional import require


@pytest.mark.parametrize(
    'name, module, library, package',
    [
        ('to_supervision', 'results', 'supervision', 'supervision'),
        ('SahiModel', 'sliced', 'sahi', 'sahi'),
        ('save_pretrained', 'hub', 'safetensors', 'safetensors'),
    ],
)
def test_error_names_the_command(without, name, module, library, package):
    without(module, library)
    with pytest.raises(ImportError, match=rf"pip install {package}, or pip install 'lite-detr-mmdet\[adapters\]'"):
        getattr(adapters, name)


def test_library_that_lacks_something_itself_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / 'half_installed.py').write_text('import something_it_needs\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'something_it_needs'"):
        require('half_installed')


def test_nothing_is_imported_before_it_is_used():
    # mmdet imports transformers where it is installed, and that imports safetensors.
    code = 'import sys\nsys.modules["transformers"] = None\nimport lite_detr_mmdet, lite_detr_mmdet.adapters\n'
    code += "print(sorted({'supervision', 'sahi', 'safetensors', 'gradio', 'faster_coco_eval'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout.strip().splitlines()[-1] == '[]', result.stderr


def test_unknown_name():
    with pytest.raises(AttributeError, match='no attribute'):
        adapters.__getattr__('to_something')
