"""The page of the attention viewer: names stay text, clicks and switches do what they say.

test_visualize_attention.py opens the page of a real model.
"""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

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


WIDTH, HEIGHT = 64, 32
PIXEL = """([x, y]) => {
  const canvas = document.querySelector('#models canvas'), s = canvas.width / data.width;
  return [...canvas.getContext('2d').getImageData(x * s, y * s, 1, 1).data];
}"""
GRID = torch.tensor(
    [[8.0, 8], [56, 8], [8, 24], [56, 24], [16, 16], [48, 16]]
)  # four tokens of level 0, two of level 1


def layer_of_page(number: int, part: str = 'encoder') -> dict:
    """A layer as the page holds it: two heads, two levels, a point each; sample (q, h, l) is at (8q + 4h + 2l, 10).

    Weights are (1 + 4q + 2h + l) / 30 in layer 0 and fall instead of rise in layer 1.
    """
    size = torch.tensor([WIDTH, HEIGHT])
    index = torch.arange(24.0).reshape(6, 2, 2, 1)
    xy = torch.stack([2 * index, torch.full_like(index, 10)], -1)
    weights = ((1 + index if number == 0 else 24 - index) / 30) ** 2
    top = [
        dict(
            xy=attention_page._pack_points(xy[:, :, level].transpose(0, 1).flatten(0, 2), size),
            w=attention_page._pack_weights(weights[:, :, level].transpose(0, 1).flatten()),
            perHead=6,
        )
        for level in range(2)
    ]
    return dict(
        label=f'<i>{part}</i> {number}',
        part=part,
        levels=[[2, 4], [1, 2]],
        heads=2,
        points=1,
        queries=list(range(10, 16)),
        queryLevels=[0, 0, 0, 0, 1, 1] if part == 'encoder' else [-1] * 6,
        references=attention_page._pack_points(GRID if number == 0 else GRID.flip(0), size),
        boxes=None,
        xy=attention_page._pack_points(xy, size),
        w=attention_page._pack_weights(weights),
        top=top,
    )


@pytest.fixture
def opened(browser, tmp_path):
    """The page of two models, of which the second has one layer less in its encoder; nothing may fail in it."""
    layers = [layer_of_page(0), layer_of_page(1), layer_of_page(0, 'decoder')]
    models = [dict(name='<b>first</b>', first=0, layers=layers, selection=None)]
    models.append(dict(name='second', first=0, layers=[layer_of_page(0), layer_of_page(1, 'decoder')], selection=None))
    image = attention_page._image_data(np.full((HEIGHT, WIDTH, 3), 99, np.uint8))
    data = dict(image=image, width=WIDTH, height=HEIGHT, lowest=attention_page.LOWEST, span=attention_page.SPAN)
    text = json.dumps({**data, 'count': 100, 'models': models}).replace('<', '\\u003c')
    path = tmp_path / 'page.html'
    path.write_text(attention_page.TEMPLATE.read_text().replace('{{title}}', 'a').replace('{{data}}', text))
    page, errors = browser.new_page(viewport=dict(width=1300, height=900)), []
    page.set_default_timeout(10_000)
    page.on('pageerror', lambda error: errors.append(str(error)))
    page.goto(f'file://{path}')
    page.locator('body[data-ready=yes]').wait_for()
    yield page
    page.close()
    assert not errors


def click(page, x: float, y: float, model: int = 1) -> None:
    canvas = page.locator('#models canvas').nth(model)
    box = canvas.bounding_box()
    canvas.click(position=dict(x=x / WIDTH * box['width'], y=y / HEIGHT * box['height']))


def captions(page) -> list:
    return page.locator('figcaption').all_inner_texts()


def samples(page, model: int = 0) -> list:
    """Number (4q + 2h + l), weight times 30 before it was squared, level and head of each sample, strongest first."""
    found = page.evaluate(f'samples(layerOf(models[{model}]), models[{model}].query)')
    return [(round(x / 2), round(30 * weight**0.5), level, head) for x, y, weight, level, head in found]


