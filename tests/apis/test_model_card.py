"""The model card shows text of the checkpoint as text."""

import json

import pytest
import torch

from lite_detr_mmdet.apis.model_card import make_model_card

EVIL = '<b>|[x](http://y.z)`www.a.b *c*\n\n# Title\x1b[2J' + 'long' * 99
PLACES = ('type', 'backbone', 'class', 'key', 'value', 'metric', 'figure', 'file', 'sha')


def card(**changes) -> str:
    places = {**dict.fromkeys(PLACES, 'A'), **changes}
    meta = dict(
        name='small',
        license='MIT',
        dtype='float32',
        versions={},
        cfg_json=json.dumps(dict(model=dict(type=places['type'], backbone=dict(type=places['backbone'])))),
        dataset_meta=dict(classes=('first', places['class'])),
        training={places['key']: places['value'], 'metrics': {places['metric']: places['figure']}},
        converted_from=dict(file=places['file'], sha256=places['sha']),
    )
    return make_model_card('a.pth', 'ab', 3, dict(meta=meta, state_dict=dict(w=torch.ones(1))))


@pytest.mark.parametrize('place', PLACES)
def test_text_of_the_checkpoint(place):
    plain, text = card(), card(**{place: EVIL})
    assert len(text) - len(plain) < 200
    assert 'b(x)' not in text and 'x(http: //y.z)www .a.b c' in text
    for part in ('<', '|[', '](', '://y', 'www.', '*c', '\n# T', '\x1b'):
        assert part not in text, part
    assert text.count('`') == plain.count('`') and text.count('|') == plain.count('|')
    assert text.count('\n') == plain.count('\n')


def test_source_of_another_kind():
    meta = dict(name='a', license='b', dtype='c', versions={}, dataset_meta={}, training=None, converted_from=3)
    meta['cfg_json'] = '{"model": {}}'
    text = make_model_card('a.pth', 'ab', 3, dict(meta=meta, state_dict={}))
    assert '| Converted from | `None`, SHA-256 `None` |' in text and 'without a training log' in text
