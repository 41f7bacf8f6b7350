""".dev_scripts/draw_imports.py: no arrow of the package points up; a circle is noticed."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = runpy.run_path(str(ROOT / '.dev_scripts' / 'draw_imports.py'))


def test_no_arrow_points_up():
    imports = TOOL['read_imports']()
    layers = TOOL['find_layers'](imports)
    assert {'ops', 'zoo', 'models/layers', 'apis'} <= imports.keys() and 'zoo' in imports['apis']
    assert all(layers[used] < layers[part] for part, parts in imports.items() for used in parts)
    assert layers['ops'] == layers['zoo'] == 0
    assert 'apis --> zoo' in TOOL['draw'](imports)


def test_circle_is_noticed():
    with pytest.raises(ValueError, match='in a circle'):
        TOOL['find_layers']({'a': {'b'}, 'b': {'a'}, 'c': set()})
