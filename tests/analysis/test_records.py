"""Records are read as they were written, and a page lies beside them."""

import json

import pytest

from lite_detr_mmdet.analysis.environment import describe_environment
from lite_detr_mmdet.analysis.records import Record


@pytest.fixture
def record():
    return Record(
        'detectors', describe_environment(), [dict(median_s=0.5)], (800, 1333), 1, 'float32', settings=dict(a=1)
    )


def test_read_as_written(record, tmp_path):
    record.write(tmp_path / 'new' / 'record.json')
    assert Record.from_dict(json.loads((tmp_path / 'new' / 'record.json').read_text())) == record


def test_page_beside_the_record(record, tmp_path):
    record.write_pair(tmp_path / 'version1.2', '# Times')
    assert (tmp_path / 'version1.2.md').read_text() == '# Times\n'
    assert json.loads((tmp_path / 'version1.2.json').read_text())['results'] == record.results


@pytest.mark.parametrize('change', [dict(repeats=1), dict(environment={})])
def test_other_fields_are_refused(record, tmp_path, change):
    record.write(tmp_path / 'record.json')
    content = {**json.loads((tmp_path / 'record.json').read_text()), **change}
    with pytest.raises(ValueError, match='has the fields'):
        Record.from_dict(content)
