""".dev_scripts/update_model_zoo.py: figures into metafiles, latency into tables, tables into pages."""

import json
import runpy
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool() -> dict:
    return runpy.run_path(str(ROOT / '.dev_scripts' / 'update_model_zoo.py'))


def test_figures_go_into_metafiles(tool):
    text = (
        '# A comment.\nCollections: []\nModels:\n- Name: a\n  Metadata: {Paper AP: 50.0}\n- Name: b\n  Metadata: {}\n'
    )
    counted = dict(gmacs=dict(total=152.743, encoder=54.705), params_m=dict(total=48.488), trainable_params_m=48.212)
    written = tool['update_metafile'](text, {'a': counted})
    assert written.startswith('# A comment.\nCollections:')
    first, second = yaml.safe_load(written)['Models']
    assert first['Metadata'] == {
        'Paper AP': 50.0,
        'GMACs': 152.7,
        'Encoder GMACs': 54.7,
        'Parameters (M)': 48.5,
        'Trainable Parameters (M)': 48.2,
    }
    assert second['Metadata'] == {}
    assert tool['update_metafile'](written, {'a': counted}) == written


def test_latency_is_that_of_the_newest_run(tool, tmp_path):
    def write(name, date, seconds, shape='1x3x800x1333, fp32', **environment):
        rows = [dict(config='a', part=part, median_s=seconds) for part in ('encoder', 'detector')]
        environment.update(date=date, input=shape)
        (tmp_path / f'{name}.json').write_text(json.dumps(dict(environment=environment, rows=rows)))

    write('new', '2026-02-01', 2.0)
    write('old', '2026-01-01', 3.0)
    write('larger', '2026-03-01', 4.0, shape='8x3x800x1333, fp32')
    write('gpu', '2026-01-01', 0.05, gpu='a GPU')
    (tmp_path / 'other.json').write_text(json.dumps(dict(environment=dict(date='2026-01-01'))))
    assert tool['read_latency'](tmp_path) == {'cpu': {'a': '2000'}, 'gpu': {'a': '50'}}


def test_tables_go_between_their_marks(tool):
    begin, end = tool['BEGIN'], tool['END']
    page = f'one\n{begin}\nold\n{end}\ntwo\n{begin}\n{end}\nthree\n'
    written = tool['insert_tables'](page, ['| a |'], ['| b |'])
    assert written == f'one\n{begin}\n\n| a |\n\n{end}\ntwo\n{begin}\n\n| b |\n\n{end}\nthree\n'
    with pytest.raises(ValueError, match='1 times, got 2'):
        tool['insert_tables'](page, ['| a |'])