def expected(query: int, heads=(0, 1), levels=(0, 1)) -> list:
    numbers = [(4 * query + 2 * head + level, level, head) for head in heads for level in levels]
    return [(number, 1 + number, level, head) for number, level, head in sorted(numbers, reverse=True)]


def test_click_picks_the_nearest_query_of_every_model(opened):
    assert samples(opened) == samples(opened, 1) == expected(0)
    for x, y, query in ((24, 12.5, 4), (40, 13.5, 5), (10, 3, 0), (54, 4, 1), (14, 27, 2), (56, 18, 3)):
        click(opened, x, y)
        assert samples(opened) == samples(opened, 1) == expected(query)
        place = '({}, {})'.format(*map(int, GRID[query]))
        assert all(
            f'query {10 + query}, a token of level {query // 4} at {place}' in text for text in captions(opened)
        )
        red = opened.evaluate(PIXEL, GRID[query].tolist())
        assert red[:3] == [255, 0, 0]  # the cross at its reference


def test_click_among_the_tokens_of_a_level(opened):
    click(opened, 9, 9)
    assert samples(opened) == expected(0)
    opened.locator('#among').select_option('1')
    assert samples(opened) == expected(4)  # the nearest one of that level to the last click
    click(opened, 57, 25)
    assert samples(opened) == expected(5)
    opened.locator('#among').select_option('-1')
    assert samples(opened) == expected(3)


def test_click_leads_back_from_all_queries(opened):
    opened.locator('#view').select_option('all')
    assert 'all queries' in captions(opened)[0]
    click(opened, 57, 25)
    assert samples(opened) == expected(3) and 'query 13' in captions(opened)[0]
    assert opened.locator('#view').input_value() == 'query'


def test_layers(opened):
    assert opened.locator('#layer option').all_inner_texts() == [
        '<i>encoder</i> 0',
        '<i>encoder</i> 1',
        '<i>decoder</i> 0',
    ]
    assert opened.locator('i, b').count() == 0 and captions(opened)[0].startswith('<b>first</b>: <i>encoder</i> 0')
    click(opened, 9, 23)
    opened.locator('#layer').select_option('1')
    # There the references are in the other order: the query at that place is another one. The second model has one
    # layer in its encoder.
    assert captions(opened)[0].startswith('<b>first</b>: <i>encoder</i> 1, query 13')
    assert captions(opened)[1].startswith('second: <i>encoder</i> 0, query 12')
    assert samples(opened) == [(number, 24 - number, number % 2, number % 4 // 2) for number in range(12, 16)]
    opened.locator('#among').select_option('1')
    opened.locator('#layer').select_option('2')
    assert captions(opened)[1].startswith('second: <i>decoder</i> 1, query 13 at')
    assert opened.locator('#among option').all_inner_texts() == ['all queries']  # those of a decoder have no level
    opened.locator('#view').select_option('all')
    opened.locator('#layer').select_option('0')
    opened.locator('#view').select_option('query')
    assert samples(opened) == expected(0)  # nothing was picked in that layer


def test_heads_and_levels(opened):
    level = opened.get_by_role('checkbox')
    opened.locator('#head').select_option('0')
    assert samples(opened) == expected(0, heads=[0])
    level.nth(0).uncheck()
    assert samples(opened) == expected(0, heads=[0], levels=[1]) and captions(opened)[0].endswith('; 1 samples')
    opened.locator('#view').select_option('all')
    assert samples(opened) == [(4 * query + 1, 4 * query + 2, 1, 0) for query in range(5, -1, -1)]
    level.nth(0).check()
    level.nth(1).uncheck()
    opened.locator('#head').select_option('1')
    assert samples(opened) == [(4 * query + 2, 4 * query + 3, 0, 1) for query in range(5, -1, -1)]
    assert captions(opened)[0].endswith('; 6 samples')
    level.nth(1).check()
    opened.locator('#head').select_option('-1')
    assert len(samples(opened)) == 24
    opened.get_by_role('slider').fill('2')
    assert samples(opened) == [(23, 24, 1, 1), (22, 23, 0, 1)]
