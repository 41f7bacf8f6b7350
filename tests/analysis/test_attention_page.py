"""The page of the attention viewer holds names as text; test_visualize_attention.py opens it in a browser."""

import json
import re
from types import SimpleNamespace

import numpy as np

from lite_detr_mmdet.analysis import attention_page


def test_names_do_not_become_a_part_of_the_page(monkeypatch):
    monkeypatch.setattr(attention_page, 'layer_data', lambda *_: {})
    layer, name = object(), '</script><!--<script>{{title}}'
    trace = SimpleNamespace(encoder=[layer], decoder=[], selection=None)
    image = np.zeros((4, 4, 3), np.uint8)
    page = attention_page.make_page('{{data}}</title><b>', image, {name: trace}, {layer: 0}, 5)
    plain = attention_page.make_page('', image, {'': trace}, {layer: 0}, 5)
    assert page.count('<') == plain.count('<') and '{{data}}&lt;/title&gt;&lt;b&gt;' in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert [model['name'] for model in data['models']] == [name]
    # No script but its own, nothing from elsewhere, also if a name should get through.
    assert (
        "content=\"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:\"" in page
    )
